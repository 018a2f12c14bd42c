"""Intervals over patients and seeds."""

from __future__ import annotations

import numpy as np
import pytest

from segan_ray.evaluation.metrics.intervals import intervals_if_enough
from segan_ray.evaluation.metrics.mixed_interval import difference_intervals, mean_intervals


def scores(rng: np.random.Generator, *, seeds: int, patients: int, of_seed: float) -> np.ndarray:
    """Draw scores with effects of patients and seeds, and some that is neither; the mean is 0."""
    patient = rng.normal(0, 0.1, (1, patients, 1))
    seed = rng.normal(0, of_seed, (seeds, 1, 1))
    return patient + seed + rng.normal(0, 0.05, (seeds, patients, 1))


def test_alike_seeds_leave_the_interval_of_the_patients() -> None:
    rng = np.random.default_rng(0)
    one = np.repeat(rng.random((1, 12, 2)), 3, axis=0)
    other = np.repeat(rng.random((1, 12, 2)), 4, axis=0)
    assert np.allclose(mean_intervals(one), intervals_if_enough(one[0]))  # type: ignore[arg-type]
    assert np.allclose(
        difference_intervals(one, other),  # type: ignore[arg-type]
        intervals_if_enough(one[0] - other[0]),  # type: ignore[arg-type]
    )


def test_seeds_that_differ_widen_it() -> None:
    rng = np.random.default_rng(1)
    one = np.repeat(rng.random((1, 12, 1)), 3, axis=0)
    ((low, high),) = mean_intervals(one)  # type: ignore[misc]
    ((lower, higher),) = mean_intervals(one + np.array([-0.1, 0, 0.1])[:, None, None])  # type: ignore[misc]
    assert lower < low
    assert higher > high
    # Student's quantile of two degrees of freedom, times 0.1 / √3.
    half = 4.3027 * 0.1 / np.sqrt(3)
    mean = one.mean()
    assert lower == pytest.approx(mean - np.hypot(mean - low, half), rel=1e-3)


def test_a_single_seed_or_few_patients_have_none() -> None:
    rng = np.random.default_rng(2)
    assert mean_intervals(rng.random((1, 12, 2))) == [None, None]
    assert mean_intervals(rng.random((3, 5, 2))) == [None, None]
    assert difference_intervals(rng.random((3, 12, 1)), rng.random((1, 12, 1))) == [None]


@pytest.mark.parametrize("of_seed", [0.0, 0.05])
def test_it_holds_the_truth_as_often_as_it_says(of_seed: float) -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        one, other = (scores(rng, seeds=5, patients=20, of_seed=of_seed) for _ in range(2))
        # Paired: both methods meet the same patients.
        shared = rng.normal(0, 0.2, (1, 20, 1))
        ((low, high),) = difference_intervals(one + shared, other + shared)  # type: ignore[misc]
        held += low <= 0 <= high
    assert held / 200 > 0.92
