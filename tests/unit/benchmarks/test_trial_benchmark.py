"""What `benchmarks/trial_overhead.py` tells of trials, however few there are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from trial_overhead import Side, apart, describe


@pytest.mark.parametrize(
    ("starts_s", "start_s", "quartiles_s"),
    [
        ([2.5], 2.5, [2.5, 2.5]),
        ([9.0, 2.5], 2.5, [2.5, 2.5]),
        ([9.0, 1.0, 2.0, 3.0], 2.0, [1.0, 3.0]),
    ],
)
def test_a_steady_start_is_any_but_the_first_if_there_are_more(
    starts_s: list[float], start_s: float, quartiles_s: list[float]
) -> None:
    side = Side([0.0] * len(starts_s), starts_s, 10.0, apart(starts_s))
    row = describe(side)
    assert row["start_s"] == start_s
    assert row["start_quartiles_s"] == quartiles_s
    assert row["first_start_s"] == starts_s[0]
