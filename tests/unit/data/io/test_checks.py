"""Checks of voxels in arrays, without files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segan_ray.brats import CODE_2017_TO_2021, CODE_2023, CODE_2024, CODE_MSD, CODE_UNTIL_2015
from segan_ray.data.io.voxel_checks import (
    as_labels,
    intensity_problems,
    label_problems,
    stripping_problems,
    truth_problems,
)
from tests.unit.malformed import BRAIN, HEAD, SHAPE, scans

CODES = (CODE_UNTIL_2015, CODE_2017_TO_2021, CODE_2023, CODE_2024, CODE_MSD)
VOXELS = hnp.arrays(
    np.float32,
    (2, 3, 2),
    elements=st.one_of(
        st.integers(-1, 6).map(float), st.sampled_from([0.5, 2.25, float("nan"), float("inf")])
    ),
)


@given(voxels=VOXELS, code=st.sampled_from(CODES))
def test_a_segmentation_is_good_when_each_voxel_is_in_the_code(voxels: np.ndarray, code) -> None:
    good = all(value in {0, *code.names} for value in voxels.ravel().tolist())
    assert (label_problems(voxels, code) == ()) == good


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ((0, 1.0039, 1.99216, 4), (0, 1, 2, 4)),  # 0, 64, 127, 255 times 4/255
        ((0, 0.98824, 2.0078, 4), (0, 1, 2, 4)),
        ((0, 1.0039, 2.0078, 4.0157), (0, 1, 2, 4)),
        ((0, 0.99608, 1.99216, 3.98432), (0, 1, 2, 4)),
        ((0.0039, 1.0039, 2.0039, 4.0039), (0, 1, 2, 4)),  # the intercept moves the background
        ((-0.0039, 1, 2, 4), (0, 1, 2, 4)),
        ((0, 1, 1.9999999, 2.0000002, 2, 4), (0, 1, 2, 2, 2, 4)),
        ((0, 1.00002, 1.99998, 4), (0, 1, 2, 4)),  # 16 bits
    ],
)
def test_labels_that_a_scale_moved_are_recovered(values, labels) -> None:
    voxels = np.array([[values]], dtype=np.float32)
    assert label_problems(voxels, CODE_2017_TO_2021) == ()
    actual = as_labels(voxels)
    assert actual.dtype == np.uint8
    np.testing.assert_array_equal(actual, [[labels]])


@pytest.mark.parametrize(
    "values",
    [
        (0, 0.5, 1),
        (0, 1.37, 2),
        (0, 1, 1.97),
        (0, 1.03, 2),
        (0, 0.99, 1),  # one voxel of a hundredth's shift
        (0, 0.01),
        (0.988, 1.0039),
        (0, 0.98, 1.02),
        (1.98, 1.981, 1.982),
    ],
)
def test_several_values_near_one_label_come_from_interpolation(values) -> None:
    voxels = np.array([[values]], dtype=np.float32)
    (problem,) = label_problems(voxels, CODE_2017_TO_2021)
    assert "no whole numbers" in problem
    assert "nearest neighbour" in problem


def test_a_moved_label_outside_the_code_is_unknown_not_interpolated() -> None:
    (problem,) = label_problems(np.array([[[0, 1.0039, 3.0118]]], np.float32), CODE_2017_TO_2021)
    assert "holds label 3; this layout knows" in problem


@given(
    labels=st.lists(st.sampled_from([0, 1, 2, 4]), min_size=1, max_size=30),
    stored=st.sampled_from([np.uint8, np.int16, np.uint16, np.float32]),
    top=st.integers(4, 6),
)
def test_labels_come_back_through_any_scale_that_fills_a_type(labels, stored, top) -> None:
    """Labels stored by a program that stretches 0 to ``top`` over all numbers of a type."""
    steps = np.iinfo(stored).max if np.issubdtype(stored, np.integer) else 1000
    slope = np.float32(top / steps)
    kept = np.rint(np.array(labels) / slope).astype(stored)
    voxels = (kept * slope).astype(np.float32).reshape(1, 1, -1)
    assert label_problems(voxels, CODE_2017_TO_2021) == ()
    assert as_labels(voxels).ravel().tolist() == labels


@given(voxels=VOXELS)
def test_a_scan_is_good_when_its_voxels_are_numbers_that_differ(voxels: np.ndarray) -> None:
    good = bool(np.isfinite(voxels).all()) and len(np.unique(voxels)) > 1
    assert (intensity_problems(voxels) == ()) == good


def test_a_scan_without_voxels() -> None:
    assert "holds no voxel at all" in intensity_problems(np.zeros((0, 2, 2), np.float32))[0]


def test_the_flag_is_not_named_where_it_cannot_help() -> None:
    four = np.array([[[0, 1, 4]]], dtype=np.float32)
    assert "--layout" not in label_problems(four, CODE_MSD)[0]
    five = np.array([[[0, 1, 5]]], dtype=np.float32)
    assert "--layout" not in label_problems(five, CODE_2023)[0]


@pytest.mark.parametrize(("label", "good"), [([0, 0], False), ([4, 4], False), ([0, 3], True)])
def test_a_cavity_alone_is_no_truth(label: list[int], good: bool) -> None:
    assert (truth_problems(np.array([[label]], dtype=np.uint8), CODE_2024) == ()) == good


def images(**shown: np.ndarray) -> dict:
    stripped = dict(zip(("t1", "t1ce", "t2", "flair"), scans(0).astype(np.float32), strict=True))
    return stripped | {name: mask.astype(np.float32) for name, mask in shown.items()}


def test_a_skull_in_one_modality_alone_is_found() -> None:
    assert stripping_problems(images()) == {}
    assert set(stripping_problems(images(t2=HEAD))) == {"t2"}
    assert set(stripping_problems(images(t2=np.ones(SHAPE)))) == {"t2"}


def test_a_modality_scanned_in_part_leaves_the_others_good() -> None:
    """Half the head is missing from two modalities: the two whole ones are no skulls."""
    half = BRAIN.copy()
    half[:, :, SHAPE[2] // 2 :] = False
    assert stripping_problems(images(t1=half)) == {}
    assert stripping_problems(images(t1=half, t2=half)) == {}


@given(
    parts=st.lists(st.floats(0, 1), min_size=2, max_size=2),
    order=st.permutations(["t1", "t1ce", "t2", "flair"]),
)
def test_no_skull_where_two_modalities_agree_and_hold_the_others(parts, order) -> None:
    noise = np.random.default_rng(0).random(SHAPE)
    masks = [HEAD, HEAD, *(HEAD & (noise < part) for part in parts)]
    assert stripping_problems(images(**dict(zip(order, masks, strict=True)))) == {}


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([1, 2, 4], "4 without any 3 may be the enhancing tumour of BRATS of 2017 to 2021"),
        ([1, 2, 3, 4], "until 2015, where 1 is core and 2 edema (then write 2 for 1, 1 for 2, 2"),
    ],
)
def test_labels_of_brats_under_the_decathlon_s_names(labels: list[int], words: str) -> None:
    (problem,) = label_problems(np.array([[[0, *labels]]], dtype=np.float32), CODE_MSD)
    assert words in problem


def shells(inner: int, outer: int) -> np.ndarray:
    """Return label 3 inside ``inner`` inside ``outer``."""
    distance = np.abs(np.indices((15, 15, 15)) - 7).max(axis=0)
    return np.select([distance < 2, distance < 4, distance < 6], [3, inner, outer]).astype(
        np.float32
    )


def test_which_label_lies_outside_is_looked_up_in_the_voxels() -> None:
    (problem,) = label_problems(shells(inner=2, outer=1), CODE_2017_TO_2021)
    assert "Here 1 lies outside, as nnU-Net and the Decathlon have it." in problem
    (problem,) = label_problems(shells(inner=1, outer=2), CODE_2017_TO_2021)
    assert "Here 2 lies outside, as BRATS itself has it." in problem
    (problem,) = label_problems(shells(inner=3, outer=3), CODE_2017_TO_2021)
    assert "Here neither 1 nor 2 clearly surrounds the other" in problem
    assert problem.count("then write 4") == 1, "never as the only advice"
