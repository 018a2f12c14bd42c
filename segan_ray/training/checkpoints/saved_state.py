"""The JSON half of a checkpoint, its checksums, and whether its content fits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from torch import Tensor
from torch.optim import Optimizer, RMSprop

from segan_ray.documents import LIST_BYTES, open_regular, parse_json, read_bytes
from segan_ray.errors import CheckpointError, cut, said, visible
from segan_ray.training.epoch_record import Epoch
from segan_ray.training.validation_scores import SCORE

CHECKPOINT_VERSION: Final = 2
STATE: Final = "state.json"
CHECKSUMS: Final = "checksums"
CHECKED: Final = frozenset({".safetensors", ".json"})
MOMENTS: Final = {"adam": {"step", "exp_avg", "exp_avg_sq"}, "rmsprop": {"step", "square_avg"}}
ANEW: Final = "Use the checkpoint as it was made, or another one."


class _BestSaved(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    epoch: Epoch
    scores: dict[str, float]

    @field_validator("scores")
    @classmethod
    def _has_the_score(cls, scores: dict[str, float]) -> dict[str, float]:
        if SCORE not in scores:
            raise ValueError(f"{SCORE} must be among them")
        return scores


class Progress(BaseModel):
    """How far training had come, as the state of a training checkpoint records it."""

    model_config = ConfigDict(frozen=True)

    epoch: Epoch
    best: _BestSaved | None
    collapsed: Epoch
    optimizers: dict[str, list[dict[str, Any]]]


def write_state(folder: Path, content: Mapping[str, Any]) -> None:
    """Write ``state.json`` into ``folder``, with the SHA-256 of the files there and of itself."""
    checksums = {
        path.name: _sha256(path)
        for path in sorted(folder.iterdir())
        if path.suffix in CHECKED and path.name != STATE
    }
    whole = {**content, CHECKSUMS: {**checksums, STATE: _own_sha256(content)}}
    (folder / STATE).write_text(json.dumps(whole, indent=1), encoding="utf-8")


def read_state(folder: Path) -> dict[str, Any]:
    """Return the JSON half of a checkpoint.

    Raises:
        CheckpointError: if it is missing, damaged, changed or of another version.
    """
    path = folder / STATE
    try:
        content = parse_json(read_bytes(path, LIST_BYTES))
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no checkpoint here (no {STATE}).") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({said(error)}).") from None
    version = content.get("version") if isinstance(content, dict) else None
    if version != CHECKPOINT_VERSION:
        raise CheckpointError(
            f"{path}: checkpoint version {visible(cut(version))}; this segan-ray reads "
            f"{CHECKPOINT_VERSION}."
        )
    noted = _noted(path, content)
    own = {key: value for key, value in content.items() if key != CHECKSUMS}
    if noted and noted.get(STATE) != _own_sha256(own):
        raise CheckpointError(_changed(path))
    return content  # type: ignore[no-any-return]


def check_files(
    folder: Path, content: Mapping[str, Any], needed: Iterable[str] | None = None
) -> None:
    """Compare files of a checkpoint, all or those ``needed``, with the checksums in its state.

    Older checkpoints have no checksums, so they are not compared.

    Raises:
        CheckpointError: naming the file that is missing or changed.
    """
    noted = _noted(folder / STATE, content)
    for name in noted if needed is None or not noted else needed:
        path = folder / name
        if name == STATE:
            continue
        try:
            checksum = _sha256(path)
        except (OSError, ValueError) as error:
            # ValueError: the system refuses the name.
            raise CheckpointError(
                f"{folder}/{visible(cut(name))}: cannot be read ({said(error)})."
            ) from None
        if checksum != noted.get(name):
            raise CheckpointError(_changed(path))


def read_progress(folder: Path, content: Mapping[str, Any]) -> Progress:
    """Return how far training had come.

    Raises:
        CheckpointError: if the state does not record it, or records impossible values.
    """
    try:
        return Progress.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        at, why = cut(".".join(str(part) for part in first["loc"])), cut(first["msg"])
        raise CheckpointError(
            f"{folder / STATE}: is damaged at '{visible(at)}' ({visible(why)}). {ANEW}"
        ) from None


@dataclass(frozen=True)
class Generators:
    """The states of the random generators of the CPU and, if training is on one, the GPU."""

    cpu: Tensor
    cuda: Tensor | None
    device: torch.device

    def restore(self) -> None:
        """Make this process draw the numbers that the saving process would have drawn next."""
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, self.device)


def generators_of(device: torch.device) -> dict[str, Tensor]:
    """Return the states of the generators that training on ``device`` draws from, by name.

    A GPU that the process does not train on is not asked: it would begin to use it.
    """
    tensors = {"rng.torch": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["rng.cuda"] = torch.cuda.get_rng_state(device)
    return tensors


def fitting_generators(tensors: Mapping[str, Tensor], device: torch.device) -> Generators:
    """Return the states of the generators that training on ``device`` draws from.

    Raises:
        KeyError, ValueError: if there is no state, or a state of another kind.
    """
    present = generators_of(device)
    ours = tensors["rng.torch"]
    _require(ours, present["rng.torch"], "rng.torch")
    # A state that was saved on a CPU says nothing of the GPU on which it goes on.
    cuda = tensors.get("rng.cuda") if "rng.cuda" in present else None
    if cuda is not None:
        _require(cuda, present["rng.cuda"], "rng.cuda")
    return Generators(ours, cuda, device)


def fitting_optimizer(
    optimizer: Optimizer, name: str, tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the state that ``optimizer`` loads, checked to be of its kind and parameters.

    Raises:
        ValueError, TypeError: if it is the state of another optimizer.
    """
    expected = optimizer.state_dict()["param_groups"]
    if len(groups) != len(expected):
        raise ValueError(f"{name}: {len(groups)} groups of parameters, not {len(expected)}")
    parameters = [weight for group in optimizer.param_groups for weight in group["params"]]
    moments = MOMENTS["rmsprop" if isinstance(optimizer, RMSprop) else "adam"]
    entries: dict[int, dict[str, Tensor]] = {}
    for path, value in tensors.items():
        owner, _, rest = path.partition(".")
        index, _, key = rest.partition(".")
        if owner != name:
            continue
        if not index.isdecimal() or int(index) >= len(parameters) or key not in moments:
            raise ValueError(f"'{cut(path)}' is of no parameter")
        if value.numel() != 1 and value.shape != parameters[int(index)].shape:
            raise ValueError(f"'{path}' has shape {tuple(value.shape)}")
        entries.setdefault(int(index), {})[key] = value
    if any(set(each) != moments for each in entries.values()):
        raise ValueError(f"{name}: the moments of a parameter are not all there")
    fitting = [_group(theirs, ours) for theirs, ours in zip(groups, expected, strict=True)]
    return {"state": entries, "param_groups": fitting}


