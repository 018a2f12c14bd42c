"""Noticing a loss that is no finite number, without making a GPU wait for the check."""

from __future__ import annotations

import torch
from torch import Tensor


class DivergenceWatch:
    """Looks at each step's losses once the next step is under way.

    On CUDA, reading a loss waits for all queued work. Whether it is finite is therefore copied to
    page-locked memory after its step, and read one step later.
    """

    def __init__(self, device: torch.device) -> None:
        on_cuda = device.type == "cuda"
        self._finite = torch.ones((), dtype=torch.bool, pin_memory=on_cuda)
        self._copied = torch.cuda.Event() if on_cuda else None

    def diverged_before(self, losses: Tensor) -> bool:
        """Take this step's losses; return whether the losses of the step before were not finite."""
        if self._copied is not None:
            self._copied.synchronize()
        diverged = not self._finite.item()
        self._finite.copy_(losses.isfinite().all(), non_blocking=True)
        if self._copied is not None:
            self._copied.record()
        return diverged
