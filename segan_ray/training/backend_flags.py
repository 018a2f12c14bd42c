"""PyTorch's global flags, set for a part of a run and put back after."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from segan_ray.config import TrainingSettings


def training_flags(
    settings: TrainingSettings, device: torch.device
) -> AbstractContextManager[None]:
    """Have cuDNN time its kernels on the first batches, unless runs are to repeat.

    Which kernel is fastest differs from run to run.
    """
    deterministic = settings.deterministic
    return _cudnn(device, deterministic=deterministic, benchmark=not deterministic)


def validation_flags(
    settings: TrainingSettings, device: torch.device
) -> AbstractContextManager[None]:
    """Have cuDNN choose kernels by its rules: it would time all of them on each volume's grid."""
    return _cudnn(device, deterministic=settings.deterministic, benchmark=False)


def _cudnn(
    device: torch.device, *, deterministic: bool, benchmark: bool
) -> AbstractContextManager[None]:
    if device.type != "cuda":
        return nullcontext()
    return _flags(deterministic=deterministic, benchmark=benchmark)


@contextmanager
def _flags(*, deterministic: bool, benchmark: bool) -> Iterator[None]:
    flags = torch.backends.cudnn
    before = flags.deterministic, flags.benchmark
    flags.deterministic, flags.benchmark = deterministic, benchmark
    try:
        yield
    finally:
        flags.deterministic, flags.benchmark = before
