from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segan_ray.brats import (
    CODE_2017_TO_2021,
    CODE_2023,
    CODE_2024,
    CODE_MSD,
    CODE_UNTIL_2015,
    LabelCode,
    as_written,
)

CODES = (CODE_UNTIL_2015, CODE_2017_TO_2021, CODE_2023, CODE_2024, CODE_MSD)


@pytest.mark.parametrize(
    ("code", "whole", "core", "enhancing"),
    [
        (CODE_UNTIL_2015, [1, 2, 3, 4], [1, 3, 4], [4]),
        (CODE_2017_TO_2021, [1, 2, 4], [1, 4], [4]),
        (CODE_2023, [1, 2, 3], [1, 3], [3]),
        (CODE_2024, [1, 2, 3], [1, 3], [3]),
        (CODE_MSD, [1, 2, 3], [2, 3], [3]),
    ],
)
def test_regions_of_each_year(code: LabelCode, whole: list, core: list, enhancing: list) -> None:
    label = np.arange(5, dtype=np.uint8)
    for actual, expected in zip(code.regions(label), (whole, core, enhancing), strict=True):
        assert np.flatnonzero(actual).tolist() == expected


@given(st.sampled_from(CODES), arrays(np.uint8, (3, 4, 2), elements=st.integers(0, 4)))
def test_regions_are_nested(code: LabelCode, label: np.ndarray) -> None:
    whole, core, enhancing = code.regions(label)
    assert not (core & ~whole).any()
    assert not (enhancing & ~core).any()


@given(st.sampled_from(CODES), arrays(np.uint8, (3, 4, 2), elements=st.integers(0, 5)))
def test_a_voxel_is_in_a_region_exactly_if_its_value_is(code: LabelCode, label: np.ndarray) -> None:
    for values, actual in zip(
        (code.whole, code.core, code.enhancing), code.regions(label), strict=True
    ):
        assert values <= set(code.names)
        for value, inside in zip(label.flat, actual.flat, strict=True):
            assert inside == (int(value) in values)


@given(st.sampled_from(CODES), arrays(np.uint8, (3, 4, 2), elements=st.integers(0, 3)))
def test_regions_survive_being_written_as_labels(code: LabelCode, deepest: np.ndarray) -> None:
    regions = np.stack([deepest >= 1, deepest >= 2, deepest >= 3])
    label = code.labels(regions)
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(code.regions(label), regions)


@pytest.mark.parametrize(
    ("code", "edema", "core", "enhancing"),
    [
        (CODE_UNTIL_2015, 2, 1, 4),
        (CODE_2017_TO_2021, 2, 1, 4),
        (CODE_2023, 2, 1, 3),
        (CODE_2024, 2, 1, 3),
        (CODE_MSD, 1, 2, 3),
    ],
)
def test_labels_of_each_year(code: LabelCode, edema: int, core: int, enhancing: int) -> None:
    # Nothing, edema, core, enhancing; then core and enhancing that no wider region holds.
    whole = [0, 1, 1, 1, 0, 0]
    regions = np.array([whole, [0, 0, 1, 1, 1, 0], [0, 0, 0, 1, 0, 1]], dtype=bool)
    assert code.labels(regions).tolist() == [0, edema, core, enhancing, core, enhancing]


@given(st.sampled_from(CODES), arrays(bool, (3, 3, 4, 2)))
def test_maps_that_are_not_nested_become_those_of_their_label_map(
    code: LabelCode, regions: np.ndarray
) -> None:
    written = as_written(regions)
    np.testing.assert_array_equal(written, code.regions(code.labels(regions)))
    np.testing.assert_array_equal(as_written(written), written)
