"""The metrics against values worked out by hand and against a slow reading of the definition."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import accumulate, permutations, product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segan_ray.brats import REGIONS
from segan_ray.evaluation.metrics import surface_distances
from segan_ray.evaluation.metrics.region_metrics import (
    HD95_ONE_EMPTY_MM,
    METRICS,
    Overlap,
    hausdorff95,
    overlap,
    score_case,
    score_region,
)
from segan_ray.evaluation.metrics.surfaces import surface_areas

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaxtyping import Bool, Float64, Int64

    Voxel = tuple[int, int, int]
    Spacing = tuple[float, float, float]
    AreaTable = Callable[[Spacing], tuple[Float64[np.ndarray, "256"], Int64[np.ndarray, "2 2 2"]]]

ISOTROPIC = (1.0, 1.0, 1.0)
SPACINGS = [ISOTROPIC, (0.5, 1.0, 3.0), (1.2, 0.7, 5.0)]


def voxels(*inside: Voxel, shape: Voxel = (10, 10, 10)) -> Bool[np.ndarray, "x y z"]:
    mask = np.zeros(shape, dtype=bool)
    for voxel in inside:
        mask[voxel] = True
    return mask


def box(
    start: tuple[int, ...], stop: tuple[int, ...], shape: tuple[int, ...] = (10, 10, 10)
) -> Bool[np.ndarray, "x y z"]:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


@st.composite
def pairs_of_masks(
    draw: st.DrawFn,
) -> tuple[Bool[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]]:
    shape = draw(array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6))
    # Half of the masks at random, and boxes, whose flat faces random voxels hardly ever have.
    noise = st.tuples(st.integers(0, 2**32 - 1), st.floats(0.02, 0.98)).map(
        lambda seeded: np.random.default_rng(seeded[0]).random(shape) < seeded[1]
    )
    corner = st.tuples(*(st.integers(0, side) for side in shape))
    boxes = st.tuples(corner, corner).map(lambda ends: box(ends[0], ends[1], shape))
    masks = noise | boxes | arrays(np.bool_, shape)
    return draw(masks), draw(masks)


spacings = st.tuples(*[st.sampled_from([0.5, 0.9375, 1.0, 1.3, 5.0])] * 3)


@pytest.fixture(scope="module")
def published_areas() -> AreaTable:
    """MONAI's copy of DeepMind's table of areas per code, and the weights that make a code."""
    from monai.metrics.utils import get_code_to_measure_table

    def table(
        spacing_mm: Spacing,
    ) -> tuple[Float64[np.ndarray, "256"], Int64[np.ndarray, "2 2 2"]]:
        areas, kernel = get_code_to_measure_table(spacing_mm)  # type: ignore[no-untyped-call]
        return areas.double().numpy(), kernel.numpy().reshape(2, 2, 2)

    return table


# --- overlap ---------------------------------------------------------------------------------


def test_overlap_by_hand() -> None:
    # 3 predicted, 4 true, 2 of them common, 10 voxels in all: 5 outside both.
    prediction = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], dtype=bool).reshape(10, 1, 1)
    truth = np.array([0, 1, 1, 1, 1, 0, 0, 0, 0, 0], dtype=bool).reshape(10, 1, 1)
    scores = overlap(prediction, truth)
    assert scores.dice == pytest.approx(4 / 7)
    assert scores.precision == pytest.approx(2 / 3)
    assert scores.sensitivity == pytest.approx(2 / 4)
    assert scores.specificity == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("prediction", "truth", "expected"),
    [
        (False, False, (1, 1, 1, 1)),
        (True, False, (0, 0, 0, 0)),
        (False, True, (0, 0, 0, 0)),  # specificity is 0/0: no voxel outside the truth
        (True, True, (1, 1, 1, 0)),
    ],
)
def test_overlap_of_empty_and_full(
    prediction: bool, truth: bool, expected: tuple[float, float, float, float]
) -> None:
    shape = (2, 3, 4)
    scores = overlap(np.full(shape, prediction), np.full(shape, truth))
    assert scores == Overlap(*expected)


def test_overlap_of_an_empty_prediction_keeps_its_specificity() -> None:
    scores = overlap(voxels(), voxels((1, 1, 1)))
    assert scores == Overlap(dice=0, precision=0, sensitivity=0, specificity=1)


@given(pairs_of_masks())
@settings(max_examples=50, deadline=None)
def test_overlap_swaps_precision_and_sensitivity(
    masks: tuple[Bool[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]],
) -> None:
    one, other = masks
    forth, back = overlap(one, other), overlap(other, one)
    assert forth.dice == back.dice
    assert forth.precision == back.sensitivity
    assert forth.sensitivity == back.precision


# --- surface areas ---------------------------------------------------------------------------


@pytest.mark.parametrize("spacing_mm", [*SPACINGS, (0.9375, 0.9375, 1.5)])
def test_areas_are_the_published_ones(published_areas: AreaTable, spacing_mm: Spacing) -> None:
    expected, _ = published_areas(spacing_mm)
    # MONAI computes in single precision.
    np.testing.assert_allclose(surface_areas(spacing_mm), expected, rtol=1e-6)


def test_areas_by_hand() -> None:
    x_mm, y_mm, z_mm = spacing_mm = (0.5, 2.0, 3.0)
    areas = surface_areas(spacing_mm)
    assert areas[0b00000000] == areas[0b11111111] == 0
    # Bits from the left are the voxels 000 001 010 011 100 101 110 111.
    assert areas[0b11110000] == pytest.approx(y_mm * z_mm)
    assert areas[0b11001100] == pytest.approx(x_mm * z_mm)
    assert areas[0b10101010] == pytest.approx(x_mm * y_mm)
    # Two voxels in a row along z: a rectangle across the middles of their x and y links.
    assert areas[0b11000000] == pytest.approx(math.hypot(x_mm, y_mm) / 2 * z_mm)
    # One voxel: the triangle through the middles of its three links.
    legs = np.diag(spacing_mm) / 2
    triangle = np.linalg.norm(np.cross(legs[1] - legs[0], legs[2] - legs[0])) / 2
    assert areas[0b10000000] == pytest.approx(triangle)
    # One voxel and its three neighbours: the hexagon through six middles of links.
    hexagon = np.array([(2, 1, 0), (2, 0, 1), (1, 0, 2), (0, 1, 2), (0, 2, 1), (1, 2, 0)])
    corners = hexagon * np.array(spacing_mm) / 2
    fan = np.cross(corners[1:-1] - corners[0], corners[2:] - corners[0])
    assert areas[0b11101000] == pytest.approx(np.linalg.norm(fan, axis=1).sum() / 2)


def test_areas_do_not_depend_on_orientation_or_side() -> None:
    spacing_mm = (0.5, 2.0, 3.0)
    inside = np.array(
        [[code >> bit & 1 for bit in range(7, -1, -1)] for code in range(256)]
    ).reshape(256, 2, 2, 2)
    weights = 2 ** np.arange(7, -1, -1)
    areas = surface_areas(spacing_mm)
    np.testing.assert_allclose(areas, areas[::-1])
    for axes, flips in product(permutations(range(3)), product((1, -1), repeat=3)):
        a, b, c = axes
        turned = inside.transpose(0, a + 1, b + 1, c + 1)
        flipped = turned[:, :: flips[0], :: flips[1], :: flips[2]].reshape(256, 8)
        turned_mm = (spacing_mm[a], spacing_mm[b], spacing_mm[c])
        np.testing.assert_allclose(surface_areas(turned_mm)[flipped @ weights], areas)


# --- HD95 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("step", [(1, 0, 0), (0, 4, 0), (0, 0, 2), (3, 2, 0), (2, -3, 5)])
def test_hd95_of_two_voxels_is_their_distance(step: Voxel, spacing_mm: Spacing) -> None:
    # At least one of eight equal corners, an eighth of the surface, is the full step away.
    one = voxels((4, 4, 4))
    other = voxels((4 + step[0], 4 + step[1], 4 + step[2]))
    expected = math.hypot(*(n * mm for n, mm in zip(step, spacing_mm, strict=True)))
    assert hausdorff95(one, other, spacing_mm) == pytest.approx(expected)


def test_hd95_is_zero_only_between_equal_masks_here() -> None:
    mask = box((2, 3, 4), (6, 5, 9))
    assert hausdorff95(mask, mask, (1.0, 2.0, 3.0)) == 0
    assert hausdorff95(mask, box((2, 3, 4), (6, 5, 8)), (1.0, 2.0, 3.0)) == 3.0


def test_hd95_weighs_by_area() -> None:
    # A cube of 2x2x2 voxels has 8 vertices (sqrt(3)/8 each), 12 edges (sqrt(2)/2) and 6 faces
    # (1): 16.22 mm². A stray voxel adds 8 sqrt(3)/8 = 1.73 mm², half of it on its near side.
    # The first 90.4% are the cube's at 0 mm, the near side reaches 95.2% at 4 mm. Counting
    # elements alike, the 95% of 26 + 8 would lie on the far side, at 5 mm.
    cube = box((0, 0, 0), (2, 2, 2))
    stray = voxels((6, 0, 0))
    assert hausdorff95(cube | stray, cube, ISOTROPIC) == 4.0


def test_hd95_forgives_a_small_stray_part_of_either_mask() -> None:
    cube = box((5, 5, 5), (25, 25, 25), shape=(60, 30, 30))
    stray = voxels((55, 10, 10), shape=(60, 30, 30))
    assert hausdorff95(cube | stray, cube, ISOTROPIC) == 0
    assert hausdorff95(cube, cube | stray, ISOTROPIC) == 0


def test_hd95_takes_the_larger_direction() -> None:
    part = box((0, 0, 0), (2, 2, 2), shape=(40, 4, 4))
    long = box((0, 0, 0), (40, 2, 2), shape=(40, 4, 4))
    # Every element of the part but those of its end face lies on the long box.
    assert hausdorff95(part, long, ISOTROPIC) == hausdorff95(long, part, ISOTROPIC)
    assert hausdorff95(part, long, ISOTROPIC) > 30


def test_hd95_at_the_border_is_that_in_the_middle() -> None:
    corner, shifted = box((0, 0, 0), (2, 3, 2), (4, 4, 4)), box((0, 1, 2), (4, 4, 4), (4, 4, 4))
    inner, inner_shifted = np.pad(corner, 5), np.pad(shifted, 5)
    spacing_mm = (1.0, 2.5, 0.8)
    expected = hausdorff95(inner, inner_shifted, spacing_mm)
    assert hausdorff95(corner, shifted, spacing_mm) == pytest.approx(expected)
    assert hausdorff95(np.ones((4, 4, 4), bool), np.ones((4, 4, 4), bool), spacing_mm) == 0


def test_hd95_of_empty_masks() -> None:
    empty, mask = voxels(), voxels((1, 2, 3))
    assert hausdorff95(empty, empty, ISOTROPIC) == 0
    assert hausdorff95(mask, empty, ISOTROPIC) == HD95_ONE_EMPTY_MM
    assert hausdorff95(empty, mask, ISOTROPIC) == HD95_ONE_EMPTY_MM
    # As the challenge counts it, a little above the worst that a BRATS volume allows: its diagonal.
    assert HD95_ONE_EMPTY_MM == 374 > math.hypot(240, 240, 155) > 373


@given(pairs_of_masks(), spacings)
@settings(max_examples=100, deadline=None)
def test_hd95_is_symmetric_and_finite(
    masks: tuple[Bool[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]], spacing_mm: Spacing
) -> None:
    one, other = masks
    forth = hausdorff95(one, other, spacing_mm)
    assert math.isfinite(forth)
    assert forth == hausdorff95(other, one, spacing_mm)


def brute_force_surface(
    mask: Bool[np.ndarray, "x y z"], spacing_mm: Spacing, published_areas: AreaTable
) -> tuple[Float64[np.ndarray, "element 3"], Float64[np.ndarray, " element"]]:
    """Visit every corner of the grid and look its eight voxels up, one after another."""
    table, kernel = published_areas(spacing_mm)
    points, areas = [], []
    for corner in product(*(range(side + 1) for side in mask.shape)):
        code = 0
        for offset in product((0, 1), repeat=3):
            voxel = tuple(c - 1 + o for c, o in zip(corner, offset, strict=True))
            inside = all(0 <= v < side for v, side in zip(voxel, mask.shape, strict=True))
            code += int(kernel[offset]) * int(inside and mask[voxel])
        if code not in (0, 255):
            points.append([c * mm for c, mm in zip(corner, spacing_mm, strict=True)])
            areas.append(table[code])
    return np.array(points), np.array(areas)


def brute_force_hd95(
    masks: tuple[Bool[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]],
    spacing_mm: Spacing,
    published_areas: AreaTable,
    share: float,
) -> float:
    """Compare all pairs of elements; the nearest ones' distance at ``share`` of the area."""
    surfaces = [brute_force_surface(mask, spacing_mm, published_areas) for mask in masks]
    distances = []
    for (points, areas), (targets, _) in (surfaces, surfaces[::-1]):
        nearest = np.linalg.norm(points[:, None] - targets[None], axis=-1).min(axis=1)
        reach = sorted(zip(nearest, areas, strict=True))
        covered = accumulate(area for _, area in reach)
        enough = (total >= share * areas.sum() for total in covered)
        distances.append(
            next(distance for (distance, _), ok in zip(reach, enough, strict=True) if ok)
        )
    return float(max(distances))


