"""Lesion-wise scores against values worked out by hand and a slow reading of the definition."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segan_ray.brats import REGIONS
from segan_ray.evaluation.metrics.lesions import (
    LesionScores,
    score_case_lesions,
    score_lesions,
)
from segan_ray.evaluation.metrics.region_metrics import HD95_ONE_EMPTY_MM, hausdorff95

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaxtyping import Bool

    Mask = Bool[np.ndarray, "x y z"]
    Voxel = tuple[int, int, int]
    Spacing = tuple[float, float, float]

ISOTROPIC = (1.0, 1.0, 1.0)
SHAPE = (40, 14, 14)


def boxes(*ends: tuple[Voxel, Voxel], shape: Voxel = SHAPE) -> Mask:
    mask = np.zeros(shape, dtype=bool)
    for start, stop in ends:
        mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


def cube(x: int, y: int = 4, z: int = 4, side: int = 4) -> tuple[Voxel, Voxel]:
    """64 voxels at side 4: more than 50 mm³ at 1 mm."""
    return (x, y, z), (x + side, y + side, z + side)


# --- by hand ---------------------------------------------------------------------------------


def test_both_empty_agree() -> None:
    assert score_lesions(boxes(), boxes(), ISOTROPIC) == LesionScores(1.0, 0.0, 0, 0, 0)


def test_an_empty_truth_counts_every_component_as_false() -> None:
    found = score_lesions(boxes(cube(0), ((20, 0, 0), (21, 1, 1))), boxes(), ISOTROPIC)
    assert found == LesionScores(0.0, HD95_ONE_EMPTY_MM, 0, 0, 2)


def test_an_empty_prediction_misses_every_lesion() -> None:
    found = score_lesions(boxes(), boxes(cube(0), cube(30)), ISOTROPIC)
    assert found == LesionScores(0.0, HD95_ONE_EMPTY_MM, 2, 2, 0)


def test_found_missed_and_false_are_averaged() -> None:
    # One lesion found whole, one missed, one component where nothing is.
    truth = boxes(cube(0), cube(15))
    prediction = boxes(cube(0), ((38, 0, 0), (39, 1, 1)))
    found = score_lesions(prediction, truth, ISOTROPIC)
    assert found == LesionScores(1 / 3, 2 * HD95_ONE_EMPTY_MM / 3, 2, 1, 1)


def test_dice_and_hd95_of_a_lesion() -> None:
    # 4x4x4 of truth, the 3x4x4 of it found: 2 * 48 / (64 + 48), its far face 1 voxel off.
    found = score_lesions(boxes(((4, 4, 4), (7, 8, 8))), boxes(cube(4)), (2.0, 1.0, 1.0))
    assert found.dice == pytest.approx(96 / 112)
    assert found.hd95 == 2.0


@pytest.mark.parametrize(("volume", "lesions"), [((5, 5, 2), 0), ((3, 17, 1), 1)])
def test_a_lesion_is_kept_above_50_mm3(volume: Voxel, lesions: int) -> None:
    truth = boxes(((0, 0, 0), volume), shape=(20, 20, 20))  # 50 and 51 voxels
    missed = score_lesions(boxes(shape=(20, 20, 20)), truth, ISOTROPIC)
    assert (missed.lesions, missed.missed) == (lesions, lesions)
    assert missed.dice == 1 - lesions


@pytest.mark.parametrize(("voxels", "lesions"), [(400, 0), (401, 1)])
def test_volume_is_in_mm3(voxels: int, lesions: int) -> None:
    truth = np.zeros((10, 10, 10), dtype=bool)
    truth.reshape(-1)[:voxels] = True  # an eighth of a mm³ each
    assert score_lesions(~truth, truth, (0.5, 0.5, 0.5)).lesions == lesions


def test_rounding_does_not_lift_50_mm3() -> None:
    truth = np.zeros((10, 50, 100), dtype=bool)
    truth[:] = True
    assert 50_000 * (0.1 * 0.1 * 0.1) > 50
    assert score_lesions(truth, truth, (0.1, 0.1, 0.1)).lesions == 0


def test_a_component_on_a_dropped_lesion_is_neither_hit_nor_false() -> None:
    small = ((30, 4, 4), (32, 6, 6))
    met = score_lesions(boxes(cube(4), small), boxes(cube(4), small), ISOTROPIC)
    assert met == LesionScores(1.0, 0.0, 1, 0, 0)
    alone = score_lesions(boxes(small), boxes(small), ISOTROPIC)
    assert alone == LesionScores(1.0, 0.0, 0, 0, 0)
    elsewhere = score_lesions(boxes(cube(4)), boxes(small), ISOTROPIC)
    assert elsewhere == LesionScores(0.0, HD95_ONE_EMPTY_MM, 0, 0, 1)


@pytest.mark.parametrize(("gap", "lesions"), [(6, 1), (7, 2)])
def test_lesions_whose_dilations_touch_are_one(gap: int, lesions: int) -> None:
    # Three voxels from either side fill a gap of six; of seven, they leave one.
    truth = boxes(cube(4), cube(8 + gap))
    assert score_lesions(truth, truth, ISOTROPIC) == LesionScores(1.0, 0.0, lesions, 0, 0)


@pytest.mark.parametrize(("gap", "lesions"), [(4, 1), (5, 2)])
def test_dilation_takes_18_neighbours(gap: int, lesions: int) -> None:
    # Along the diagonal of all three axes, three steps on two axes each reach two on every axis.
    shape = (20, 20, 20)
    truth = boxes(cube(2, 2, 2), cube(6 + gap, 6 + gap, 6 + gap), shape=shape)
    assert score_lesions(truth, truth, ISOTROPIC).lesions == lesions


def test_small_parts_count_with_the_lesion_they_touch() -> None:
    # 32 + 32 voxels, dropped each by itself, together above 50 mm³.
    truth = boxes(((0, 0, 0), (2, 4, 4)), ((8, 0, 0), (10, 4, 4)))
    half = boxes(((0, 0, 0), (2, 4, 4)))
    found = score_lesions(half, truth, ISOTROPIC)
    assert (found.lesions, found.missed, found.false_positives) == (1, 0, 0)
    assert found.dice == pytest.approx(2 * 32 / (32 + 64))
    assert found.hd95 == hausdorff95(half, truth, ISOTROPIC)


@pytest.mark.parametrize(("gap", "false_positives"), [(2, 0), (3, 1)])
def test_a_component_meets_the_dilated_lesion(gap: int, false_positives: int) -> None:
    truth, near = boxes(cube(4)), boxes(((8 + gap, 4, 4), (9 + gap, 8, 8)))
    found = score_lesions(near, truth, ISOTROPIC)
    assert found.dice == 0
    assert (found.missed, found.false_positives) == (false_positives, false_positives)
    assert found.hd95 == (
        HD95_ONE_EMPTY_MM if false_positives else hausdorff95(near, truth, ISOTROPIC)
    )


def test_components_that_meet_a_lesion_are_joined() -> None:
    truth = boxes(((4, 4, 4), (14, 8, 8)))
    prediction = boxes(((4, 4, 4), (6, 8, 8)), ((9, 4, 4), (14, 8, 8)))
    found = score_lesions(prediction, truth, ISOTROPIC)
    assert (found.lesions, found.false_positives) == (1, 0)
    assert found.dice == pytest.approx(2 * 7 / (10 + 7))


def test_a_component_that_meets_two_lesions_counts_for_both() -> None:
    truth = boxes(cube(2), cube(20))
    bridge = boxes(((2, 4, 4), (24, 8, 8)))
    found = score_lesions(bridge, truth, ISOTROPIC)
    assert (found.lesions, found.missed, found.false_positives) == (2, 0, 0)
    assert found.dice == pytest.approx(2 * 4 / (4 + 22))


def test_components_that_touch_at_corners_are_one() -> None:
    stray = boxes(((20, 2, 2), (21, 3, 3)), ((21, 3, 3), (22, 4, 4)))
    assert score_lesions(stray, boxes(), ISOTROPIC).false_positives == 1


def test_lesions_at_the_border() -> None:
    truth = boxes(((0, 0, 0), (4, 4, 4)), ((36, 10, 10), SHAPE))
    prediction = boxes(((0, 0, 0), (4, 4, 4)), ((37, 10, 10), SHAPE))
    found = score_lesions(prediction, truth, ISOTROPIC)
    assert found.dice == pytest.approx((1 + 96 / 112) / 2)
    assert found.hd95 == 0.5
    assert (found.lesions, found.missed, found.false_positives) == (2, 0, 0)


def test_cases_keep_the_order_of_regions() -> None:
    whole, core, none = boxes(cube(2), cube(20)), boxes(cube(2)), boxes()
    scores = score_case_lesions(
        np.stack([whole, core, none]), np.stack([whole, whole, none]), ISOTROPIC
    )
    assert tuple(scores) == REGIONS
    assert [scores[region].missed for region in REGIONS] == [0, 1, 0]
    assert [scores[region].dice for region in REGIONS] == [1, 0.5, 1]


def test_bad_arguments_are_refused() -> None:
    mask = boxes(cube(2))
    with pytest.raises(ValueError, match="share one grid"):
        score_lesions(mask, mask[:5], ISOTROPIC)
    with pytest.raises(TypeError, match="boolean"):
        score_lesions(mask.astype(np.uint8), mask.astype(np.uint8), ISOTROPIC)
    with pytest.raises(ValueError, match="3 axes"):
        score_lesions(mask[0], mask[0], ISOTROPIC)
    with pytest.raises(ValueError, match="positive"):
        score_lesions(boxes(), boxes(), (1.0, 1.0, float("nan")))


# --- by the definition -----------------------------------------------------------------------


def neighbours(voxel: Voxel, shape: Voxel, most_axes: int) -> Iterable[Voxel]:
    for step in product((-1, 0, 1), repeat=3):
        x, y, z = (v + s for v, s in zip(voxel, step, strict=True))
        if 0 < sum(map(abs, step)) <= most_axes and all(
            0 <= v < side for v, side in zip((x, y, z), shape, strict=True)
        ):
            yield x, y, z


def components(voxels: set[Voxel], shape: Voxel) -> list[set[Voxel]]:
    """Breadth first, over 26 neighbours."""
    left, found = set(voxels), []
    while left:
        front = [left.pop()]
        component = set(front)
        while front:
            around = {other for voxel in front for other in neighbours(voxel, shape, 3)}
            front = list(around & left)
            left -= around
            component |= set(front)
        found.append(component)
    return found


def dilated(voxels: set[Voxel], shape: Voxel) -> set[Voxel]:
    for _ in range(3):
        voxels = voxels | {other for one in voxels for other in neighbours(one, shape, 2)}
    return voxels


def as_mask(voxels: set[Voxel], shape: Voxel) -> Mask:
    mask = np.zeros(shape, dtype=bool)
    for voxel in voxels:
        mask[voxel] = True
    return mask


def slow_scores(prediction: Mask, truth: Mask, spacing_mm: Spacing) -> LesionScores:
    shape = truth.shape
    true, parts = (
        {(int(x), int(y), int(z)) for x, y, z in np.argwhere(mask)} for mask in (truth, prediction)
    )
    parts = components(parts, shape)
    unmet, scores, missed = list(parts), [], 0
    for grown in components(dilated(true, shape), shape):
        own = true & grown
        met = [part for part in parts if part & dilated(own, shape)]
        unmet = [part for part in unmet if part not in met]
        if len(own) * spacing_mm[0] * spacing_mm[1] * spacing_mm[2] <= 50:
            continue
        missed += not met
        joined = set().union(*met)
        dice = 2 * len(own & joined) / (len(own) + len(joined))
        masks = as_mask(joined, shape), as_mask(own, shape)
        scores.append((dice, hausdorff95(*masks, spacing_mm) if met else 374.0))
    lesions = len(scores)
    scores += [(0.0, 374.0)] * len(unmet)
    return LesionScores(
        dice=sum(dice for dice, _ in scores) / len(scores) if scores else 1.0,
        hd95=sum(hd95 for _, hd95 in scores) / len(scores) if scores else 0.0,
        lesions=lesions,
        missed=missed,
        false_positives=len(unmet),
    )


@st.composite
def volumes(draw: st.DrawFn) -> tuple[Mask, Mask]:
    shape = draw(st.tuples(st.integers(1, 24), st.integers(1, 10), st.integers(1, 10)))
    corner = st.tuples(*(st.integers(0, side - 1) for side in shape))
    size = st.tuples(*[st.integers(1, 4)] * 3)

    def some(most: int) -> Mask:
        mask = np.zeros(shape, dtype=bool)
        for start, extent in draw(st.lists(st.tuples(corner, size), max_size=most)):
            mask[tuple(slice(a, a + n) for a, n in zip(start, extent, strict=True))] = True
        return mask

    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Boxes, grains of dust about them, and now and then a prediction that keeps parts of truth.
    truth = some(4) ^ (rng.random(shape) < draw(st.sampled_from([0, 0.005, 0.3])))
    kept = truth & (rng.random(shape) < draw(st.sampled_from([0, 0.5, 0.95])))
    return some(4) | kept, truth


@pytest.mark.slow
@given(masks=volumes(), spacing_mm=st.tuples(*[st.sampled_from([0.5, 0.9375, 1.0, 2.5, 5.0])] * 3))
@settings(max_examples=80, deadline=None)
def test_scores_are_what_the_definition_says(masks: tuple[Mask, Mask], spacing_mm: Spacing) -> None:
    found, expected = score_lesions(*masks, spacing_mm), slow_scores(*masks, spacing_mm)
    assert (found.lesions, found.missed, found.false_positives) == (
        expected.lesions,
        expected.missed,
        expected.false_positives,
    )
    assert found.dice == pytest.approx(expected.dice)
    assert found.hd95 == pytest.approx(expected.hd95)
