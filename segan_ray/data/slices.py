"""Drawing batches of axial slices from prepared cases.

A slice costs no decoding: it is copied out of a memory-mapped array. What an epoch draws
depends on (seed, epoch, rank) alone, so a resumed run draws what the uninterrupted one would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from segan_ray.brats import MODALITIES, REGIONS
from segan_ray.data.store import BRAIN_BIT, PreparedCase


class SliceRef(NamedTuple):
    """Where a slice comes from: index of the case, and of the slice in its stored box."""

    case: int
    position: int


@dataclass(frozen=True)
class Batch:
    """Slices on their way to a network, and where each came from."""

    image: Float[Tensor, "batch modality height width"]
    truth: Float[Tensor, "batch region height width"]
    brain: Float[Tensor, "batch 1 height width"]
    slices: tuple[SliceRef, ...]


@dataclass(frozen=True)
class SliceSource:
    """The slices of some cases, divided into those that bear tumour and those that do not."""

    cases: tuple[PreparedCase, ...]
    tumour: tuple[SliceRef, ...]
    empty: tuple[SliceRef, ...]

    def __len__(self) -> int:
        return len(self.tumour) + len(self.empty)


def slice_source(cases: Sequence[PreparedCase]) -> SliceSource:
    """Index every slice of ``cases`` by the tumour voxels their manifest counts."""
    references = [
        (SliceRef(index, position), voxels)
        for index, case in enumerate(cases)
        for position, voxels in enumerate(case.record.tumour_voxels)
    ]
    return SliceSource(
        tuple(cases),
        tumour=tuple(where for where, voxels in references if voxels),
        empty=tuple(where for where, voxels in references if not voxels),
    )


def fitting_crop(requested: int, cases: Sequence[PreparedCase], depth: int) -> int:
    """Return the square crop in voxels: at most ``requested``, a multiple of ``2**depth``.

    No larger than the largest stored slice needs, and never below one multiple.
    """
    unit = 2**depth
    largest = max(side for case in cases for side in case.record.size[:2])
    needed = -(-largest // unit) * unit
    crop: int = max(unit, min(requested // unit * unit, needed))
    return crop


def epoch_batches(
    source: SliceSource,
    *,
    steps: int,
    batch_size: int,
    crop: int,
    tumour_fraction: float,
    flip: bool,
    seed: int,
    epoch: int,
    rank: int = 0,
) -> Iterator[Batch]:
    """Yield ``steps`` batches for one worker of one epoch."""
    rng = np.random.default_rng([seed, epoch, rank])
    for _ in range(steps):
        slices = _draw(source, batch_size, tumour_fraction, rng)
        yield _assemble(source, slices, crop, flip, rng)


def _draw(
    source: SliceSource, count: int, tumour_fraction: float, rng: np.random.Generator
) -> tuple[SliceRef, ...]:
    chosen = []
    for bears in rng.random(count) < tumour_fraction:
        first, second = (source.tumour, source.empty) if bears else (source.empty, source.tumour)
        pool = first or second
        chosen.append(pool[rng.integers(len(pool))])
    return tuple(chosen)


def _assemble(
    source: SliceSource,
    slices: tuple[SliceRef, ...],
    crop: int,
    flip: bool,
    rng: np.random.Generator,
) -> Batch:
    image = np.zeros((len(slices), len(MODALITIES), crop, crop), dtype=np.float32)
    mask = np.zeros((len(slices), crop, crop), dtype=np.uint8)
    for index, where in enumerate(slices):
        case = source.cases[where.case]
        stored = case.mask()[where.position]
        (from_y, to_y), (from_x, to_x) = (_window(size, crop, rng) for size in stored.shape)
        image[index][:, to_y, to_x] = case.image()[where.position][:, from_y, from_x]
        mask[index][to_y, to_x] = stored[from_y, from_x]
        # Height runs left to right in the stored slice: flipping it mirrors the hemispheres.
        if flip and rng.random() < 0.5:
            image[index] = image[index][:, ::-1]
            mask[index] = mask[index][::-1]
    return to_batch(image, mask, slices)


def _window(size: int, crop: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """Return the part of the slice to take and where it lands in the crop, along one axis.

    A slice larger than the crop is cut at random. A smaller one lies in the middle: brains in
    BRATS are aligned to one another, and where in the head a voxel is helps to tell what it is.
    """
    if size > crop:
        start = int(rng.integers(size - crop + 1))
        return slice(start, start + crop), slice(0, crop)
    land = (crop - size) // 2
    return slice(0, size), slice(land, land + size)


def to_batch(
    image: np.ndarray, mask: UInt8[np.ndarray, "batch height width"], slices: tuple[SliceRef, ...]
) -> Batch:
    """Turn assembled arrays into tensors, unpacking the regions and the brain."""
    packed = torch.from_numpy(mask)[:, None]
    bits = torch.tensor([1 << bit for bit in range(len(REGIONS))], dtype=torch.uint8)
    truth = (packed & bits[None, :, None, None]) != 0
    return Batch(
        image=torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)),
        truth=truth.float(),
        brain=(packed & BRAIN_BIT != 0).float(),
        slices=slices,
    )
