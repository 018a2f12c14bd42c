from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segan_ray.data.splits import SPLITS, SplitSettings, split_patients, split_settings
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


def test_no_gate_is_possible() -> None:
    grades = dict.fromkeys("abcdefgh", None)
    assert split_patients(grades, SplitSettings(gate=0))["gate"] == ()


@pytest.mark.parametrize("patients", [1, 2, 3])
def test_too_few_patients(patients: int) -> None:
    grades = {f"p{index}": None for index in range(patients)}
    with pytest.raises(SplitError, match="too few"):
        split_patients(grades, SplitSettings())


def test_shares_that_leave_nobody() -> None:
    with pytest.raises(SplitError, match="below 1"):
        split_patients({"a": None}, SplitSettings(val=0.5, gate=0.3, test=0.2))


def test_a_share_out_of_range_is_named() -> None:
    with pytest.raises(SplitError, match=r"--val 1\.5"):
        split_settings(val=1.5, gate=0.1, test=0.1, seed=0)
