"""Augmentation: slices are turned, scaled and shaded."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform, gaussian_filter

from segan_ray.config import load_experiment
from segan_ray.data.sampling.augmentation import (
    TERMS,
    Augmentation,
    Change,
    Changes,
    bias_field,
    draw_changes,
    move,
)
from segan_ray.data.sampling.slices import Batch, SliceSource, epoch_batches, slice_source
from segan_ray.data.store.opened_store import TuningCases
from segan_ray.errors import ConfigError

CPU = torch.device("cpu")
EVERYTHING = Augmentation(rotation_deg=25, scaling=0.2, intensity=0.3, bias=0.4)
DRAW = {
    "steps": 3, "batch_size": 4, "crop": 32, "tumour_fraction": 1.0, "flip": True, "seed": 1,
    "epoch": 1,
}  # fmt: skip


def drawn(source: SliceSource, augmentation: Augmentation, **options) -> list[Batch]:
    batches = epoch_batches(source, augmentation=augmentation, **{**DRAW, **options})
    return [batch.unpack(CPU) for batch in batches]


def assert_equal(one: Batch, two: Batch) -> None:
    assert one.slices == two.slices
    assert torch.equal(one.image, two.image)
    assert torch.equal(one.truth, two.truth)
    assert torch.equal(one.brain, two.brain)


@pytest.fixture
def source(tuning_cases: TuningCases) -> SliceSource:
    return slice_source(tuning_cases.train)


@pytest.mark.parametrize("crop", [32, 64])
@pytest.mark.parametrize("context_slices", [0, 1])
def test_seed_and_epoch_decide_every_change(
    source: SliceSource, crop: int, context_slices: int
) -> None:
    options = {"crop": crop, "context_slices": context_slices}
    first, again = (drawn(source, EVERYTHING, threads=n, **options) for n in (1, 3))
    for one, two in zip(first, again, strict=True):
        assert_equal(one, two)
    for other in ({"seed": 2}, {"epoch": 2}):
        assert not torch.equal(
            first[0].image, drawn(source, EVERYTHING, **options, **other)[0].image
        )


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("crop", [32, 64])
def test_workers_together_make_the_changes_of_one(
    source: SliceSource, workers: int, crop: int
) -> None:
    alone = drawn(source, EVERYTHING, crop=crop, context_slices=1)
    shares = [
        drawn(source, EVERYTHING, crop=crop, context_slices=1, rank=rank, workers=workers)
        for rank in range(workers)
    ]
    for batch, *parts in zip(alone, *shares, strict=True):
        assert torch.equal(batch.image, torch.cat([part.image for part in parts]))
        assert torch.equal(batch.truth, torch.cat([part.truth for part in parts]))


def test_augmentation_does_not_change_which_slices_are_drawn(source: SliceSource) -> None:
    plain, changed = drawn(source, Augmentation()), drawn(source, EVERYTHING)
    for one, two in zip(plain, changed, strict=True):
        assert one.slices == two.slices
        assert not torch.equal(one.image, two.image)


def test_at_zero_slices_stay_as_they_are(source: SliceSource) -> None:
    for batch in epoch_batches(source, augmentation=Augmentation(), **DRAW):
        assert batch.changes is None
        assert batch.image.shape[-1] == DRAW["crop"]
        assert torch.equal(batch.unpack(CPU).image, batch.image.float())


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(rotation_deg=180),
        Augmentation(scaling=0.5),
        Augmentation(intensity=1.0),
        Augmentation(bias=1.0),
        EVERYTHING,
    ],
)
@pytest.mark.parametrize("crop", [32, 64])
def test_regions_stay_nested_and_the_outside_stays_zero(
    source: SliceSource, augmentation: Augmentation, crop: int
) -> None:
    for batch in drawn(source, augmentation, crop=crop):
        assert batch.image.shape == (4, 4, crop, crop)
        assert batch.image.is_contiguous(memory_format=torch.channels_last)
        assert torch.isfinite(batch.image).all()
        assert not batch.image[batch.brain.expand_as(batch.image) == 0].any()
        whole, core, enhancing = batch.truth.unbind(1)
        assert whole.any()
        assert (core <= whole).all()
        assert (enhancing <= core).all()
        assert (whole <= batch.brain[:, 0]).all()


def synthetic(side: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a smooth slice of four modalities in an oval brain, and its packed mask."""
    rng = np.random.default_rng(seed)
    down, across = np.indices((side, side)) - (side - 1) / 2
    brain = (down / 0.42) ** 2 + (across / 0.33) ** 2 < side**2
    smooth = np.stack([gaussian_filter(rng.normal(size=(side, side)), 2) for _ in range(4)])
    image = ((smooth / smooth.std() + 0.5) * brain).astype(np.float32)
    whole = brain & (smooth[0] > 0)
    core = whole & (smooth[1] > 0)
    mask = (brain * 8 + whole * 1 + core * 2 + (core & (smooth[2] > 0)) * 4).astype(np.uint8)
    return image, mask


