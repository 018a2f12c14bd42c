"""Checkpoints of untrained networks whose maps are neither empty nor full."""

from __future__ import annotations

from pathlib import Path

import torch

from segan_ray.config import load_experiment
from segan_ray.data.store.origin import Origin, write_origin
from segan_ray.training.checkpoints.checkpoint import save_checkpoint
from segan_ray.training.state import new_state


def checkpoint(folder: Path, origin: Origin, *, seed: int = 0) -> Path:
    """Write a checkpoint of small networks, as if trained on the store of ``origin``."""
    settings = [
        "segmentor.depth=2", "segmentor.base_width=4", "critic.depth=2", "critic.base_width=4",
        "training.precision=float32",
    ]  # fmt: skip
    experiment = load_experiment(None, settings)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        save_checkpoint(folder, new_state(experiment, torch.device("cpu")), experiment)
    write_origin(folder, origin)
    return folder
