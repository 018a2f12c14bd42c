"""How often the gate promotes the best of fifty models that are no better, by simulation.

An experiment draws a champion and fifty candidates that are equal in truth, picks the best by the
patients of validation, and asks the gate's own interval and rule about other patients. Equal is
that their expected Dice is; they may differ in how much it varies.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom

from segan_ray.evaluation.gate import passes
from segan_ray.evaluation.intervals import expanded_interval as paired_interval

EXPERIMENTS = 2000
MODELS = 50
VALIDATION = 10
RESAMPLES = 1999
AT_MOST = 0.05
PATIENTS = (6, 8, 10, 20, 50)
# Whoever promotes 5% of equals is let through in 99.9% of runs; whoever promotes 6.6% fails in
# half, and a plain percentile interval (6 to 9% at six patients) in most of them.
MOST_PROMOTED = int(binom.ppf(0.999, EXPERIMENTS, AT_MOST))

Draw = Callable[[np.random.Generator, np.ndarray, int], np.ndarray]
"""Dice of (experiment, patient, region) of a model of some character, from 0 to 1, which each
experiment has for itself. Whatever its character, a model's expected Dice is the same."""


def correlated(
    rng: np.random.Generator, character: np.ndarray, patients: int, share: float = 0.5
) -> np.ndarray:
    """Return normal noise of three regions that have ``share`` of their variance in common."""
    common = rng.standard_normal((len(character), patients, 1))
    own = rng.standard_normal((len(character), patients, 3))
    return np.sqrt(share) * common + np.sqrt(1 - share) * own


def spread(character: np.ndarray) -> np.ndarray:
    return 0.03 + 0.04 * character[:, None, None]


def normal(rng: np.random.Generator, character: np.ndarray, patients: int) -> np.ndarray:
    return 0.7 + spread(character) * correlated(rng, character, patients)


def one_region(rng: np.random.Generator, character: np.ndarray, patients: int) -> np.ndarray:
    """Regions that say nearly the same."""
    return 0.7 + spread(character) * correlated(rng, character, patients, 0.95)


def heavy_tailed(rng: np.random.Generator, character: np.ndarray, patients: int) -> np.ndarray:
    """Student's noise of two degrees of freedom, which has no variance."""
    tails = np.sqrt(rng.exponential(size=(len(character), patients, 1)))
    return 0.7 + spread(character) * correlated(rng, character, patients) / tails


def dice_like(rng: np.random.Generator, character: np.ndarray, patients: int) -> np.ndarray:
    """Most near 0.9; some regions are missed, the small ones more often."""
    shape = (len(character), patients, 3)
    missed = rng.random(shape) < np.array([0.05, 0.1, 0.2])
    return np.where(missed, rng.beta(1, 15, shape), rng.beta(45, 5, shape))


def rarely_failing(rng: np.random.Generator, character: np.ndarray, patients: int) -> np.ndarray:
    """Near 0.9 but for one patient in twenty, of whom every region is missed."""
    shape = (len(character), patients, 3)
    missed = rng.random((len(character), patients, 1)) < 0.05
    return np.where(missed, rng.beta(1, 15, shape), rng.beta(90, 10, shape))


def skewed(rng: np.random.Generator, character: np.ndarray, patients: int) -> np.ndarray:
    """Often a little better than its mean and now and then much worse, or the other way round."""
    common = rng.exponential(size=(len(character), patients, 1))
    own = rng.exponential(size=(len(character), patients, 3))
    long_tail = 1 - (common + own) / 2
    return 0.7 + 0.05 * np.where(character < 0.5, -1, 1)[:, None, None] * long_tail


def often_equal(rng: np.random.Generator, character: np.ndarray, patients: int) -> np.ndarray:
    """Two in three patients get the same score from every model."""
    other = rng.random((len(character), patients, 1)) < 1 / 3
    return 0.7 + 0.02 * np.round(correlated(rng, character, patients)) * other


def best_of_many(rng: np.random.Generator, draw: Draw) -> np.ndarray:
    """Return the character of the model that does best on the patients of validation."""
    characters = rng.random((MODELS, EXPERIMENTS))
    scores = [draw(rng, character, VALIDATION).mean((1, 2)) for character in characters]
    chosen: np.ndarray = np.stack(scores).argmax(axis=0)
    return characters[chosen, np.arange(EXPERIMENTS)]


def promoted(draw: Draw, patients: int, better_by: float = 0.0, seed: int = 0) -> int:
    """Return how many experiments end with a promotion of the best of ``MODELS``."""
    rng = np.random.default_rng(seed)
    candidate = draw(rng, best_of_many(rng, draw), patients)
    champion = draw(rng, rng.random(EXPERIMENTS), patients)
    differences = candidate + better_by - champion
    columns = np.concatenate([differences.mean(2, keepdims=True), differences], axis=2)
    intervals = paired_interval(columns.swapaxes(0, 1).reshape(patients, -1), resamples=RESAMPLES)
    overall, *regions = intervals.reshape(EXPERIMENTS, 4, 2).swapaxes(0, 1)
    return int(passes(overall, np.stack(regions)).sum())


DRAWS = (normal, one_region, heavy_tailed, dice_like, rarely_failing, skewed, often_equal)


@pytest.mark.parametrize("patients", PATIENTS[:3])
@pytest.mark.parametrize("draw", DRAWS)
def test_the_best_of_fifty_equals_is_rarely_promoted(draw: Draw, patients: int) -> None:
    assert promoted(draw, patients) <= MOST_PROMOTED


@pytest.mark.slow
@pytest.mark.parametrize("patients", PATIENTS[3:])
@pytest.mark.parametrize("draw", DRAWS)
def test_nor_with_many_patients(draw: Draw, patients: int) -> None:
    assert promoted(draw, patients) <= MOST_PROMOTED


def test_a_better_model_has_a_fair_chance() -> None:
    chances = [promoted(normal, patients, 0.05) / EXPERIMENTS for patients in PATIENTS[:3]]
    assert chances == sorted(chances)
    assert chances[0] > 0.3
    assert chances[-1] > 0.6
