"""The ``Experiment``: every setting of one training run, as one frozen, checked tree.

One ``Experiment`` describes a single run or a trial of a sweep; a search space names its
leaves by dotted paths (``critic.depth``). Models and losses receive
plain numbers from it, never the tree itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)

from segan_ray import documents, sizes
from segan_ray.authors_layout import Published
from segan_ray.brats import MODALITIES, REGIONS
from segan_ray.errors import ConfigError, cut, listed, nearest

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Epochs = Annotated[int, Field(ge=1, le=sizes.MOST_EPOCHS)]
Slices = Annotated[int, Field(ge=1, le=sizes.MOST_SLICES)]
Width = Annotated[int, Field(ge=1, le=sizes.WIDEST)]
ClassWeights = tuple[PositiveFloat, PositiveFloat, PositiveFloat]
ScaleWeights = Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)]
Variant = Literal["s1-1c", "s1-3c", "s3-3c", "unet"]
Optimizer = Literal["adam", "adamw", "rmsprop"]
Gpus = Literal["auto"] | Annotated[float, Field(ge=0, le=sizes.MOST_GPUS)]
Network = Literal["segan", "authors", "unet", "residual-unet", "segresnet"]
OF_MONAI: Final = ("unet", "residual-unet", "segresnet")


class Settings(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SegmentorSettings(Settings):
    """The segmentor S and its optimizer."""

    network: Network = "unet"
    """MONAI's ``unet``, ``residual-unet`` or ``segresnet``; the paper's (``segan``); or one of the
    authors' published networks (``authors``)."""
    authors: Published = "brain"
    """Which of the authors' networks, each of fixed depth, ``network: authors`` is."""
    full_resolution: bool = True
    """Give ``segan`` one more convolution before the maps, as the authors' networks have."""
    lr: PositiveFloat = 1e-3
    """The learning rate at its highest; ``training.schedule`` says how it falls."""
    optimizer: Optimizer = "adam"
    """The optimizer of the segmentor."""
    beta1: Fraction = 0.5
    """The decay of the mean of gradients in ``adam`` and ``adamw``; ``rmsprop`` has none."""
    depth: Annotated[int, Field(ge=2, le=6)] = 4
    """How many times height and width are halved (downsampling levels)."""
    base_width: Width = 16
    """The channels of the first level. In ``segan`` each level doubles them, up to eight times."""
    skip: Literal["add", "concat"] = "concat"
    """How ``segan`` joins mirrored levels: by their sum or side by side."""


class CriticSettings(Settings):
    """The critic C and its optimizer."""

    kind: Literal["per-region", "joint", "none"] = "per-region"
    """One critic for each region, one for all regions together, or no critic."""
    input: Literal["product", "concat"] = "product"
    """What a critic sees: the image multiplied by the maps (the paper) or joined with them
    (SegAN-CAT)."""
    norm: Literal["batch", "instance", "none"] = "batch"
    """The norm behind each convolution of a critic but the first."""
    lr: PositiveFloat = 3e-4
    """The learning rate at its highest; ``training.schedule`` says how it falls."""
    optimizer: Optimizer = "adam"
    """The optimizer of the critics."""
    beta1: Fraction = 0.5
    """The decay of the mean of gradients in ``adam`` and ``adamw``; ``rmsprop`` has none."""
    depth: Annotated[int, Field(ge=1, le=6)] = 3
    """How many blocks a critic has. They give ``depth + 1`` feature scales, the input being the
    first."""
    base_width: Width = 16
    """The channels of a critic's first block."""
    scales: Literal["multi-scale", "single-scale"] = "multi-scale"
    """Whether the loss compares the features of all scales or the deepest alone."""
    steps: Annotated[int, Field(ge=1, le=sizes.MOST_UPDATES)] = 1
    """How often the critic is updated for each update of the segmentor."""
    clamp: PositiveFloat | None = 0.05
    """The largest absolute value of a critic's weights after each update; null is no bound."""
    clamp_norm: bool = True
    """Clamp the weights of the critic's norms too, as the authors' code does."""
    spectral_norm: bool = False
    """Divide each weight of a critic by its spectral norm."""

    @property
    def scale_count(self) -> int:
        """How many scales the loss compares."""
        return 1 if self.scales == "single-scale" else self.depth + 1


