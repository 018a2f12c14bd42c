"""Checkpoints: weights and optimizer state as safetensors, everything else as JSON.

::

    segmentor.safetensors   weights and buffers of S, or their exponential mean
    trained.safetensors     weights and buffers of S itself, where there is a mean
    critic.safetensors      weights and buffers of C, absent without critic
    optimizers.safetensors  every tensor of both optimizers, and the generator's state
    state.json              epoch, best scores, optimizer settings, the Experiment, checksums

Loading never unpickles. The folder is whole when ``state.json`` is in it: it is written last, with
the SHA-256 of every other file and of its own content. Older checkpoints without SHA-256 are read.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from segan_ray.config import Experiment, build
from segan_ray.documents import DocumentError, open_regular
from segan_ray.errors import CheckpointError, ConfigError, cut, named, said, visible
from segan_ray.models.build import build_segmentor
from segan_ray.models.numerics import move_to_device
from segan_ray.training.checkpoints.saved_state import (
    CHECKPOINT_VERSION,
    STATE,
    check_files,
    fitting_generators,
    fitting_optimizer,
    generators_of,
    read_progress,
    read_state,
    write_state,
)
from segan_ray.training.state import Best, TrainingState

__all__ = [
    "CHECKPOINT_VERSION", "SEGMENTOR", "STATE", "check_whole", "load_segmentor", "read_state",
    "restore", "save_checkpoint", "save_segmentor",
]  # fmt: skip

SEGMENTOR: Final = "segmentor.safetensors"
TRAINED: Final = "trained.safetensors"
CRITIC: Final = "critic.safetensors"
OPTIMIZERS: Final = "optimizers.safetensors"
NETWORKS: Final = ("segmentor", "critic")
PICKLES: Final = frozenset({".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib", ".bin"})


def save_checkpoint(folder: Path, state: TrainingState, experiment: Experiment) -> None:
    """Write ``state`` into ``folder``, which is made if it does not exist."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, network in _networks(state).items():
        _save(folder / name, network.state_dict())
    tensors = generators_of(state.device)
    groups = {}
    for name, optimizer in _optimizers(state):
        content = optimizer.state_dict()
        groups[name] = content["param_groups"]
        for index, entries in content["state"].items():
            for key, value in entries.items():
                tensors[f"{name}.{index}.{key}"] = value
    _save(folder / OPTIMIZERS, tensors)
    best = None if state.best is None else {"epoch": state.best.epoch, "scores": state.best.scores}
    content = {
        "version": CHECKPOINT_VERSION,
        "epoch": state.epoch,
        "best": best,
        "collapsed": state.collapsed,
        "optimizers": groups,
        "experiment": experiment.model_dump(mode="json"),
    }
    write_state(folder, content)


def restore(folder: Path, state: TrainingState) -> None:
    """Load the checkpoint in ``folder`` into the networks and optimizers of ``state``.

    ``state`` stays as it is unless the whole checkpoint fits.

    Raises:
        CheckpointError: if a file is missing, damaged, or of other networks.
    """
    content = read_state(folder)
    check_files(folder, content)
    progress = read_progress(folder, content)
    networks = _networks(state)
    weights = {name: _fitting(network, folder / name) for name, network in networks.items()}
    path = folder / OPTIMIZERS
    tensors = _load(path)
    try:
        generators = fitting_generators(tensors, state.device)
        ready = {
            name: fitting_optimizer(optimizer, name, tensors, progress.optimizers[name])
            for name, optimizer in _optimizers(state)
        }
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path}: is damaged, or of other optimizers ({named(error)})."
        ) from None
    for name, network in networks.items():
        network.load_state_dict(weights[name])
    for name, optimizer in _optimizers(state):
        optimizer.load_state_dict(ready[name])
        _lay_out_as_parameters(optimizer)
    generators.restore()
    state.epoch, state.collapsed = progress.epoch, progress.collapsed
    best = progress.best
    state.best = None if best is None else Best(best.epoch, best.scores)