def check_hd95(
    masks: tuple[Bool[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]],
    spacing_mm: Spacing,
    published_areas: AreaTable,
) -> None:
    if not (masks[0].any() and masks[1].any()):
        return
    found = hausdorff95(*masks, spacing_mm)
    # 95% may fall exactly between two elements, where rounding decides for either.
    low, high = (
        brute_force_hd95(masks, spacing_mm, published_areas, share)
        for share in (0.949999, 0.950001)
    )
    assert low - 1e-9 <= found <= high + 1e-9


@given(masks=pairs_of_masks(), spacing_mm=spacings)
@settings(max_examples=60, deadline=None)
def test_hd95_is_what_the_definition_says(
    published_areas: AreaTable,
    masks: tuple[Bool[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]],
    spacing_mm: Spacing,
) -> None:
    check_hd95(masks, spacing_mm, published_areas)


@pytest.mark.parametrize("always", ["tree", "grid"])
@given(masks=pairs_of_masks(), spacing_mm=spacings)
@settings(max_examples=40, deadline=None)
def test_hd95_is_the_same_either_way(
    published_areas: AreaTable,
    always: str,
    masks: tuple[Bool[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]],
    spacing_mm: Spacing,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surface_distances, "_VOXELS_PER_ELEMENT", 0 if always == "tree" else math.inf)
        patch.setattr(surface_distances, "_NEAR", (1, 2, 8))
        check_hd95(masks, spacing_mm, published_areas)


