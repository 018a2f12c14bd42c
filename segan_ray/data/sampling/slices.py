"""Drawing batches of axial slices from prepared cases.

A slice needs no decoding: it is copied out of a memory-mapped array, with its context slices if
there are any. The draws of an epoch depend on (seed, epoch) alone: a resumed run draws the slices
of an uninterrupted run. All workers of a group draw the batches of a single worker, and each
takes its share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float16, UInt8
from torch import Tensor

from segan_ray.brats import MODALITIES, REGIONS
from segan_ray.data.sampling.augmentation import Augmentation, Change, Changes, draw_changes
from segan_ray.data.sampling.context_slices import OpenCases, stack_positions, window
from segan_ray.data.store.opened_store import BRAIN_BIT, PreparedCase

UNCHANGED: Final = Augmentation()


class SliceRef(NamedTuple):
    """The origin of a slice: index of the case, and of the slice in its stored box."""

    case: int
    position: int


class SliceDraw(NamedTuple):
    """One drawn slice: the start of its window along both axes, and its changes.

    ``mirrored`` says along which axes. Height runs left to right in the stored slice, so mirroring
    it changes the hemispheres; width runs front to back.
    """

    where: SliceRef
    start: tuple[int, int]
    mirrored: tuple[bool, bool]
    change: Change | None = None


@dataclass(frozen=True)
class CropSpec:
    """The part of each slice that is taken: a square ``crop``, a margin and context slices.

    ``augmentation`` may move the ``margin`` voxels around the crop into it. ``context_slices`` is
    how many slices above and below become further channels.
    """

    crop: int
    margin: int = 0
    context_slices: int = 0
    augmentation: Augmentation = UNCHANGED


@dataclass(frozen=True)
class PackedBatch:
    """Slices in the types of the store, with their origins; half the bytes of a ``Batch``."""

    image: Float16[Tensor, "batch channel height width"]
    mask: UInt8[Tensor, "batch height width"]
    slices: tuple[SliceRef, ...]
    changes: Changes | None = None

    def unpack(self, device: torch.device) -> Batch:
        """Move to ``device``, and turn into the networks' input there."""
        image = self.image.to(device, non_blocking=True).to(
            torch.float32, memory_format=torch.channels_last
        )
        packed = self.mask.to(device, non_blocking=True)[:, None]
        if self.changes is not None:
            image, packed = self.changes.apply(image, packed)
        bits = torch.arange(len(REGIONS), dtype=torch.uint8, device=device)[None, :, None, None]
        truth = packed >> bits & 1
        return Batch(
            image=image.contiguous(memory_format=torch.channels_last),
            truth=truth.to(torch.float32, memory_format=torch.channels_last),
            brain=(packed & BRAIN_BIT != 0).float(),
            slices=self.slices,
        )


@dataclass(frozen=True)
class Batch:
    """Slices ready for a network, with their origins.

    Channels are modalities, slice after slice from the lowest neighbour to the highest.
    """

    image: Float[Tensor, "batch channel height width"]
    truth: Float[Tensor, "batch region height width"]
    brain: Float[Tensor, "batch 1 height width"]
    slices: tuple[SliceRef, ...]