class LossSettings(Settings):
    """The multi-scale L1 loss of the critic, and Dice and cross-entropy of the maps beside it."""

    scale_weights: ScaleWeights | None = None
    """One weight for each scale of the critic; null weighs all alike."""
    reduction: Literal["per-scale", "concatenated"] = "per-scale"
    """The mean of each scale, then over scales (the paper); or the mean of all features at once,
    so that large maps count most (the authors' published code)."""
    adversarial_weight: NonNegativeFloat = 1.0
    """The weight of the multi-scale loss in what the segmentor lowers."""
    adversarial_from: Epochs = 1
    """The epoch in which the critic comes in."""
    adversarial_ramp: Annotated[int, Field(ge=0, le=sizes.MOST_EPOCHS)] = 0
    """Over how many epochs the critic's weight rises, in equal steps."""
    class_weights: ClassWeights | None = None
    """Weights of the regions (whole, core, enhancing) in Dice and cross-entropy; null weighs all
    alike."""
    ce_weight: NonNegativeFloat = 1.0
    """The weight of cross-entropy."""
    dice_weight: NonNegativeFloat = 1.0
    """The weight of the Dice loss."""
    dice_smoothing: PositiveFloat = 50.0
    """Voxels added to both parts of the Dice fraction. At 1, slices without a region push its map
    to empty so hard that the enhancing map dies for good in some runs; at 50 it does not."""
    dice_power: Literal[1, 2] = 1
    """The exponent in the denominator of Dice."""


class TrainingSettings(Settings):
    """The loop: how long and how a run trains."""

    epochs: Epochs = 20
    """How many epochs a run has; a scheduler may stop a trial before."""
    batch_size: Slices = 8
    """The slices of one update; the workers of a trial share them."""
    accumulate: Slices = 1
    """Into how many parts a worker cuts its share of a batch, to save memory."""
    steps_per_epoch: Annotated[int, Field(ge=1, le=sizes.MOST_STEPS)] | None = None
    """The updates of an epoch; null is as many as all slices give."""
    crop: Annotated[int, Field(ge=16, le=sizes.LONGEST_SIDE)] = 160
    """The sides of a slice in voxels; they shrink to what the store and the depths allow."""
    schedule: Literal["constant", "poly", "cosine", "halving"] = "poly"
    """The course of the learning rates: they stay, fall as (1 − share of epochs done)^0.9, as half
    a cosine, or by half every ``halve_every`` epochs."""
    halve_every: Epochs = 25
    """After how many epochs ``halving`` halves the rates again."""
    halve_after: Epochs | None = None
    """After how many epochs ``halving`` halves them first; null is ``halve_every``."""
    min_lr: NonNegativeFloat = 0.0
    """The learning rate below which no schedule goes."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Validate, keep and promote a mean of the segmentor's weights over about the last
    1 / (1 − ema) updates; null is the weights themselves."""
    brain_mask: bool = True
    """Confine the segmentor's maps to the brain."""
    patience: Epochs = 3
    """How many validations in a row may find every map empty or full before a trial ends."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """The type that networks compute in; ``auto`` is bfloat16 where the device multiplies it
    faster. In ``float32``, convolutions on CUDA are in TF32, PyTorch's default."""
    compile: Literal["auto"] | bool = "auto"
    """Whether steps are compiled; ``auto`` compiles them on CUDA once that pays."""
    deterministic: bool = True
    """Make runs on a GPU repeat exactly, compiled or not, as runs on a CPU always do."""


class DataSettings(Settings):
    """How slices are drawn and augmented; an augmentation of 0 is no change."""

    tumour_fraction: Fraction | None = 0.8
    """The share of slices that bear tumour; null is as in the store."""
    neighbours: Annotated[int, Field(ge=0, le=8)] = 0
    """How many context slices above, and as many below, the segmentor sees."""
    flip: bool = True
    """Mirror half of the slices left to right."""
    flip_front_back: bool = False
    """Mirror half of the slices front to back."""
    fold: Annotated[int, Field(ge=0, lt=sizes.MOST_FOLDS)] | None = None
    """Which fold of the store trains and validates, counted from 0; null is its single split."""
    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Turn slices by up to so many degrees either way."""
    scaling: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Make slices larger or smaller by up to this fraction."""
    intensity: Fraction = 0.0
    """Change the gain of each modality by up to this fraction, and shift it by up to as many
    standard deviations."""
    bias: Fraction = 0.0
    """Multiply each modality by a smooth field between exp(-bias) and exp(bias)."""


