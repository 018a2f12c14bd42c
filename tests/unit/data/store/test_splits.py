from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segan_ray.data.store.splits import (
    SPLITS,
    SplitSettings,
    split_folds,
    split_patients,
    split_settings,
)
from segan_ray.errors import SplitError

GRADES = st.sampled_from(["HGG", "LGG", None])
PATIENTS = st.dictionaries(st.text(min_size=1, max_size=8), GRADES, min_size=8, max_size=60)


@given(PATIENTS, st.integers(0, 5))
def test_every_patient_is_on_exactly_one_side(grades: dict, seed: int) -> None:
    split = split_patients(grades, SplitSettings(seed=seed))
    sides = [patient for name in SPLITS for patient in split[name]]
    assert sorted(sides) == sorted(grades)
    assert all(split[name] for name in SPLITS)


@given(PATIENTS, st.randoms())
def test_the_order_of_patients_does_not_matter(grades: dict, random) -> None:
    shuffled = list(grades.items())
    random.shuffle(shuffled)
    assert split_patients(dict(shuffled), SplitSettings()) == split_patients(
        grades, SplitSettings()
    )


def test_another_seed_makes_another_split() -> None:
    grades = dict.fromkeys((f"p{index}" for index in range(40)), None)
    assert split_patients(grades, SplitSettings(seed=0)) != split_patients(
        grades, SplitSettings(seed=1)
    )


def test_grades_are_held_in_proportion() -> None:
    grades = {f"h{index:02d}": "HGG" for index in range(60)}
    grades |= {f"l{index:02d}": "LGG" for index in range(20)}
    split = split_patients(grades, SplitSettings(val=0.2, gate=0.2, test=0.2))
    for name in SPLITS:
        low = sum(patient.startswith("l") for patient in split[name])
        assert abs(low / len(split[name]) - 0.25) < 0.1


@given(PATIENTS, st.integers(0, 5))
def test_each_side_holds_each_grade_within_one_of_its_share(grades: dict, seed: int) -> None:
    split = split_patients(grades, SplitSettings(seed=seed))
    for grade in set(grades.values()):
        share = sum(other == grade for other in grades.values()) / len(grades)
        for patients in split.values():
            held = sum(grades[patient] == grade for patient in patients)
            assert abs(held - share * len(patients)) < 1


@given(PATIENTS, st.integers(2, 8), st.integers(0, 5))
def test_folds_partition_the_patients(grades: dict, count: int, seed: int) -> None:
    folds = split_folds(grades, count, seed)
    assert len(folds) == count
    assert sorted(patient for fold in folds for patient in fold.val) == sorted(grades)
    for fold in folds:
        assert sorted([*fold.train, *fold.val]) == sorted(grades)
        assert fold.train
        assert fold.val
    for grade in set(grades.values()):
        held = [sum(grades[patient] == grade for patient in fold.val) for fold in folds]
        assert max(held) - min(held) <= 1


@given(PATIENTS, st.randoms())
def test_the_order_of_patients_does_not_matter_to_folds(grades: dict, random) -> None:
    shuffled = list(grades.items())
    random.shuffle(shuffled)
    assert split_folds(dict(shuffled), 3, 0) == split_folds(grades, 3, 0)


def test_more_folds_than_patients() -> None:
    with pytest.raises(SplitError, match=r"expected at least 5 patients .* found 2"):
        split_folds({"a": None, "b": "HGG"}, 5, 0)


def test_a_single_fold_is_no_fold() -> None:
    with pytest.raises(SplitError, match="--folds 1: expected 2 or more"):
        split_settings(val=0.1, gate=0.1, test=0.1, seed=0, folds=1)


def test_no_gate_is_possible() -> None:
    grades = dict.fromkeys("abcdefgh", None)
    assert split_patients(grades, SplitSettings(gate=0))["gate"] == ()


@pytest.mark.parametrize("patients", [1, 2, 3])
def test_too_few_patients(patients: int) -> None:
    grades = {f"p{index}": None for index in range(patients)}
    with pytest.raises(SplitError, match="too few"):
        split_patients(grades, SplitSettings())


def test_shares_that_leave_no_patient_to_train_on() -> None:
    with pytest.raises(SplitError, match="below 1"):
        split_patients({"a": None}, SplitSettings(val=0.5, gate=0.3, test=0.2))


def test_a_share_out_of_range_is_named() -> None:
    with pytest.raises(SplitError, match=r"--val 1\.5"):
        split_settings(val=1.5, gate=0.1, test=0.1, seed=0)