@pytest.mark.parametrize("field", [48, 64])
@pytest.mark.parametrize(("degrees", "scale"), [(17.3, 1.0), (0.0, 1.31), (-123.4, 0.83)])
def test_slices_move_as_scipy_moves_them(field: int, degrees: float, scale: float) -> None:
    crop = 48
    image, mask = synthetic(field)
    cosine, sine = (f(math.radians(degrees)) / scale for f in (math.cos, math.sin))
    actual, found_mask = move(
        torch.from_numpy(image)[None],
        torch.from_numpy(mask)[None, None],
        torch.tensor([[cosine, sine]]),
        crop,
    )
    matrix = np.array([[cosine, -sine], [sine, cosine]])
    offset = (field - 1) / 2 - matrix @ np.full(2, (crop - 1) / 2)

    def moved(values: np.ndarray, order: int) -> np.ndarray:
        return affine_transform(
            np.pad(values, 40), matrix, offset + 40, (crop, crop), order=order, mode="constant"
        )

    np.testing.assert_array_equal(found_mask[0, 0].numpy(), moved(mask, 0))
    brain = moved(mask & 8, 0) != 0
    weight = moved((mask & 8 != 0).astype(np.float64), 1)
    for modality, values in zip(actual[0].numpy(), image, strict=True):
        expected = np.where(brain, moved(values.astype(np.float64), 1) / np.maximum(weight, 0.1), 0)
        np.testing.assert_allclose(modality, expected, atol=2e-4)


def test_every_slice_of_a_stack_moves_alike() -> None:
    image, mask = (torch.from_numpy(part) for part in synthetic(48))
    turn = torch.tensor([[0.9, 0.3]])
    alone, _ = move(image[None], mask[None, None], turn, 48)
    stacked, _ = move(torch.cat([image, image * 2, image])[None], mask[None, None], turn, 48)
    for slice_, factor in zip(stacked[0].split(4), (1, 2, 1), strict=True):
        torch.testing.assert_close(slice_, alone[0] * factor)


@pytest.mark.parametrize("crop", [32, 48, 160])
@pytest.mark.parametrize(
    "augmentation", [Augmentation(rotation_deg=20), Augmentation(scaling=0.5), EVERYTHING]
)
def test_the_margin_holds_all_voxels_that_may_turn_in(
    augmentation: Augmentation, crop: int
) -> None:
    field = crop + 2 * augmentation.margin(crop)
    everything = torch.ones(64, 4, field, field), torch.full((64, 1, field, field), 15).byte()
    changes = draw_changes(augmentation, 64, np.random.default_rng(0))
    turn = torch.from_numpy(np.stack([change.turn for change in changes]))
    image, mask = move(*everything, turn, crop)
    assert (mask == 15).all()
    torch.testing.assert_close(image, torch.ones_like(image))


def test_gain_and_offset_are_one_a_modality_for_all_slices_of_a_stack() -> None:
    image, mask = (torch.from_numpy(part) for part in synthetic(32))
    gain, offset = np.array([0.5, 1, 1.5, 2], np.float32), np.array([1, -1, 0, 2], np.float32)
    flat = np.zeros((4, len(TERMS)), np.float32)
    change = Change(np.array([1, 0], np.float32), gain, offset, flat)
    changes = Changes(Augmentation(intensity=1.0), 32, (change,))
    stack = torch.cat([image, image.flip(0)])[None]
    actual, _ = changes.apply(stack, mask[None, None])
    inside = mask & 8 != 0
    for channel in range(8):
        expected = stack[0, channel] * gain[channel % 4] + offset[channel % 4]
        torch.testing.assert_close(actual[0, channel][inside], expected[inside])
        assert not actual[0, channel][~inside].any()


def test_a_bias_field_is_smooth_and_bounded() -> None:
    changes = draw_changes(Augmentation(bias=0.5), 50, np.random.default_rng(0))
    logarithm = bias_field(torch.from_numpy(np.stack([each.bias for each in changes])), 64).log()
    assert logarithm.abs().max() <= 0.5
    assert logarithm.abs().max() > 0.3
    assert logarithm.std(dim=(-2, -1)).min() > 0.02
    assert logarithm.diff(dim=-1).abs().max() < 0.5 * 2 * math.pi / 64


@pytest.mark.parametrize(
    "setting",
    ["rotation_deg=181", "scaling=0.6", "intensity=-0.1", "bias=2", "neighbours=-1", "bias=.nan"],
)
def test_impossible_settings_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"data.{setting.split('=')[0]} is"):
        load_experiment(None, [f"data.{setting}"])