def save_segmentor(folder: Path, segmentor: nn.Module, experiment: Experiment) -> None:
    """Write the files that ``load_segmentor`` reads, and none that only training needs."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / SEGMENTOR, segmentor.state_dict())
    content = {"version": CHECKPOINT_VERSION, "experiment": experiment.model_dump(mode="json")}
    write_state(folder, content)


def load_segmentor(folder: Path) -> tuple[nn.Module, Experiment]:
    """Return the trained segmentor of a checkpoint, in evaluation mode, and its Experiment.

    Raises:
        CheckpointError: if ``folder`` is no whole checkpoint of ours, or holds pickles.
    """
    _refuse_pickles(folder)
    content = read_state(folder)
    check_files(folder, content, needed=(SEGMENTOR,))
    try:
        experiment = build(content["experiment"], str(folder / STATE))
    except (KeyError, ConfigError) as error:
        raise CheckpointError(
            f"{folder / STATE}: its settings cannot be read ({said(error)})."
        ) from None
    with torch.device("meta"):
        # On this device, networks that the file does not hold take no memory.
        weights = _fitting(build_segmentor(experiment), folder / SEGMENTOR)
    segmentor = build_segmentor(experiment)
    move_to_device([segmentor], torch.device("cpu"))
    segmentor.load_state_dict(weights)
    return segmentor.eval(), experiment


def check_whole(folder: Path) -> None:
    """Check that every file of a checkpoint exists and is as it was written.

    Raises:
        CheckpointError: naming the file that is missing or damaged.
    """
    content = read_state(folder)
    networks = content.get("optimizers", {})
    for name in networks if isinstance(networks, dict) else ():
        if name not in NETWORKS:
            raise CheckpointError(
                f"{folder / STATE}: has an optimizer of '{name}'; expected those of "
                f"{' and '.join(NETWORKS)}. Use the checkpoint as it was made."
            )
    check_files(folder, content)
    for name in (*networks, "optimizers"):
        path = folder / f"{name}.safetensors"
        try:
            with open_regular(path), safe_open(path, "pt"):
                pass
        except (OSError, SafetensorError, DocumentError) as error:
            raise CheckpointError(f"{path}: cannot be read ({said(error)}).") from None


def _networks(state: TrainingState) -> dict[str, nn.Module]:
    """Return each network by the name of its file."""
    networks = {SEGMENTOR: state.in_use}
    if state.mean is not None:
        networks[TRAINED] = state.segmentor
    if state.critic is not None:
        networks[CRITIC] = state.critic
    return networks


def _optimizers(state: TrainingState) -> Iterator[tuple[str, Optimizer]]:
    yield "segmentor", state.segmentor_optimizer
    if state.critic_optimizer is not None:
        yield "critic", state.critic_optimizer


def _lay_out_as_parameters(optimizer: Optimizer) -> None:
    """Give the state of each parameter the parameter's memory layout, which a file does not keep.

    Fused optimizers walk parameter, gradient and state side by side in memory. If their layouts
    differ, the result is wrong, and no error is raised.
    """
    for parameter, entries in optimizer.state.items():
        for key, value in entries.items():
            if value.shape == parameter.shape:
                entries[key] = torch.empty_like(parameter).copy_(value)


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    # safetensors makes files that their owner alone may read. Give them the mode of other files.
    path.unlink(missing_ok=True)
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, path)
    path.chmod(mode)


def _load(path: Path) -> dict[str, Tensor]:
    try:
        with open_regular(path):
            return load_file(path)
    except (OSError, SafetensorError, DocumentError) as error:
        raise CheckpointError(f"{path}: cannot be read ({said(error)}).") from None


def _is_safetensors(path: Path) -> bool:
    try:
        with safe_open(path, "pt"):
            return True
    except (OSError, SafetensorError):
        return False


def _is_pickle(path: Path) -> bool:
    """Tell a pickle, or torch's zip around one, by its first bytes.

    It is for files that are no safetensors, which begin with a length that may look the same.
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
        if path.suffix == ".safetensors" and _is_pickle(path) and not _is_safetensors(path):
            raise CheckpointError(
                f"{path}: is a Python pickle, as torch.save writes, not safetensors. It was not "
                "opened: reading a pickle runs the code in it. Use the checkpoint as it was made."
            )


def _fitting(network: nn.Module, path: Path) -> dict[str, Tensor]:
    """Return the weights in ``path``, of the names, shapes and types of those of ``network``.

    Raises:
        CheckpointError: if they cannot be read, or are another network's.
    """
    weights, expected = _load(path), network.state_dict()
    for name in sorted({*weights, *expected}):
        stored, wanted = weights.get(name), expected.get(name)
        if stored is None or wanted is None:
            what = "lacks" if stored is None else "has"
            raise CheckpointError(
                f"{path}: holds other networks' weights. It {what} '{visible(cut(name))}'."
            )
        if (stored.shape, stored.dtype) != (wanted.shape, wanted.dtype):
            raise CheckpointError(
                f"{path}: holds other networks' weights. '{name}' is {stored.dtype} of shape "
                f"{tuple(stored.shape)}; expected {wanted.dtype} of {tuple(wanted.shape)}."
            )
    return weights
