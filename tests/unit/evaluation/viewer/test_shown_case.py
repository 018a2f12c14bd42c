"""The voxels of a page: where they lie, how grey they are, which regions hold them."""

from __future__ import annotations

import numpy as np
import pytest

from segan_ray.brats import CODE_2017_TO_2021, CODE_2024, CODE_MSD
from segan_ray.data.io.volumes import Volume
from segan_ray.evaluation.viewer.shown_case import ShownCase, shown_case

GRID = (12, 14, 10)
AFFINE = np.array([[-1.0, 0, 0.1, 30], [0, -2, 0, 40], [0, 0.1, 3, -50], [0, 0, 0, 1]])


def volume(label: np.ndarray | None = None) -> Volume:
    """Four scans of one brain in the middle of a grid, each with other numbers."""
    image = np.zeros((4, *GRID), np.float32)
    rng = np.random.default_rng(0)
    for index, scan in enumerate(image):
        scan[3:9, 4:11, 2:8] = rng.uniform(10, 20 + index, (6, 7, 6))
    return Volume(image, label, AFFINE)


def shown(label: np.ndarray | None = None, prediction: np.ndarray | None = None) -> ShownCase:
    return shown_case(volume(label), prediction, CODE_2017_TO_2021)


def at(voxel: tuple[int, int, int], value: int) -> np.ndarray:
    label = np.zeros(GRID, np.uint8)
    label[voxel] = value
    return label


def test_the_box_holds_the_brain_and_both_maps_where_they_were() -> None:
    case = shown(at((5, 6, 4), 4), at((10, 6, 4), 1))
    assert case.grid == GRID
    assert {scan.shape for scan in case.scans.values()} == {(8, 7, 6)}
    for name, voxel in (("truth", (5, 6, 4)), ("prediction", (10, 6, 4))):
        (place,) = np.argwhere(case.maps[name])
        expected = AFFINE @ [*voxel, 1]
        np.testing.assert_allclose(case.affine @ [*place, 1], expected)
    np.testing.assert_allclose(case.start_mm, (AFFINE @ [5, 6, 4, 1])[:3])


def test_greys_keep_the_order_of_the_voxels_and_spare_the_background() -> None:
    for scan, source in zip(shown().scans.values(), volume().image, strict=True):
        inside = source[3:9, 4:11, 2:8].ravel()
        greys = scan.ravel()[np.argsort(inside)]
        assert (greys[0], greys[-1]) == (1, 255)
        assert (np.diff(greys.astype(int)) >= 0).all()
    case = shown(at((0, 0, 0), 2))
    assert case.scans["t1"].shape == (9, 11, 8)
    assert case.scans["t1"][:3].max() == 0


def test_a_background_in_the_middle_of_the_values_is_black() -> None:
    given = volume()
    image = np.where(given.image > 0, given.image - 15, 0)
    case = shown_case(Volume(image, at((0, 0, 0), 2), AFFINE), None, CODE_2017_TO_2021)
    assert case.scans["t2"][0, 0, 0] == 0
    assert (case.scans["t2"][3:, 4:, 2:] > 0).all()


def test_a_scan_of_one_value_is_white() -> None:
    given = volume()
    case = shown_case(
        Volume((given.image > 0).astype(np.float32), None, AFFINE), None, CODE_2017_TO_2021
    )
    assert set(np.unique(case.scans["flair"])) == {255}


@pytest.mark.parametrize(
    ("code", "depths"),
    [
        (CODE_2017_TO_2021, {1: 2, 2: 1, 4: 3}),
        (CODE_2024, {1: 2, 2: 1, 3: 3, 4: 0}),
        (CODE_MSD, {1: 1, 2: 2, 3: 3}),
    ],
)
def test_maps_are_the_depth_of_the_regions_in_every_code(code, depths) -> None:
    label = np.zeros(GRID, np.uint8)
    for place, value in enumerate(depths):
        label[4, 5, 3 + place] = value
    case = shown_case(volume(label), None, code)
    assert [int(depth) for depth in case.maps["truth"][1, 1, 1 : 1 + len(depths)]] == [
        *depths.values()
    ]


def test_regions_are_counted_in_millilitres() -> None:
    label = np.zeros(GRID, np.uint8)
    label[4:6, 5, 3:6] = 2
    label[4, 5, 3] = 4
    millilitres = shown(label).millilitres("truth")
    voxel = float(np.prod(np.linalg.norm(AFFINE[:3, :3], axis=0))) / 1000
    assert millilitres == pytest.approx({"whole": 6 * voxel, "core": voxel, "enhancing": voxel})


def test_without_tumour_the_view_begins_in_the_middle() -> None:
    middle = (AFFINE @ [3 + 3, 4 + 3, 2 + 3, 1])[:3]
    np.testing.assert_allclose(shown().start_mm, middle)
    np.testing.assert_allclose(shown(np.zeros(GRID, np.uint8)).start_mm, middle)
