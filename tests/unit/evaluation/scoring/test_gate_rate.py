"""How often the gate promotes models that are no better, by simulation.

An experiment draws a champion and fifty candidates that are equal in truth, picks the best by the
patients of validation, and asks the gate's own intervals and rules about other patients. Equal is
that their expected Dice is; they may differ in how much it varies. The figures in the docs are
those of ``benchmarks/gate.py``, which the draws are from.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).parents[4] / "benchmarks"))

from gate import (
    DRAWS,
    FAILING,
    Draw,
    Failing,
    best_of_many,
    coverage,
    dice_like,
    main,
    normal,
    promoted,
    rarely_failing,
    tried,
)

from segan_ray.evaluation.metrics.intervals import RESAMPLES
from segan_ray.evaluation.scoring.gate import judge
from tests.unit.evaluation.scoring.test_gate import scores

pytestmark = pytest.mark.slow

EXPERIMENTS = 2000
AT_MOST = 0.05
PATIENTS = (6, 8, 10, 20, 50)
FEW = 400
"""How many experiments of ten tries each are made; they take ten times as long."""


def most(experiments: int, rate: float = AT_MOST) -> int:
    """Return how many passes chance leaves to a gate of that rate in 99.9% of runs.

    Of 2000 experiments who promotes 5% of equals is let through, and who promotes 6.6% fails in
    half of them, and a plain percentile interval (6 to 9% at six patients) in most.
    """
    return int(binom.ppf(0.999, experiments, rate))


def once(draw: Draw, patients: int, better_by: float = 0.0, *, count_failures: bool) -> int:
    """Return how many experiments end with a promotion of the best of fifty at the first try."""
    rng = np.random.default_rng(0)
    candidate = draw(rng, best_of_many(rng, draw, EXPERIMENTS), patients) + better_by
    champion = draw(rng, rng.random(EXPERIMENTS), patients)
    return int(promoted(candidate, champion, count_failures=count_failures).sum())


@pytest.mark.parametrize("patients", PATIENTS[:3])
@pytest.mark.parametrize("draw", DRAWS)
def test_the_best_of_fifty_equals_is_rarely_promoted(draw: Draw, patients: int) -> None:
    # By the intervals alone: to count failures as well promotes fewer still.
    assert once(draw, patients, count_failures=False) <= most(EXPERIMENTS)


@pytest.mark.parametrize("patients", PATIENTS[3:])
@pytest.mark.parametrize("draw", DRAWS)
def test_nor_with_many_patients(draw: Draw, patients: int) -> None:
    assert once(draw, patients, count_failures=False) <= most(EXPERIMENTS)


def test_a_better_model_has_a_fair_chance() -> None:
    chances = [
        once(normal, patients, 0.05, count_failures=True) / EXPERIMENTS for patients in PATIENTS[:3]
    ]
    assert chances == sorted(chances)
    assert chances[0] > 0.3
    assert chances[-1] > 0.6


@pytest.mark.parametrize("draw", [normal, dice_like, rarely_failing])
def test_ten_tries_on_the_same_patients_promote_as_rarely(draw: Draw) -> None:
    passed = tried(draw, 6, experiments=FEW, count_failures=False)
    assert passed.any(axis=0).sum() <= most(FEW)
    # The first try is as it would be alone, and the others make little of that.
    assert passed[0].sum() > passed[1:].sum(axis=1).max()


@pytest.mark.parametrize("patients", PATIENTS[2:4])
@pytest.mark.parametrize("draw", DRAWS)
def test_nor_do_ten_tries_on_more_patients(draw: Draw, patients: int) -> None:
    passed = tried(draw, patients, experiments=FEW, count_failures=False)
    assert passed.any(axis=0).sum() <= most(FEW)


def test_without_widening_ten_tries_would_promote_many() -> None:
    passed = tried(normal, 6, experiments=FEW, widen=False)
    assert passed.any(axis=0).sum() > 2 * most(FEW)


def test_the_tenth_try_is_not_hopeless() -> None:
    chances = tried(normal, 50, experiments=FEW, gain=0.05).mean(axis=1)
    assert chances[0] > 0.99
    assert chances[-1] > 0.8


@pytest.mark.parametrize("model", FAILING)
def test_failures_that_show_are_counted(model: Failing) -> None:
    candidate, champion = model.scores(np.random.default_rng(0), 300, 50)
    alone = promoted(candidate, champion, count_failures=False)
    counted = promoted(candidate, champion)
    assert not (counted & ~alone).any()
    # No champion here fails, so that none that is seen to fail may pass.
    unseen = (candidate >= 0.1).all(axis=(1, 2))
    assert not counted[~unseen].any()
    assert unseen.mean() == pytest.approx((1 - model.rate) ** 50, abs=0.08)


def test_what_six_patients_do_not_show_is_not_known() -> None:
    (model,) = (one for one in FAILING if (one.regions, one.rate) == (3, 0.05))
    candidate, champion = model.scores(np.random.default_rng(0), 1000, 6)
    unseen = (candidate >= 0.1).all(axis=(1, 2))
    passed = promoted(candidate, champion)
    assert passed[unseen].mean() > 0.9
    assert unseen.mean() == pytest.approx(0.95**6, abs=0.04)


@pytest.mark.parametrize("tries", [1, 4])
def test_the_simulation_decides_as_the_gate_does(tries: int) -> None:
    rng = np.random.default_rng(5)
    candidate = rarely_failing(rng, np.zeros(30), 8) + 0.05 * rng.random((30, 1, 1))
    champion = rarely_failing(rng, np.zeros(30), 8)
    simulated = promoted(candidate, champion, tries=tries, resamples=RESAMPLES)
    judged = [
        judge(scores(ours), scores(theirs), tries=tries).verdict == "promoted"
        for ours, theirs in zip(candidate, champion, strict=True)
    ]
    assert list(simulated) == judged
    assert 0 < sum(judged) < 30


def test_the_expanded_interval_covers_better_where_failures_are_not_rare() -> None:
    covered = coverage(normal, 6, EXPERIMENTS)
    assert covered["plain"] < 0.89
    assert covered["expanded"] > 0.93
    # Of six patients 74% show no failure, and no interval knows of it.
    assert coverage(rarely_failing, 6, EXPERIMENTS)["expanded"] < 0.5


def test_the_benchmark_prints_its_tables(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["gate.py", "--experiments", "5"])
    main()
    shown = capsys.readouterr().out
    assert "| normal | 6 |" in shown
    assert f"| {FAILING[-1].name} | 6 |" in shown
