"""Checks of arrays: no property of a file, only of voxels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segan_ray.brats import CODE_2017_TO_2021, CODE_2023, CODE_2024, CODE_MSD, CODE_UNTIL_2015
from segan_ray.data.checks import (
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
