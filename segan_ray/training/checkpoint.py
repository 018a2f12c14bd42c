"""Checkpoints: weights and optimizer state as safetensors, everything else as JSON.

::

    segmentor.safetensors   weights and buffers of S
    critic.safetensors      of C, absent for a variant without
    optimizers.safetensors  every tensor of both optimizers, and the generator's state
    state.json              epoch, best scores, optimizer settings, the Experiment

Loading never unpickles. The folder is whole when ``state.json`` is in it: it is written last.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from segan_ray.config import Experiment, build
from segan_ray.errors import CheckpointError, said
from segan_ray.models.build import Numerics, build_segmentor, place
from segan_ray.training.state import Best, TrainingState

CHECKPOINT_VERSION: Final = 2
STATE: Final = "state.json"
SEGMENTOR: Final = "segmentor.safetensors"
NETWORKS: Final = ("segmentor", "critic")
PICKLES: Final = frozenset({".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".bin"})


def save_checkpoint(folder: Path, state: TrainingState, experiment: Experiment) -> None:
    """Write ``state`` into ``folder``, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / SEGMENTOR, state.segmentor.state_dict())
    if state.critic is not None:
        _save(folder / "critic.safetensors", state.critic.state_dict())
    tensors = {"rng.torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    groups = {}
    for name, optimizer in _optimizers(state):
        content = optimizer.state_dict()
        groups[name] = content["param_groups"]
        for index, entries in content["state"].items():
            for key, value in entries.items():
                tensors[f"{name}.{index}.{key}"] = value
    _save(folder / "optimizers.safetensors", tensors)
    best = None if state.best is None else {"epoch": state.best.epoch, "scores": state.best.scores}
    content = {
        "version": CHECKPOINT_VERSION,
        "epoch": state.epoch,
        "best": best,
        "collapsed": state.collapsed,
        "optimizers": groups,
        "experiment": experiment.model_dump(mode="json"),
    }
    (folder / STATE).write_text(json.dumps(content, indent=1), encoding="utf-8")


def restore(folder: Path, state: TrainingState) -> None:
    """Put what ``folder`` holds into the networks and optimizers of ``state``.

    Raises:
        CheckpointError: if a file is missing, damaged, or of other networks.
    """
    content = read_state(folder)
    _load_weights(state.segmentor, folder / SEGMENTOR)
    if state.critic is not None:
        _load_weights(state.critic, folder / "critic.safetensors")
    tensors = _load(folder / "optimizers.safetensors")
    torch.set_rng_state(tensors.pop("rng.torch"))
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    for name, optimizer in _optimizers(state):
        optimizer.load_state_dict(
            {"state": _entries(name, tensors), "param_groups": content["optimizers"][name]}
        )
        _lay_out_as_parameters(optimizer)
    best = content["best"]
    state.epoch = content["epoch"]
    state.collapsed = content["collapsed"]
    state.best = None if best is None else Best(best["epoch"], best["scores"])


def save_segmentor(folder: Path, segmentor: nn.Module, experiment: Experiment) -> None:
    """Write what ``load_segmentor`` reads, and nothing that only training needs."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / SEGMENTOR, segmentor.state_dict())
    content = {"version": CHECKPOINT_VERSION, "experiment": experiment.model_dump(mode="json")}
    (folder / STATE).write_text(json.dumps(content, indent=1), encoding="utf-8")


def load_segmentor(folder: Path) -> tuple[nn.Module, Experiment]:
    """Return the trained segmentor of a checkpoint, in evaluation mode, and its Experiment.

    Raises:
        CheckpointError: if ``folder`` is no whole checkpoint of ours, or holds pickles.
    """
    _refuse_pickles(folder)
    experiment = build(read_state(folder)["experiment"], str(folder / STATE))
    segmentor = build_segmentor(experiment)
    place([segmentor], torch.device("cpu"), Numerics(torch.float32, False), synchronised=False)
    _load_weights(segmentor, folder / SEGMENTOR)
    return segmentor.eval(), experiment


def read_state(folder: Path) -> dict[str, Any]:
    """Return the JSON half of a checkpoint.

    Raises:
        CheckpointError: if it is missing, damaged or of another version.
    """
    path = folder / STATE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder}: no checkpoint here (no {STATE}).") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({said(error)}).") from None
    version = content.get("version") if isinstance(content, dict) else None
    if version != CHECKPOINT_VERSION:
        raise CheckpointError(
            f"{path}: checkpoint version {version}; this segan-ray reads {CHECKPOINT_VERSION}."
        )
    return content  # type: ignore[no-any-return]


def check_whole(folder: Path) -> None:
    """Make sure that every file of a checkpoint is there and as long as it says it is.

    Raises:
        CheckpointError: naming the file that is missing or damaged.
    """
    networks = read_state(folder).get("optimizers", {})
    for name in networks:
        if name not in NETWORKS:
            raise CheckpointError(
                f"{folder / STATE}: has an optimizer of '{name}'; expected those of "
                f"{' and '.join(NETWORKS)}. Use the checkpoint as it was made."
            )
    for name in (*networks, "optimizers"):
        path = folder / f"{name}.safetensors"
        try:
            with safe_open(path, "pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{path}: cannot be read ({said(error)}).") from None


def _optimizers(state: TrainingState) -> Iterator[tuple[str, Optimizer]]:
    yield "segmentor", state.segmentor_optimizer
    if state.critic_optimizer is not None:
        yield "critic", state.critic_optimizer


def _entries(name: str, tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    entries: dict[int, dict[str, Tensor]] = {}
    for path, value in tensors.items():
        owner, index, key = path.split(".", 2)
        if owner == name:
            entries.setdefault(int(index), {})[key] = value
    return entries


def _lay_out_as_parameters(optimizer: Optimizer) -> None:
    """Give the state of each parameter its memory layout, which a file does not keep.

    Fused optimizers walk parameter, gradient and state side by side in memory, and where their
    layouts differ compute something else without a word.
    """
    for parameter, entries in optimizer.state.items():
        for key, value in entries.items():
            if value.shape == parameter.shape:
                entries[key] = torch.empty_like(parameter).copy_(value)


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    # safetensors makes files that their owner alone may read: give them the mode of any other.
    path.unlink(missing_ok=True)
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, path)
    path.chmod(mode)


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        if _is_pickle(path):
            raise CheckpointError(
                f"{path}: is a Python pickle, as torch.save writes, not safetensors. It was not "
                "opened: reading a pickle runs the code in it. Use the checkpoint as it was made."
            ) from None
        raise CheckpointError(f"{path}: cannot be read ({said(error)}).") from None


def _is_pickle(path: Path) -> bool:
    """Tell a pickle, or torch's zip around one, by its first bytes.

    Only of what is no safetensors: the length that such a file begins with may look the same.
    """
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        start = stream.read(4)
    return start == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5")


def _refuse_pickles(folder: Path) -> None:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() in PICKLES:
            raise CheckpointError(
                f"{path}: segan-ray reads no pickles, and writes none: this folder is not as it "
                "was made. Use the original checkpoint, or delete that file if you trust the rest."
            )


def _load_weights(network: nn.Module, path: Path) -> None:
    try:
        network.load_state_dict(_load(path))
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise CheckpointError(f"{path}: holds other networks' weights. {first}") from None