def _gpus(value: Any) -> Literal["auto"] | float:
    # A union's own errors would name its parts as if they were settings.
    if value == "auto":
        return "auto"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value <= sizes.MOST_GPUS:
        raise ValueError(
            "input should be auto, or a number greater than or equal to 0 and less than or equal "
            f"to {sizes.MOST_GPUS}"
        )
    return float(value)


class ResourceSettings(Settings):
    """The resources of one trial: ``workers`` times (CPUs, GPUs)."""

    workers: Annotated[int, Field(ge=1, le=sizes.MOST_WORKERS)] = 1
    """How many Ray Train workers train one model together."""
    cpus_per_worker: Annotated[float, Field(gt=0, le=sizes.MOST_CPUS)] = 1
    """The CPUs of each worker."""
    gpus_per_worker: Annotated[Gpus, PlainValidator(_gpus, json_schema_input_type=Gpus)] = "auto"
    """The GPUs of each worker. ``auto`` is one where the cluster has a GPU for each worker of a
    trial, and none elsewhere. A share such as 0.25 lets several trials train on one GPU."""
    retries: Annotated[int, Field(ge=0, le=sizes.MOST_RETRIES)] = 2
    """How often a trial whose processes raised or were lost begins again at its last checkpoint.
    A trial that diverges does not, since it would once more."""
    on_out_of_memory: Literal["end", "accumulate"] = "end"
    """What a trial does that runs out of memory: end as infeasible, or go on with its batches in
    twice as many parts (``training.accumulate``), as long as a part has a slice."""

    @model_validator(mode="after")
    def _whole_gpus_between_workers(self) -> ResourceSettings:
        gpus = self.gpus_per_worker
        if gpus == "auto":
            return self
        if self.workers > 1 and 0 < gpus < 1:
            raise ValueError(
                f"resources.gpus_per_worker {gpus:g} with {self.workers} workers: workers that "
                "train one model need a GPU each (NCCL refuses two on one). Give them whole GPUs, "
                "or train with 1 worker."
            )
        if gpus > 1 and not gpus.is_integer():
            raise ValueError(f"resources.gpus_per_worker {gpus:g}: above 1 it must be whole.")
        return self


UNET: Final[dict[str, dict[str, Any]]] = {
    "segmentor": {"network": "unet"},
    "critic": {"kind": "none"},
}
"""The settings that ``variant: unet`` is short for."""