def blobs(seed: int, shape: Voxel, cover: float) -> Bool[np.ndarray, "x y z"]:
    """Smooth objects, whose surfaces fill few of the corners and many blocks."""
    rng = np.random.default_rng(seed)
    wave = np.zeros(shape)
    grid = np.indices(shape)
    for _ in range(12):
        turn = rng.normal(scale=0.25, size=3)
        wave += np.cos(np.tensordot(turn, grid, 1) + rng.uniform(0, 2 * np.pi))
    return wave > np.quantile(wave, 1 - cover)


@pytest.mark.slow
@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize("seed", range(2))
def test_hd95_of_larger_objects_is_what_the_definition_says(
    published_areas: AreaTable, seed: int, spacing_mm: Spacing
) -> None:
    shape = (26, 20, 23)
    one = blobs(seed, shape, 0.05)
    other = blobs(seed + 10 * (seed % 2), shape, 0.15)
    other[0, 0, -1] = True
    check_hd95((one, other), spacing_mm, published_areas)


@pytest.mark.parametrize("spacing_mm", SPACINGS)
@pytest.mark.parametrize(
    "ends",
    [
        (((0, 0, 0), (3, 3, 3)), ((3, 0, 0), (6, 3, 3))),  # sharing a face
        (((0, 0, 0), (3, 3, 3)), ((3, 3, 0), (6, 6, 3))),  # an edge
        (((0, 0, 0), (3, 3, 3)), ((3, 3, 3), (7, 5, 6))),  # a corner
        (((0, 0, 0), (7, 7, 7)), ((6, 6, 6), (7, 7, 7))),  # in the array's corners
        (((0, 0, 3), (7, 7, 4)), ((3, 0, 0), (4, 7, 7))),  # crossing, from border to border
    ],
)
def test_hd95_of_touching_masks_is_what_the_definition_says(
    published_areas: AreaTable,
    ends: tuple[tuple[Voxel, Voxel], tuple[Voxel, Voxel]],
    spacing_mm: Spacing,
) -> None:
    one, other = (box(start, stop, (7, 7, 7)) for start, stop in ends)
    check_hd95((one, other), spacing_mm, published_areas)