@dataclass(frozen=True)
class SliceSource:
    """The slices of some cases, divided into slices with tumour and slices without."""

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

    It is no larger than the largest stored slice needs, and at least ``2**depth``.
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
    tumour_fraction: float | None,
    flip: bool,
    flip_front_back: bool = False,
    seed: int,
    epoch: int,
    rank: int = 0,
    workers: int = 1,
    threads: int = 1,
    pinned: bool = False,
    context_slices: int = 0,
    augmentation: Augmentation = UNCHANGED,
) -> Generator[PackedBatch]:
    """Yield one worker's share of each of an epoch's ``steps`` batches of ``batch_size``.

    ``tumour_fraction`` is the expected share of slices with tumour; None draws from all slices
    alike. ``context_slices`` is how many slices on either side are further channels. ``threads``
    threads assemble batches ahead, so that training does not wait, in page-locked memory if
    ``pinned``.
    """
    rng = np.random.default_rng([seed, epoch])
    # A stream of its own, so that augmentation does not change which slices are drawn.
    change_rng = np.random.default_rng([seed, epoch, 1])
    cut = _crop_spec(source, crop, context_slices, augmentation)
    opened = OpenCases(source.cases)
    share = np.array_split(np.arange(batch_size), workers)[rank]

    def draws() -> Iterator[list[SliceDraw]]:
        for _ in range(steps):
            batch = _draw(source, batch_size, crop, tumour_fraction, (flip, flip_front_back), rng)
            if augmentation.changes:
                changes = draw_changes(augmentation, batch_size, change_rng)
                batch = [
                    draw._replace(change=change)
                    for draw, change in zip(batch, changes, strict=True)
                ]
            yield [batch[index] for index in share]

    with ThreadPoolExecutor(threads, thread_name_prefix="slices") as pool:
        upcoming = draws()
        waiting: deque[Future[PackedBatch]] = deque(
            pool.submit(_assemble, opened, batch, cut, pinned)
            for batch in islice(upcoming, threads + 1)
        )
        try:
            while waiting:
                ready = waiting.popleft().result()
                for batch in islice(upcoming, 1):
                    waiting.append(pool.submit(_assemble, opened, batch, cut, pinned))
                yield ready
        finally:
            for future in waiting:
                future.cancel()


def _draw(
    source: SliceSource,
    count: int,
    crop: int,
    tumour_fraction: float | None,
    flips: tuple[bool, bool],
    rng: np.random.Generator,
) -> list[SliceDraw]:
    if tumour_fraction is None:
        tumour_fraction = len(source.tumour) / len(source)
    draws = []
    for bears in rng.random(count) < tumour_fraction:
        first, second = (source.tumour, source.empty) if bears else (source.empty, source.tumour)
        pool = first or second
        where = pool[rng.integers(len(pool))]
        height, width, _ = source.cases[where.case].record.size
        start = (_start(height, crop, rng), _start(width, crop, rng))
        mirrored = (flips[0] and rng.random() < 0.5, flips[1] and rng.random() < 0.5)
        draws.append(SliceDraw(where, start, mirrored))
    return draws


def _start(size: int, crop: int, rng: np.random.Generator) -> int:
    """Return the start of the window along one axis; below 0 if the crop is larger.

    A slice larger than the crop is cut at random. A smaller slice lies in the middle: brains in
    BRATS are aligned, and a voxel's position in the head helps to tell what it is.
    """
    return int(rng.integers(size - crop + 1)) if size > crop else -((crop - size) // 2)


def _crop_spec(
    source: SliceSource, crop: int, context_slices: int, augmentation: Augmentation
) -> CropSpec:
    """Return the part to take of each slice; the margin does not exceed the largest slice."""
    largest = max(side for case in source.cases for side in case.record.size[:2])
    margin = min(augmentation.margin(crop), max(0, largest - crop))
    return CropSpec(crop, margin, context_slices, augmentation)


def _assemble(
    opened: OpenCases, draws: Sequence[SliceDraw], cut: CropSpec, pinned: bool
) -> PackedBatch:
    side = cut.crop + 2 * cut.margin
    channels = len(MODALITIES) * (2 * cut.context_slices + 1)
    image = torch.zeros((len(draws), channels, side, side), dtype=torch.float16, pin_memory=pinned)
    mask = torch.zeros((len(draws), side, side), dtype=torch.uint8, pin_memory=pinned)
    into, mask_into = image.numpy(), mask.numpy()
    for index, (where, start, mirrored, _) in enumerate(draws):
        case_image, case_mask = opened[where.case]
        stored = case_mask[where.position]
        (from_y, to_y), (from_x, to_x) = (
            window(size, side, at - cut.margin)
            for size, at in zip(stored.shape, start, strict=True)
        )
        up, across = (slice(None, None, -1 if axis else 1) for axis in mirrored)
        for stacked, position in stack_positions(
            where.position, len(case_mask), cut.context_slices
        ):
            to = into[index, stacked, up, across]
            to[:, to_y, to_x] = case_image[position, :, from_y, from_x]
        mask_into[index, up, across][to_y, to_x] = stored[from_y, from_x]
    changes = tuple(draw.change for draw in draws if draw.change is not None)
    return PackedBatch(
        image,
        mask,
        tuple(draw.where for draw in draws),
        Changes(cut.augmentation, cut.crop, changes) if changes else None,
    )
