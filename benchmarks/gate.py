"""What the gate and its intervals do by simulation: coverage, false promotions, failing models.

Nothing is trained: Dice is drawn from kinds of scores, of models whose truth is known. A champion
meets candidates that were each the best of fifty on ten validation patients, as a sweep leaves
them. The gate's own intervals and rules decide. Every figure of docs/architecture.md about the
gate is printed here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from segan_ray.evaluation.metrics.intervals import bootstrap_interval, expanded_interval, widened
from segan_ray.evaluation.scoring.gate import FAILED_DICE, level_of, passes

EXPERIMENTS: Final = 1000
MODELS: Final = 50
VALIDATION: Final = 10
RESAMPLES: Final = 1999
PATIENTS: Final = (6, 10, 20, 50)
TRIES: Final = 10
SHOWN: Final = (1, 3, 10)
GAIN: Final = 0.03
RARE: Final = 0.05
"""In which share of patients a model fails that fails rarely: one in twenty."""

Dice = np.ndarray
"""Dice of (experiment, patient, region), from 0 to 1."""
Draw = Callable[[np.random.Generator, np.ndarray, int], Dice]
"""The scores of a model of some character, from 0 to 1, which each experiment has for itself, on
so many patients. Whatever its character, a model's expected Dice is the same."""


def correlated(
    rng: np.random.Generator, character: np.ndarray, patients: int, share: float = 0.5
) -> np.ndarray:
    """Return normal noise of three regions that have ``share`` of their variance in common."""
    common = rng.standard_normal((len(character), patients, 1))
    own = rng.standard_normal((len(character), patients, 3))
    return np.sqrt(share) * common + np.sqrt(1 - share) * own


def spread(character: np.ndarray) -> np.ndarray:
    """Return the standard deviation of a model's scores."""
    return 0.03 + 0.04 * character[:, None, None]


def normal(rng: np.random.Generator, character: np.ndarray, patients: int) -> Dice:
    """Return normally spread scores."""
    return 0.7 + spread(character) * correlated(rng, character, patients)


def one_region(rng: np.random.Generator, character: np.ndarray, patients: int) -> Dice:
    """Return scores of regions that say nearly the same."""
    return 0.7 + spread(character) * correlated(rng, character, patients, 0.95)


def heavy_tailed(rng: np.random.Generator, character: np.ndarray, patients: int) -> Dice:
    """Return Student's noise of two degrees of freedom, which has no variance."""
    tails = np.sqrt(rng.exponential(size=(len(character), patients, 1)))
    return 0.7 + spread(character) * correlated(rng, character, patients) / tails


def dice_like(rng: np.random.Generator, character: np.ndarray, patients: int) -> Dice:
    """Return scores near 0.9; some regions are missed, the small ones more often."""
    shape = (len(character), patients, 3)
    missed = rng.random(shape) < np.array([0.05, 0.1, 0.2])
    return np.where(missed, rng.beta(1, 15, shape), rng.beta(45, 5, shape))


def rarely_failing(rng: np.random.Generator, character: np.ndarray, patients: int) -> Dice:
    """Return scores near 0.9 but for one patient in twenty, of whom every region is missed."""
    shape = (len(character), patients, 3)
    missed = rng.random((len(character), patients, 1)) < RARE
    return np.where(missed, rng.beta(1, 15, shape), rng.beta(90, 10, shape))


def skewed(rng: np.random.Generator, character: np.ndarray, patients: int) -> Dice:
    """Return scores often a little above and now and then far below, or the other way round."""
    common = rng.exponential(size=(len(character), patients, 1))
    own = rng.exponential(size=(len(character), patients, 3))
    long_tail = 1 - (common + own) / 2
    return 0.7 + 0.05 * np.where(character < 0.5, -1, 1)[:, None, None] * long_tail


def often_equal(rng: np.random.Generator, character: np.ndarray, patients: int) -> Dice:
    """Return scores of which two in three patients get the same from every model."""
    other = rng.random((len(character), patients, 1)) < 1 / 3
    return 0.7 + 0.02 * np.round(correlated(rng, character, patients)) * other


DRAWS: Final[tuple[Draw, ...]] = (
    normal, one_region, heavy_tailed, dice_like, rarely_failing, skewed, often_equal,
)  # fmt: skip
TOLD: Final[tuple[Draw, ...]] = (normal, skewed, dice_like, rarely_failing)
"""The kinds of scores whose figures are printed; the tests ask about all."""


def best_of_many(rng: np.random.Generator, draw: Draw, experiments: int) -> np.ndarray:
    """Return the character of the model that does best on the patients of validation."""
    characters = rng.random((MODELS, experiments))
    scores = [draw(rng, character, VALIDATION).mean((1, 2)) for character in characters]
    chosen: np.ndarray = np.stack(scores).argmax(axis=0)
    return characters[chosen, np.arange(experiments)]


def promoted(
    candidate: Dice,
    champion: Dice,
    *,
    tries: int = 1,
    count_failures: bool = True,
    resamples: int = RESAMPLES,
) -> np.ndarray:
    """Tell of each experiment whether the gate promotes the candidate, as ``gate.judge`` would."""
    experiments, patients, _ = candidate.shape
    differences = candidate - champion
    columns = np.concatenate([differences.mean(2, keepdims=True), differences], axis=2)
    flat = columns.swapaxes(0, 1).reshape(patients, -1)
    intervals = expanded_interval(flat, resamples=resamples).reshape(experiments, 4, 2)
    overall, *regions = intervals.swapaxes(0, 1)
    means = columns[:, :, 0].mean(axis=1)
    better = passes(widened(overall, means, patients, level_of(tries)), np.stack(regions))
    failed, allowed = ((dice < FAILED_DICE).sum(axis=(1, 2)) for dice in (candidate, champion))
    return better & (failed <= allowed) if count_failures else better


