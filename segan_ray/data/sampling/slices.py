"""Drawing batches of axial slices from prepared cases.

A slice costs no decoding: it is copied out of a memory-mapped array, with its neighbours above
and below where they are asked for. What an epoch draws depends on (seed, epoch) alone: a resumed
run draws what the uninterrupted one would, and a group of workers draws together what a single
one would, each taking its share.
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
    """Where a slice comes from: index of the case, and of the slice in its stored box."""

    case: int
    position: int


class SliceDraw(NamedTuple):
    """One drawn slice: where its window starts along both axes, and what is done to it."""

    where: SliceRef
    start: tuple[int, int]
    mirrored: bool
    change: Change | None = None


@dataclass(frozen=True)
class CropSpec:
    """What is taken of each slice: a square ``crop``, with slices around and what may turn in.

    ``margin`` voxels around the crop are taken along for ``augmentation`` to draw on;
    ``context_slices`` is how many slices above and below become further channels.
    """

    crop: int
    margin: int = 0
    context_slices: int = 0
    augmentation: Augmentation = UNCHANGED


@dataclass(frozen=True)
class PackedBatch:
    """Slices as the store keeps them, and where each came from; half the bytes of a ``Batch``."""

    image: Float16[Tensor, "batch channel height width"]
    mask: UInt8[Tensor, "batch height width"]
    slices: tuple[SliceRef, ...]
    changes: Changes | None = None

    def unpack(self, device: torch.device) -> Batch:
        """Move to ``device`` and turn into what networks take, there."""
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
    """Slices ready for a network, and where each came from.

    Channels are modalities, slice after slice from the lowest neighbour to the highest.
    """

    image: Float[Tensor, "batch channel height width"]
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
    tumour_fraction: float | None,
    flip: bool,
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

    ``tumour_fraction`` is the expected share of slices that bear tumour; None draws slices as
    they come. ``context_slices`` is how many slices on either side are further channels. Batches
    are assembled ahead by ``threads`` threads, in page-locked memory where ``pinned``, so that
    whoever takes them does not wait.
    """
    rng = np.random.default_rng([seed, epoch])
    # Their own stream: what is done to slices does not change which are drawn.
    changing = np.random.default_rng([seed, epoch, 1])
    cut = _crop_spec(source, crop, context_slices, augmentation)
    opened = OpenCases(source.cases)
    mine = np.array_split(np.arange(batch_size), workers)[rank]

    def draws() -> Iterator[list[SliceDraw]]:
        for _ in range(steps):
            batch = _draw(source, batch_size, crop, tumour_fraction, flip, rng)
            if augmentation.changes:
                changes = draw_changes(augmentation, batch_size, changing)
                batch = [
                    draw._replace(change=change)
                    for draw, change in zip(batch, changes, strict=True)
                ]
            yield [batch[index] for index in mine]

    with ThreadPoolExecutor(threads, thread_name_prefix="slices") as pool:
        coming = draws()
        waiting: deque[Future[PackedBatch]] = deque(
            pool.submit(_assemble, opened, batch, cut, pinned)
            for batch in islice(coming, threads + 1)
        )
        try:
            while waiting:
                ready = waiting.popleft().result()
                for batch in islice(coming, 1):
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
    flip: bool,
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
        draws.append(SliceDraw(where, start, flip and rng.random() < 0.5))
    return draws


def _start(size: int, crop: int, rng: np.random.Generator) -> int:
    """Return where the window starts along one axis; below 0 where the crop is the larger.

    A slice larger than the crop is cut at random. A smaller one lies in the middle: brains in
    BRATS are aligned to one another, and where in the head a voxel is helps to tell what it is.
    """
    return int(rng.integers(size - crop + 1)) if size > crop else -((crop - size) // 2)


def _crop_spec(
    source: SliceSource, crop: int, context_slices: int, augmentation: Augmentation
) -> CropSpec:
    """Return what to take of each slice: no margin beyond what the largest of them fills."""
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
        # Height runs left to right in the stored slice: flipping it mirrors the hemispheres.
        order = slice(None, None, -1 if mirrored else 1)
        for place, position in stack_positions(where.position, len(case_mask), cut.context_slices):
            to = into[index, place, order]
            to[:, to_y, to_x] = case_image[position, :, from_y, from_x]
        mask_into[index, order][to_y, to_x] = stored[from_y, from_x]
    changes = tuple(draw.change for draw in draws if draw.change is not None)
    return PackedBatch(
        image,
        mask,
        tuple(draw.where for draw in draws),
        Changes(cut.augmentation, cut.crop, changes) if changes else None,
    )
