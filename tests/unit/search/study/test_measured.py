"""Constraints: which trials break them, what samplers are told, and who may win."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from segan_ray.errors import SweepError
from segan_ray.search.points.points import REUSED
from segan_ray.search.space.objectives import Constraint
from segan_ray.search.storage.warm_start import earlier_trials
from segan_ray.search.study.sweep_study import SweepStudy
from tests.unit.search.study.test_study import Sweep, space

pytestmark = pytest.mark.usefixtures("studies")

SIZE, TIME = "model/parameters", "time/epoch_s"
BOUNDS = [{"metric": SIZE, "max": 5e6}, {"metric": TIME, "max": 30.0}]
ASHA = {"type": "asha", "grace_period": 1, "reduction_factor": 2}


def bounded(**changes: Any) -> Any:
    return space(constraints=BOUNDS, **changes)


def metrics(size: float = 1e6, seconds: float = 10.0) -> dict[str, float]:
    return {SIZE: size, TIME: seconds, "val/dice_core": 0.5}


@pytest.mark.parametrize(
    ("bounds", "value", "violation"),
    [
        ({"max": 20}, 30.0, 0.5),
        ({"max": 20}, 20.0, 0.0),
        ({"min": 0.5}, 0.25, 0.5),
        ({"min": 0.0}, -2.0, 2.0),
        ({"min": 1, "max": 2}, 3.0, 0.5),
        ({"max": 20}, math.nan, 1.0),
    ],
)
def test_violations_are_shares_of_the_bound(bounds, value, violation) -> None:
    constraint = Constraint(metric=SIZE, **bounds)
    assert constraint.violation(value) == pytest.approx(violation)


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_a_value_within_its_bounds_breaks_nothing(a: float, b: float, c: float) -> None:
    low, value, high = sorted((a, b, c))
    assert Constraint(metric=SIZE, min=low, max=high).violation(value) <= 0
    if high < math.nextafter(high, math.inf) < math.inf:
        assert Constraint(metric=SIZE, max=high).violation(high + abs(high) + 1) > 0


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"metric": SIZE}, "has no bound"),
        ({"metric": SIZE, "min": 2, "max": 1}, "cannot be at least 2 and at most 1"),
        ({"metric": "model/parameter", "max": 1}, "no trial reports the metric"),
        ({"metric": SIZE, "max": math.inf}, "finite"),
    ],
)
def test_bounds_that_mean_nothing_are_refused(tree, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Constraint.model_validate(tree)


def test_what_follows_from_settings_ends_a_trial_and_the_rest_is_judged_at_its_best(
    tmp_path: Path,
) -> None:
    sweep = Sweep(tmp_path, bounded(scheduler=ASHA))
    large, slow, fast = (sweep.study.ask().number for _ in range(3))
    assert sweep.study.report(large, 1, 0.9, metrics=metrics(size=7.5e6)) == "stop"
    assert sweep.study.report(slow, 1, 0.5, metrics=metrics(seconds=60.0)) == "continue"
    # Among those that may win it is the best of two, the large one left out.
    assert sweep.study.report(fast, 1, 0.6, metrics=metrics(seconds=60.0)) == "continue"
    sweep.again().reopen()
    assert sweep.study.report(large, 1, 0.9) == "stop"
    sweep.study.report(fast, 2, 0.7, metrics=metrics())
    ends = [sweep.study.tell(number, "stopped") for number in (large, slow, fast)]
    assert [end.infeasible for end in ends] == [True, True, False]
    assert ends[0].reason == f"constraint broken: {SIZE} at most 5e+06, found 7.5e+06"
    assert ends[1].reason == f"constraint broken: {TIME} at most 30, found 60"
    assert ends[2].reason is None
    assert sweep.study.trials.scores(sweep.study.trials.values()) == {fast: [0.6, 0.7]}
    # In Optuna's own words, as its samplers read them.
    told = [trial.constraints for trial in sweep.trials]
    assert told[0] == {SIZE: pytest.approx(0.5), TIME: pytest.approx(-2 / 3)}
    assert told[1] == {SIZE: pytest.approx(-0.8), TIME: pytest.approx(1.0)}
    assert all(violation < 0 for violation in told[2].values())
    assert sweep.again().trials.ended()[large].infeasible


def test_a_trial_that_would_wait_but_cannot_win_ends(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, bounded(scheduler={**ASHA, "promote": True}))
    first, second, third = (sweep.study.ask().number for _ in range(3))
    assert sweep.study.report(first, 1, 0.9, metrics=metrics()) == "pause"
    assert sweep.study.report(second, 1, 0.5, metrics=metrics(seconds=60)) == "stop"
    assert sweep.study.report(third, 1, 0.4, metrics=metrics()) == "pause"


def test_no_gain_is_counted_of_what_cannot_win(tmp_path: Path) -> None:
    searched = bounded(budget={"trials": 9, "no_gain_for": {"trials": 1}})
    sweep = Sweep(tmp_path, searched)
    good, better = sweep.study.ask().number, sweep.study.ask().number
    sweep.study.report(good, 9, 0.5, metrics=metrics())
    sweep.study.report(better, 9, 0.9, metrics=metrics(size=6e6))
    sweep.again().reopen()
    sweep.study.tell(good, "completed")
    sweep.study.tell(better, "completed")
    third = sweep.study.ask().number
    sweep.study.report(third, 9, 0.6, metrics=metrics())
    sweep.study.tell(third, "completed")
    assert sweep.study.ended_by is None, "0.6 is better than 0.5, and 0.9 does not count"


@pytest.mark.parametrize(("told", "at_least", "at_most"), [(False, 20, 30), (True, 0, 19)])
def test_a_sampler_keeps_away_from_what_runs_out_of_memory(
    told: bool, at_least: int, at_most: int
) -> None:
    """The best settings are the largest that fit; a trial that failed otherwise teaches nothing."""
    searched = space(
        parameters={"segmentor.base_width": {"type": "int", "low": 1, "high": 64}},
        sampler={"type": "tpe", "seed": 0, "startup_trials": 4},
        budget={"trials": 30},
    )
    study = SweepStudy.create("sweep", searched, None)
    too_large = 0
    for _ in range(30):
        point = study.ask()
        width = point.params["segmentor.base_width"]
        too_large += width > 32
        if width > 32:
            study.report(point.number, 1, 0.0)
            ended = study.tell(point.number, "failed", "why", out_of_memory=told)
            assert (ended.learn, ended.infeasible) == (told, told)
        else:
            study.report(point.number, 9, width / 100)
            study.tell(point.number, "completed")
    assert at_least <= too_large <= at_most
    states = {trial.state.name for trial in study.study.trials if trial.constraints}
    assert states == ({"PRUNED"} if told else set())


def test_a_point_tried_before_is_told_with_its_violations(tmp_path: Path) -> None:
    two = {"segmentor.optimizer": {"type": "choice", "values": ["adam", "adamw", "rmsprop"]}}
    sweep = Sweep(tmp_path, bounded(parameters=two, budget={"trials": 3}))
    for _ in range(3):
        number = sweep.study.ask().number
        sweep.study.report(number, 9, 0.5, metrics=metrics(seconds=60))
        sweep.study.tell(number, "completed")
    again = [trial for trial in sweep.trials if REUSED in trial.user_attrs]
    assert again, "of three points, three draws are hardly ever different"
    assert {trial.constraints[TIME] for trial in again} == {1.0}


def test_an_earlier_sweep_is_learnt_from_only_under_the_same_constraints(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, bounded())
    number = sweep.study.ask().number
    sweep.study.report(number, 9, 0.5, metrics=metrics(seconds=60))
    sweep.study.tell(number, "completed")
    (taken,) = earlier_trials(bounded(warm_start="sweep"), sweep.storage, "f").trials
    assert taken.constraints[TIME] == 1.0
    with pytest.raises(SweepError, match="had other constraints"):
        earlier_trials(space(warm_start="sweep"), sweep.storage, "f")


@pytest.mark.parametrize(
    "sampler",
    [
        {"type": "tpe", "startup_trials": 5},
        {"type": "nsga2", "population": 5},
        pytest.param({"type": "gp", "startup_trials": 5}, marks=pytest.mark.slow),
    ],
    ids=lambda sampler: sampler["type"],
)
def test_samplers_learn_to_keep_a_constraint(sampler: dict[str, Any]) -> None:
    """The score rises with the width and so does the size, whose bound is at half of it."""
    searched = space(
        parameters={
            "segmentor.base_width": {"type": "int", "low": 1, "high": 100},
            "segmentor.lr": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
        },
        sampler={"seed": 1, **sampler},
        constraints=[{"metric": TIME, "max": 50.0}],
        budget={"trials": 40},
    )
    study = SweepStudy.create("sweep", searched, None)
    broken = []
    for _ in range(30):
        point = study.ask()
        width = point.params["segmentor.base_width"]
        study.report(point.number, 9, width / 100, metrics=metrics(seconds=width))
        broken.append(study.tell(point.number, "completed").infeasible)
        assert broken[-1] == (width > 50)
    assert sum(broken[-15:]) < 10, "without the constraint nearly all would be"
    scores = study.trials.scores(study.trials.values())
    assert 0.4 < max(score for of_trial in scores.values() for score in of_trial) <= 0.5
