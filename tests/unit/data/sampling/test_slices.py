from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from segan_ray.data.sampling.slices import (
    Batch,
    SliceRef,
    SliceSource,
    epoch_batches,
    fitting_crop,
    slice_source,
)
from segan_ray.data.store.opened_store import TuningCases

DRAW = {
    "steps": 3, "batch_size": 4, "crop": 48, "tumour_fraction": 0.7, "flip": True, "seed": 1,
}  # fmt: skip


def unpacked(source: SliceSource, **options) -> list[Batch]:
    return [batch.unpack(torch.device("cpu")) for batch in epoch_batches(source, **options)]


@pytest.fixture
def source(tuning_cases: TuningCases) -> SliceSource:
    return slice_source(tuning_cases.train)


def test_every_slice_is_indexed_once(source: SliceSource, tuning_cases: TuningCases) -> None:
    assert len(source) == sum(case.record.size[2] for case in tuning_cases.train)
    assert not set(source.tumour) & set(source.empty)
    for where in source.tumour[:5]:
        assert (source.cases[where.case].mask()[where.position] & 1).any()
    for where in source.empty[:5]:
        assert not (source.cases[where.case].mask()[where.position] & 1).any()


def test_an_epoch_is_the_same_each_time_and_differs_from_the_next(source: SliceSource) -> None:
    first, again, threaded, second, other = (
        unpacked(source, epoch=epoch, threads=threads, **{**DRAW, "seed": seed})
        for epoch, threads, seed in ((1, 1, 1), (1, 1, 1), (1, 4, 1), (2, 1, 1), (1, 1, 2))
    )
    for same in (again, threaded):
        for one, two in zip(first, same, strict=True):
            assert one.slices == two.slices
            assert torch.equal(one.image, two.image)
            assert torch.equal(one.truth, two.truth)
    assert [batch.slices for batch in first] != [batch.slices for batch in second]
    assert [batch.slices for batch in first] != [batch.slices for batch in other]


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_workers_together_draw_the_batches_of_one(source: SliceSource, workers: int) -> None:
    """Batches of four: shares of 2 + 2, of 2 + 1 + 1, of one each."""
    alone = unpacked(source, epoch=1, **DRAW)
    shares = [
        unpacked(source, epoch=1, rank=rank, workers=workers, **DRAW) for rank in range(workers)
    ]
    for batch, *parts in zip(alone, *shares, strict=True):
        assert all(part.slices for part in parts)
        assert batch.slices == tuple(where for part in parts for where in part.slices)
        assert torch.equal(batch.image, torch.cat([part.image for part in parts]))
        assert torch.equal(batch.truth, torch.cat([part.truth for part in parts]))


def test_slices_drawn_alike_show_tumour_as_often_as_the_cases(source: SliceSource) -> None:
    options = {**DRAW, "tumour_fraction": None, "steps": 50, "crop": 16}
    drawn = [where for batch in unpacked(source, epoch=1, **options) for where in batch.slices]
    bears = set(source.tumour)
    share = len(source.tumour) / len(source)
    assert abs(np.mean([where in bears for where in drawn]) - share) < 0.15


def test_an_epoch_left_early_leaves_no_thread(source: SliceSource) -> None:
    batches = epoch_batches(source, epoch=1, **DRAW)
    next(batches)
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("slices")]


def test_an_error_of_a_loader_reaches_the_loop(source: SliceSource) -> None:
    broken = SliceSource(source.cases[:1], (SliceRef(0, 10**6),), (SliceRef(0, 10**6),))
    with pytest.raises(IndexError):
        next(epoch_batches(broken, epoch=1, **DRAW))


def test_the_content_of_batches(source: SliceSource) -> None:
    for batch in unpacked(source, epoch=1, **DRAW):
        assert batch.image.shape == (4, 4, 48, 48)
        assert batch.truth.shape == (4, 3, 48, 48)
        assert batch.brain.shape == (4, 1, 48, 48)
        assert batch.image.dtype == batch.truth.dtype == torch.float32
        assert not batch.image[batch.brain.expand_as(batch.image) == 0].any()
        whole, core, enhancing = batch.truth.unbind(1)
        assert (core <= whole).all()
        assert (enhancing <= core).all()


def test_a_padded_slice_keeps_every_voxel(source: SliceSource) -> None:
    (batch,) = unpacked(source, epoch=1, **{**DRAW, "steps": 1, "crop": 64, "flip": False})
    for index, where in enumerate(batch.slices):
        stored = source.cases[where.case].image()[where.position]
        kept = batch.image[index].numpy()
        np.testing.assert_allclose(
            np.sort(kept[kept != 0]), np.sort(stored[stored != 0].astype(np.float32))
        )


def test_slices_may_be_mirrored_front_to_back_too(source: SliceSource) -> None:
    options = {**DRAW, "crop": 64, "steps": 8, "tumour_fraction": 1.0, "flip": False}
    mirrored = 0
    for batch in unpacked(source, epoch=1, **options, flip_front_back=True):
        for index, where in enumerate(batch.slices):
            case = source.cases[where.case]
            image, mask = case.image()[where.position], case.mask()[where.position]
            found = batch.image[index].numpy()[:, batch.brain[index, 0].numpy().any(1)]
            true = image[:, (mask & 8).any(1)].astype(np.float32)
            columns = (mask & 8).any(0)
            true = true[:, :, columns]
            found = found[:, :, batch.brain[index, 0].numpy().any(0)]
            same, mirror = np.array_equal(found, true), np.array_equal(found, true[:, :, ::-1])
            assert same or mirror
            mirrored += mirror and not same
    assert 0 < mirrored < 32


@pytest.mark.parametrize(("fraction", "bears"), [(0.0, False), (1.0, True)])
def test_the_share_of_tumour_slices(source: SliceSource, fraction: float, bears: bool) -> None:
    options = {**DRAW, "tumour_fraction": fraction, "crop": 64}
    for batch in unpacked(source, epoch=1, **options):
        assert batch.truth[:, 0].any(dim=-1).any(dim=-1).tolist() == [bears] * 4


def test_a_flip_mirrors_image_and_truth_together(source: SliceSource) -> None:
    options = {**DRAW, "crop": 64, "steps": 8, "tumour_fraction": 1.0}
    flipped = unpacked(source, epoch=1, **options)
    mirrored = 0
    for batch in flipped:
        for index, where in enumerate(batch.slices):
            case = source.cases[where.case]
            plain = case.image()[where.position].astype(np.float32)
            actual = batch.image[index].numpy()
            box = np.argwhere(batch.brain[index, 0].numpy())
            low, high = box.min(0), box.max(0) + 1
            inside = actual[:, low[0] : high[0], low[1] : high[1]]
            brain = np.argwhere(case.mask()[where.position] & 8)
            start, stop = brain.min(0), brain.max(0) + 1
            true = plain[:, start[0] : stop[0], start[1] : stop[1]]
            same = np.array_equal(inside, true)
            mirror = np.array_equal(inside, true[:, ::-1])
            assert same or mirror
            mirrored += mirror and not same
    assert 0 < mirrored < 32


@pytest.mark.parametrize(
    ("requested", "depth", "expected"), [(160, 4, 64), (60, 4, 48), (160, 6, 64), (16, 5, 32)]
)
def test_the_crop_fits_store_and_depth(
    tuning_cases: TuningCases, requested: int, depth: int, expected: int
) -> None:
    largest = max(max(case.record.size[:2]) for case in tuning_cases.train)
    assert 48 < largest <= 64
    assert fitting_crop(requested, tuning_cases.train, depth) == expected