def _group(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    if theirs.get("params") != ours["params"]:
        raise ValueError("a group is of other parameters")
    for key, value in theirs.items():
        if key not in ours:
            raise ValueError(f"'{cut(key)}' is no setting of this optimizer")
        if not _alike(value, ours[key]):
            raise TypeError(f"'{key}' is {cut(value)}")
    return {**ours, **theirs}


def _alike(stored: Any, ours: Any) -> bool:
    """Tell whether a stored setting has the type of ``ours``; None and bool are one type."""
    if isinstance(ours, bool | None) or isinstance(stored, bool | None):
        return isinstance(stored, bool | None) and isinstance(ours, bool | None)
    if isinstance(ours, int | float):
        return isinstance(stored, int | float)
    if isinstance(ours, list | tuple):
        return isinstance(stored, list) and len(stored) == len(ours)
    return isinstance(stored, type(ours))


def _require(stored: Tensor, ours: Tensor, name: str) -> None:
    if (stored.shape, stored.dtype) != (ours.shape, ours.dtype):
        raise ValueError(f"'{name}' is no state of a generator")


def _noted(path: Path, content: Mapping[str, Any]) -> dict[str, str]:
    noted = content.get(CHECKSUMS, {})
    if not isinstance(noted, dict):
        raise CheckpointError(f"{path}: expected checksums by file name. {ANEW}")
    for name in noted:
        if name != Path(name).name:
            raise CheckpointError(
                f"{path}: names '{visible(cut(name))}', which is no file beside it. {ANEW}"
            )
    return noted


def _changed(path: Path) -> str:
    return f"{path}: was changed after the checkpoint was written (another SHA-256). {ANEW}"


def _own_sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