class Experiment(Settings):
    """All settings of one run."""

    variant: Variant = "s1-3c"
    """How many networks there are. ``s1-1c`` is one segmentor and one critic for each region, each
    pair trained by itself; ``s3-3c`` the same networks trained together on the mean of their
    losses; ``s1-3c`` one segmentor with a map for each region, and the critics that
    ``critic.kind`` names. ``unet`` is short for ``s1-3c`` with ``segmentor.network`` unet and
    ``critic.kind`` none."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """What every random draw of a run follows from: weights, slices, augmentations."""
    segmentor: SegmentorSettings = SegmentorSettings()
    critic: CriticSettings = CriticSettings()
    loss: LossSettings = LossSettings()
    training: TrainingSettings = TrainingSettings()
    data: DataSettings = DataSettings()
    resources: ResourceSettings = ResourceSettings()

    @property
    def has_bank(self) -> bool:
        """Whether there is one segmentor for each region."""
        return self.variant in ("s1-1c", "s3-3c")

    @model_validator(mode="before")
    @classmethod
    def _unet_is_short(cls, tree: Any) -> Any:
        """Replace the defaults that ``variant: unet`` stands for."""
        if not isinstance(tree, Mapping) or tree.get("variant") != "unet":
            return tree
        changed = dict(tree)
        for group, short in UNET.items():
            settings = tree.get(group, {})
            settings = settings.model_dump() if isinstance(settings, BaseModel) else settings
            defaults = cls.model_fields[group].default
            if isinstance(settings, Mapping) and all(
                settings.get(name, getattr(defaults, name)) == getattr(defaults, name)
                for name in short
            ):
                changed[group] = {**settings, **short}
        return changed

    @model_validator(mode="after")
    def _variants_and_networks_agree(self) -> Experiment:
        network, kind = self.segmentor.network, self.critic.kind
        if self.variant == "unet" and (network, kind) != ("unet", "none"):
            raise ValueError(
                "variant unet is short for segmentor.network unet and critic.kind none, but "
                f"segmentor.network is {network} and critic.kind {kind}. Set variant s1-3c."
            )
        if self.variant == "s1-1c" and kind == "joint":
            raise ValueError(
                "variant s1-1c trains each region by itself, but critic.kind joint compares all "
                "regions at once. Set critic.kind per-region, or another variant."
            )
        loss = self.loss
        if not (loss.dice_weight or loss.ce_weight or (kind != "none" and loss.adversarial_weight)):
            raise ValueError(
                "the segmentor has no loss: loss.dice_weight, loss.ce_weight and "
                f"{'critic.kind is none' if kind == 'none' else 'loss.adversarial_weight are 0'}. "
                "Give one of them a weight."
            )
        return self

    @model_validator(mode="after")
    def _one_weight_per_scale(self) -> Experiment:
        weights = self.loss.scale_weights
        scales = self.critic.scale_count
        if weights is not None and len(weights) != scales:
            makes = (
                "a single-scale critic compares 1 scale. Give 1 weight."
                if scales == 1
                else f"critic.depth {scales - 1} makes {scales} scales. Give {scales} weights."
            )
            raise ValueError(f"loss.scale_weights has {len(weights)} values; {makes}")
        if weights is not None and not any(weights):
            raise ValueError("loss.scale_weights are all 0; at least one must be above 0.")
        return self

    @model_validator(mode="after")
    def _networks_of_bounded_size(self) -> Experiment:
        for name, settings, weights in too_large(self):
            raise ValueError(
                f"{name}.base_width {settings.base_width} and {name}.depth {settings.depth} make "
                f"a network of {weights // 10**6:,} million weights; expected at most "
                f"{sizes.MOST_WEIGHTS // 10**6:,} million. Lower one of them."
            )
        return self

    @model_validator(mode="after")
    def _a_slice_for_each_part(self) -> Experiment:
        parts = self.resources.workers * self.training.accumulate
        if self.training.batch_size < parts:
            raise ValueError(
                f"training.batch_size {self.training.batch_size} cannot be shared by "
                f"{self.resources.workers} workers in {self.training.accumulate} parts each; it "
                f"must be at least {parts}."
            )
        return self


def too_large(
    experiment: Experiment,
) -> Iterator[tuple[str, SegmentorSettings | CriticSettings, int]]:
    """Yield the settings of every network that is too large, and how many weights it has."""
    segmentor, critic = experiment.segmentor, experiment.critic
    channels = len(MODALITIES) * (2 * experiment.data.neighbours + 1)
    weights = segmentor_weights(segmentor, channels, 1 if experiment.has_bank else len(REGIONS))
    if weights > sizes.MOST_WEIGHTS:
        yield "segmentor", segmentor, weights
    weights = sizes.critic_weights(critic_channels(critic), critic.depth, critic.base_width)
    if critic.kind != "none" and weights > sizes.MOST_WEIGHTS:
        yield "critic", critic, weights


def critic_channels(critic: CriticSettings) -> int:
    """Return how many channels the input of a critic has."""
    maps = len(REGIONS) if critic.kind == "joint" else 1
    return len(MODALITIES) * maps if critic.input == "product" else len(MODALITIES) + maps


def segmentor_weights(segmentor: SegmentorSettings, channels: int, maps: int) -> int:
    """Return how many weights the convolutions of one network have."""
    width, depth = segmentor.base_width, segmentor.depth
    match segmentor.network:
        case "segan":
            concat, full = segmentor.skip == "concat", segmentor.full_resolution
            return sizes.segan_weights(
                channels, maps, depth, width, concat=concat, full_resolution=full
            )
        case "authors":
            return sizes.authors_weights(channels, maps, width, segmentor.authors)
        case "unet":
            return sizes.unet_weights(channels, maps, depth, width)
        case "residual-unet":
            return sizes.residual_unet_weights(channels, maps, depth, width)
        case "segresnet":
            return sizes.segresnet_weights(channels, maps, depth, width)


def paths(model: type[BaseModel] = Experiment, prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every leaf setting, for example ``critic.depth``."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from paths(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def flatten(experiment: Experiment) -> dict[str, Any]:
    """Return ``{dotted path: value}`` for every leaf of ``experiment``, in order."""
    tree = experiment.model_dump()

    def leaf(path: str) -> Any:
        value: Any = tree
        for key in path.split("."):
            value = value[key]
        return value

    return {path: leaf(path) for path in paths()}


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn ``{"critic.depth": 3}`` into ``{"critic": {"depth": 3}}``."""
    tree: dict[str, Any] = {}
    for path, value in flat.items():
        *groups, name = path.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[name] = value
    return tree


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the settings of ``over`` put over it, group by group."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = (
            merge(below, value)
            if isinstance(below, Mapping) and isinstance(value, Mapping)
            else value
        )
    return merged