def tried(
    draw: Draw,
    patients: int,
    *,
    experiments: int,
    tries: int = TRIES,
    gain: float = 0.0,
    widen: bool = True,
    count_failures: bool = True,
    seed: int = 0,
) -> np.ndarray:
    """Return which tries on the same patients against one champion pass, (try, experiment).

    Each candidate is another best of ``MODELS``, in truth better than the champion by ``gain``.
    """
    rng = np.random.default_rng(seed)
    champion = draw(rng, rng.random(experiments), patients)
    return np.stack(
        [
            promoted(
                draw(rng, best_of_many(rng, draw, experiments), patients) + gain,
                champion,
                tries=number if widen else 1,
                count_failures=count_failures,
            )
            for number in range(1, tries + 1)
        ]
    )


@dataclass(frozen=True)
class Failing:
    """A model that misses ``regions`` of some patients, a share ``rate``, and gains in the others.

    ``worth`` is what it gains on average over what it loses: at 1 it is no better.
    """

    name: str
    regions: int
    worth: float
    rate: float = RARE

    def scores(
        self, rng: np.random.Generator, experiments: int, patients: int
    ) -> tuple[Dice, Dice]:
        """Return its scores, and those of a champion that never fails."""
        shape = (experiments, patients, 3)
        champion = rng.beta(90, 10, shape)
        lost = self.rate * (0.9 - 1 / 41) * self.regions / 3
        noise = 0.01 * rng.standard_normal(shape)
        candidate = champion + self.worth * lost / (1 - self.rate * self.regions / 3) + noise
        patient_fails = rng.random((experiments, patients, 1)) < self.rate
        fails = patient_fails & (np.arange(3) >= 3 - self.regions)
        return np.where(fails, rng.beta(1, 40, shape), candidate), champion


FAILING: Final = (
    Failing("all regions missed in 1 of 10, no better on average", 3, 1.0, 0.1),
    Failing("all regions missed in 1 of 20, no better on average", 3, 1.0),
    Failing("all regions missed in 1 of 50, no better on average", 3, 1.0, 0.02),
    Failing("one region missed in 1 of 20, no better on average", 1, 1.0),
    Failing("one region missed in 1 of 20, gains twice what it loses", 1, 2.0),
)


def coverage(draw: Draw, patients: int, experiments: int) -> dict[str, float]:
    """Return how often plain and expanded 95% intervals hold the true mean of the third region."""
    rng = np.random.default_rng(1)
    truth = draw(rng, np.full(1, 0.5), 1_000_000)[..., 2].mean()
    values = draw(rng, np.full(experiments, 0.5), patients)[..., 2].T
    plain = bootstrap_interval(values, seed=0, resamples=RESAMPLES)
    expanded = expanded_interval(values, resamples=RESAMPLES)
    return {
        name: float(((limits[:, 0] <= truth) & (truth <= limits[:, 1])).mean())
        for name, limits in (("plain", plain), ("expanded", expanded))
    }


def measure(experiments: int, patients: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
    """Return all figures, a row for each kind of scores and number of patients."""
    kinds = [(draw, count) for draw in TOLD for count in patients]
    return {
        "coverage": [
            {"scores": draw.__name__, "patients": count, **coverage(draw, count, experiments)}
            for draw, count in kinds
        ],
        "tries": [_tries(draw, count, experiments) for draw, count in kinds],
        "failing": [_failing(model, count, experiments) for model in FAILING for count in patients],
    }


def _tries(draw: Draw, patients: int, experiments: int) -> dict[str, Any]:
    """Return false promotions after so many tries, and the chance of a true gain at each."""
    same = {
        "before": tried(draw, patients, experiments=experiments, widen=False, count_failures=False),
        "now": tried(draw, patients, experiments=experiments),
    }
    better = tried(draw, patients, experiments=experiments, gain=GAIN)
    row: dict[str, Any] = {"scores": draw.__name__, "patients": patients}
    for name, passed in same.items():
        ever = np.maximum.accumulate(passed, axis=0).mean(axis=1)
        row |= {f"false {name}, {tries}": float(ever[tries - 1]) for tries in SHOWN}
    return row | {f"gain, try {tries}": float(better[tries - 1].mean()) for tries in SHOWN}


def _failing(model: Failing, patients: int, experiments: int) -> dict[str, Any]:
    candidate, champion = model.scores(np.random.default_rng(2), experiments, patients)
    rates = {
        name: float(promoted(candidate, champion, count_failures=counted).mean())
        for name, counted in (("intervals alone", False), ("failures counted", True))
    }
    return {"model": model.name, "patients": patients, **rates}


def main() -> None:
    """Simulate and print the tables, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=EXPERIMENTS)
    parser.add_argument("--smoke", action="store_true", help="only see that it runs: no figures")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    experiments, patients = (20, (6,)) if options.smoke else (options.experiments, PATIENTS)
    found = measure(experiments, patients)
    if options.smoke:
        print("smoke: ran, no figures")
        return
    if options.json:
        # Nothing is timed, so neither the device nor its load changes a figure.
        detail = {"experiments": experiments, **found}
        print(json.dumps({"device": "any", "ratios": {}, "detail": detail}, indent=1))
        return
    for name, rows in found.items():
        print(f"\n{name}, % of {experiments} experiments\n| {' | '.join(rows[0])} |")
        print("| " + " | ".join("---" for _ in rows[0]) + " |")
        for row in rows:
            cells = (f"{100 * x:.1f}" if isinstance(x, float) else str(x) for x in row.values())
            print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