@given(masks=pairs_of_masks())
@settings(max_examples=100, deadline=None)
def test_overlap_is_what_the_definition_says(
    masks: tuple[Bool[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]],
) -> None:
    prediction, truth = masks
    count = {(p, t): 0 for p in (False, True) for t in (False, True)}
    for voxel in np.ndindex(*truth.shape):
        count[bool(prediction[voxel]), bool(truth[voxel])] += 1
    hit, false, miss, rest = (
        count[True, True],
        count[True, False],
        count[False, True],
        count[False, False],
    )

    def ratio(part: int, whole: int, if_none: int) -> float:
        if whole:
            return part / whole
        return if_none if hit + false + miss == 0 else 0

    assert overlap(prediction, truth) == Overlap(
        dice=ratio(2 * hit, 2 * hit + false + miss, 1),
        precision=ratio(hit, hit + false, 1),
        sensitivity=ratio(hit, hit + miss, 1),
        specificity=ratio(rest, rest + false, 0),
    )


# --- regions and cases -----------------------------------------------------------------------


def test_score_region_joins_overlap_and_distance() -> None:
    scores = score_region(voxels((2, 2, 2)), voxels((2, 2, 2), (2, 2, 3)), (1.0, 1.0, 2.0))
    assert tuple(scores.as_dict()) == METRICS
    assert scores.as_dict() == pytest.approx(
        {"dice": 2 / 3, "precision": 1, "sensitivity": 0.5, "specificity": 1, "hd95": 2.0}
    )


