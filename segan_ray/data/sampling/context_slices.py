"""The arrays of cases, and the positions of context slices and windows in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from segan_ray.brats import MODALITIES
from segan_ray.data.store.opened_store import PreparedCase


class OpenCases:
    """The arrays of some cases, each opened once an epoch."""

    def __init__(self, cases: Sequence[PreparedCase]) -> None:
        self._cases = cases
        self._opened: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the image and the mask of the case; several threads may call this at once."""
        if index not in self._opened:
            case = self._cases[index]
            self._opened[index] = (_without_file(case.image()), _without_file(case.mask()))
        return self._opened[index]


def _without_file(array: np.ndarray) -> np.ndarray:
    """Return the same memory-mapped array without a file held open for it.

    NumPy keeps a file open for each array, and a store has more arrays than a process may open.
    """
    if not isinstance(array, np.memmap):
        return array
    size = array.offset + array.nbytes
    mapped = torch.from_file(str(array.filename), shared=False, size=size, dtype=torch.uint8)
    values: np.ndarray = mapped.numpy()[array.offset :].view(array.dtype).reshape(array.shape)
    values.flags.writeable = False
    return values


def stack_positions(position: int, slices: int, context_slices: int) -> Iterator[tuple[slice, int]]:
    """Yield the channels and the position of each slice of a stack around ``position``.

    Positions below the first of ``slices`` or above the last are left out: their channels stay 0.
    """
    modalities = len(MODALITIES)
    for index, at in enumerate(range(position - context_slices, position + context_slices + 1)):
        if 0 <= at < slices:
            yield slice(index * modalities, (index + 1) * modalities), at


def window(size: int, side: int, start: int) -> tuple[slice, slice]:
    """Return the part of the slice to take and where it lands in the window, along one axis."""
    first, last = max(start, 0), min(start + side, size)
    return slice(first, last), slice(first - start, last - start)