def build(tree: Mapping[str, Any], where: str) -> Experiment:
    """Return the checked ``Experiment`` of a nested ``tree`` read from ``where``.

    Raises:
        ConfigError: with every problem of the tree, unknown keys with the nearest valid name.
    """
    try:
        return Experiment.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(where, listed(error.errors(), explain)) from None


def explain(problem: Mapping[str, Any]) -> str:
    """Put one of pydantic's problems into words: the path, its value and the expected value."""
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        if path in set(paths()):
            return f"'{path}' is written as one key; nest it, as in critic: {{depth: 3}}."
        return f"unknown setting '{cut(path)}'.{nearest(path, paths())}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not path:
        return message
    return f"{cut(path)} is {cut(repr(problem['input']))}: {message[:1].lower()}{message[1:]}."


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Turn ``["critic.depth=3"]`` into a nested tree; values are read as YAML.

    Raises:
        ConfigError: if an item has no ``=``, an unknown path or a value that is no YAML.
    """
    return nest(read_assignments(assignments, paths(), "--set"))


def read_assignments(
    assignments: Iterable[str], known: Iterable[str], source: str
) -> dict[str, Any]:
    """Turn ``["critic.depth=3"]`` into the values of ``known`` settings, which are read as YAML.

    Raises:
        ConfigError: as ``parse_assignments``; ``source`` is where they stand.
    """
    flat: dict[str, Any] = {}
    problems = []
    valid = set(known)
    for item in assignments:
        path, equals, text = item.partition("=")
        if not equals:
            problems.append(
                f"'{cut(item)}' has no '='. Write it as path=value, e.g. critic.depth=3."
            )
        elif path not in valid:
            problems.append(f"unknown setting '{cut(path)}'.{nearest(path, valid)}")
        else:
            try:
                flat[path] = documents.parse_yaml(text)
            except documents.BoundsError as error:
                problems.append(f"{path}: {error}.")
            except documents.DocumentError:
                problems.append(f"{path}: '{cut(text)}' is not a YAML value.")
    if problems:
        raise ConfigError(source, problems)
    return flat


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that must hold a mapping.

    Raises:
        ConfigError: if the file is missing, unreadable, too large, not YAML, or not a mapping.
    """
    return parse_settings(read_settings(path), path)


def read_settings(path: Path) -> str:
    """Return the text of a file of settings.

    Raises:
        ConfigError: if it is missing, no regular file, too large, or no text in UTF-8.
    """
    try:
        return documents.read_text(path, documents.SETTINGS_BYTES)
    except FileNotFoundError:
        raise ConfigError(str(path), ["no such file."]) from None
    except documents.BoundsError as error:
        raise ConfigError(str(path), [f"{error}."]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"cannot be read: {error}."]) from None


def parse_settings(text: str, path: Path) -> dict[str, Any]:
    """Return the mapping that the text of ``path`` holds.

    Raises:
        ConfigError: if it is not YAML, holds too much, or no mapping.
    """
    try:
        content = documents.parse_yaml(text)
    except documents.BoundsError as error:
        raise ConfigError(str(path), [f"{error}."]) from None
    except documents.DocumentError as error:
        problem = f"not valid YAML{error.at}: {error}."
        raise ConfigError(str(path), [problem]) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise ConfigError(str(path), [f"holds a {kind}; expected settings as key: value."])
    return content


def presets() -> list[str]:
    """Return the names of the settings that come with the package."""
    folder = files("segan_ray") / "presets"
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )


def load_preset(name: str) -> dict[str, Any]:
    """Return the nested settings of a preset.

    Raises:
        ConfigError: if there is no preset of that name.
    """
    if name not in presets():
        available = ", ".join(presets())
        raise ConfigError(
            "preset", [f"no preset '{name}'.{nearest(name, presets())} There are: {available}."]
        )
    tree: dict[str, Any] = yaml.safe_load(
        (files("segan_ray") / "presets" / f"{name}.yaml").read_text(encoding="utf-8")
    )
    return tree


def load_experiment(
    file: Path | None, assignments: Iterable[str] = (), preset: str | None = None
) -> Experiment:
    """Return the ``Experiment`` of a YAML file and ``--set``, over a preset or the defaults."""
    first = load_preset(preset) if preset else {}
    tree = merge(first, load_yaml(file) if file else {})
    return build(merge(tree, parse_assignments(assignments)), str(file or preset or "--set"))