def test_scores_are_plain_floats() -> None:
    scores = score_region(voxels((2, 2, 2)), voxels((2, 2, 5)), ISOTROPIC)
    assert all(type(value) is float for value in scores.as_dict().values())


def test_score_case_keeps_the_order_of_regions() -> None:
    whole, core, none = box((1, 1, 1), (8, 8, 8)), box((2, 2, 2), (5, 5, 5)), voxels()
    scores = score_case(np.stack([whole, core, none]), np.stack([whole, none, none]), ISOTROPIC)
    assert tuple(scores) == REGIONS
    assert [scores[region].dice for region in REGIONS] == [1, 0, 1]
    assert [scores[region].hd95 for region in REGIONS] == [0, HD95_ONE_EMPTY_MM, 0]


def test_bad_arguments_are_refused() -> None:
    mask = voxels((1, 1, 1))
    with pytest.raises(ValueError, match="share one grid"):
        overlap(mask, mask[:9])
    with pytest.raises(ValueError, match="share one grid"):
        overlap(mask, mask[:1])  # would broadcast
    with pytest.raises(TypeError, match="boolean"):
        overlap(mask.astype(np.uint8), mask.astype(np.uint8))
    with pytest.raises(ValueError, match="3 axes"):
        hausdorff95(mask[0], mask[0], ISOTROPIC)
    with pytest.raises(ValueError, match="positive"):
        hausdorff95(mask, mask, (1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="zip"):
        score_case(np.stack([mask, mask]), np.stack([mask, mask]), ISOTROPIC)


def test_import_is_light() -> None:
    check = (
        "import sys, segan_ray.evaluation.metrics.region_metrics;"
        "sys.exit(bool({'torch', 'monai', 'pandas'} & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
