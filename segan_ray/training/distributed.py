"""Exchange between the workers of a group: averages of tensors, and objects of each worker.

Gradients are averaged by hand rather than by DistributedDataParallel: two networks that are
frozen in turn, and one forward that serves two backwards, are what its reducer does not expect.
With one worker, or without a process group, every function leaves its input as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


@torch.no_grad()
def average(tensors: Sequence[Tensor]) -> None:
    """Average tensors over the group, in place, in one all-reduce."""
    if not _together() or not tensors:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    sizes = [tensor.numel() for tensor in tensors]
    for tensor, averaged in zip(tensors, flat.split(sizes), strict=True):
        tensor.copy_(averaged.view_as(tensor))


def gather(mine: Any) -> list[Any]:
    """Collect one object from every worker, in order of rank."""
    if not _together():
        return [mine]
    collected: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(collected, mine)
    return collected


def _together() -> bool:
    return dist.is_initialized() and dist.get_world_size() > 1
