"""The ``Experiment``: every setting of one training run, as one frozen, checked tree.

Whatever trains — a single run or a trial of a sweep — is described by one ``Experiment``;
a search space names its leaves by dotted paths (``critic.depth``). Models and losses receive
plain numbers from it, never the tree itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from segan_ray.errors import ConfigError, nearest

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
ScaleWeights = Annotated[tuple[NonNegativeFloat, ...], Field(min_length=2)]


class Settings(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SegmentorSettings(Settings):
    """The segmentor S and its optimizer. Width doubles with each of ``depth`` halvings."""

    lr: PositiveFloat = 1e-3
    optimizer: Literal["adam", "rmsprop"] = "adam"
    beta1: Fraction = 0.5
    depth: Annotated[int, Field(ge=2, le=6)] = 4
    base_width: Count = 16
    skip: Literal["add", "concat"] = "concat"


class CriticSettings(Settings):
    """The critic C and its optimizer; ``depth`` blocks give ``depth + 1`` feature scales."""

    lr: PositiveFloat = 3e-4
    optimizer: Literal["adam", "rmsprop"] = "adam"
    beta1: Fraction = 0.5
    depth: Annotated[int, Field(ge=1, le=6)] = 3
    base_width: Count = 16
    clamp: PositiveFloat | None = None


class LossSettings(Settings):
    """The multi-scale L1 loss; ``scale_weights`` is one weight a scale, equal if absent.

    ``dice_smoothing`` is in voxels. At 1, slices without a region push its map to empty so hard
    that the enhancing map dies for good in some runs; at 50 it does not.
    """

    scale_weights: ScaleWeights | None = None
    dice_weight: NonNegativeFloat = 1.0
    dice_smoothing: PositiveFloat = 50.0


class TrainingSettings(Settings):
    """The loop. ``crop`` is in voxels and shrinks to what the store and the depths allow.

    ``schedule`` is how learning rates go from the first epoch to the last: they stay, or fall
    as (1 − share of epochs done)^0.9.
    """

    epochs: Count = 20
    batch_size: Count = 8
    steps_per_epoch: Count | None = None
    crop: Annotated[int, Field(ge=16)] = 160
    schedule: Literal["constant", "poly"] = "poly"
    brain_mask: bool = True


class DataSettings(Settings):
    """How slices are drawn: the share that bears tumour, and left-right flips."""

    tumour_fraction: Fraction = 0.8
    flip: bool = True


class ResourceSettings(Settings):
    """What one trial asks of the cluster: ``workers`` times (CPUs, GPUs)."""

    workers: Count = 1
    cpus_per_worker: PositiveFloat = 1
    gpus_per_worker: NonNegativeFloat = 0


class Experiment(Settings):
    """All settings of one run."""

    variant: Literal["s1-3c", "unet"] = "s1-3c"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    segmentor: SegmentorSettings = SegmentorSettings()
    critic: CriticSettings = CriticSettings()
    loss: LossSettings = LossSettings()
    training: TrainingSettings = TrainingSettings()
    data: DataSettings = DataSettings()
    resources: ResourceSettings = ResourceSettings()

    @model_validator(mode="after")
    def _one_weight_per_scale(self) -> Experiment:
        weights = self.loss.scale_weights
        scales = self.critic.depth + 1
        if weights is not None and len(weights) != scales:
            raise ValueError(
                f"loss.scale_weights has {len(weights)} values; critic.depth "
                f"{self.critic.depth} makes {scales} scales. Give {scales} weights."
            )
        if weights is not None and not any(weights):
            raise ValueError("loss.scale_weights are all 0; at least one must be above 0.")
        return self


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
        raise ConfigError(where, [explain(problem) for problem in error.errors()]) from None


def explain(problem: Mapping[str, Any]) -> str:
    """Say one of pydantic's findings in words: which path, what was found, what is expected."""
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        if path in set(paths()):
            return f"'{path}' is written as one key; nest it, as in critic: {{depth: 3}}."
        return f"unknown setting '{path}'.{nearest(path, paths())}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not path:
        return message
    return f"{path} is {problem['input']!r}: {message[:1].lower()}{message[1:]}."


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Turn ``["critic.depth=3"]`` into a nested tree; values are read as YAML.

    Raises:
        ConfigError: where an item has no ``=``, an unknown path or a value that is no YAML.
    """
    flat: dict[str, Any] = {}
    problems = []
    known = set(paths())
    for item in assignments:
        path, equals, text = item.partition("=")
        if not equals:
            problems.append(f"'{item}' has no '='. Write it as path=value, e.g. critic.depth=3.")
        elif path not in known:
            problems.append(f"unknown setting '{path}'.{nearest(path, known)}")
        else:
            try:
                flat[path] = yaml.safe_load(text)
            except (yaml.YAMLError, ValueError):
                problems.append(f"{path}: '{text}' is not a YAML value.")
    if problems:
        raise ConfigError("--set", problems)
    return nest(flat)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that must hold a mapping.

    Raises:
        ConfigError: if the file is missing, unreadable, not YAML, or not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(str(path), ["no such file."]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"cannot be read: {error}."]) from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "it cannot be parsed"
        raise ConfigError(str(path), [f"not valid YAML{line}: {reason}."]) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        found = type(content).__name__
        raise ConfigError(str(path), [f"holds a {found}; expected settings as key: value."])
    return content


def load_experiment(file: Path | None, assignments: Iterable[str] = ()) -> Experiment:
    """Return the ``Experiment`` of a YAML file (or the defaults) with ``--set`` over it."""
    tree = load_yaml(file) if file else {}
    return build(merge(tree, parse_assignments(assignments)), str(file or "--set"))
