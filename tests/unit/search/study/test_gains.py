"""A search that draws no more once the last trials brought no gain."""

from __future__ import annotations

from pathlib import Path

import pytest

from segan_ray.search.study.study_budget import Limits
from segan_ray.search.study.sweep_study import SweepStudy
from tests.unit.search.study.test_study import Sweep, space

pytestmark = pytest.mark.usefixtures("studies")

PATIENT = {"trials": 9, "no_gain_for": {"trials": 3}}


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path, space(budget=PATIENT))


def test_a_gain_counts_from_the_trials_drawn_by_then(sweep: Sweep) -> None:
    sweep.train(0.3)
    sweep.train(0.1, 0.5)
    for score in (0.4, 0.5, 0.2):
        assert sweep.study.ended_by is None
        assert sweep.study.more
        sweep.train(score, outcome="stopped")
    assert (sweep.study.ended_by, sweep.study.more) == ("no_gain_for", 0)
    assert sweep.again().ended_by == "no_gain_for"


def test_a_trial_that_still_runs_may_bring_a_gain(sweep: Sweep) -> None:
    study = sweep.study
    running = study.ask().number
    study.report(running, 1, 0.2)
    for score in (0.2, 0.1, 0.2):
        sweep.train(score)
    assert study.ended_by == "no_gain_for"
    study.report(running, 2, 0.3)
    assert study.ended_by is None
    assert sweep.again().ended_by is None


def test_the_least_is_best_of_a_least_objective(tmp_path: Path) -> None:
    objective = {"metric": "time/epoch_s", "mode": "min"}
    sweep = Sweep(tmp_path, space(budget=PATIENT, objective=objective))
    for score in (5.0, 4.0, 3.0, 2.0, 2.0, 7.0):
        sweep.train(score)
        assert sweep.study.ended_by is None
    sweep.train(2.0)
    assert sweep.study.ended_by == "no_gain_for"


def test_failures_alone_bring_no_gain_either(sweep: Sweep) -> None:
    for _ in range(3):
        sweep.train(outcome="failed")
    assert sweep.study.ended_by == "no_gain_for"


def test_repeats_are_drawn_all_the_same_and_are_no_gains(sweep: Sweep) -> None:
    for score in (0.5, 0.4, 0.3, 0.2):
        sweep.train(score)
    assert sweep.study.enqueue_repeats(1, 2) == 2
    for _ in range(2):
        assert sweep.study.more
        sweep.train(0.9)
    assert not sweep.study.more
    assert sweep.again().ended_by == "no_gain_for"


def test_a_larger_budget_goes_on_and_the_trials_may_end_it_first(sweep: Sweep) -> None:
    for score in (0.5, 0.4, 0.3, 0.2):
        sweep.train(score)
    more = space(budget={"trials": 5, "no_gain_for": {"trials": 4}})
    study = SweepStudy.open("sweep", more, sweep.storage, store="f")
    study.take_budget(Limits())
    assert study.ended_by is None
    study.report(study.ask().number, 1, 0.1)
    assert study.ended_by == "trials"


def test_a_gain_noted_before_a_kill_is_noted_once(sweep: Sweep) -> None:
    sweep.train(0.5)
    running = sweep.study.ask().number
    sweep.study._gains.note(0.6, 2)  # As a process does that is killed before the report.
    study = sweep.again()
    assert [point.number for point in study.reopen()] == [running]
    study.report(running, 1, 0.6)
    study.tell(running, "completed")
    for score in (0.1, 0.6):
        sweep.train(score)
    assert study.ended_by is None
    sweep.train(0.6)
    assert study.ended_by == "no_gain_for"


def test_the_best_paused_trial_is_trained_to_its_end(tmp_path: Path) -> None:
    scheduler = {"type": "asha", "promote": True, "grace_period": 1, "reduction_factor": 3}
    sweep = Sweep(tmp_path, space(budget=PATIENT, scheduler=scheduler))
    study = sweep.study
    for score in (0.5, 0.4, 0.3):
        number = study.ask().number
        assert study.report(number, 1, score) == "pause"
    # The first is the best third of three; it goes on before anything is drawn.
    assert study.promote().number == 0
    assert study.report(0, 2, 0.45) == "continue"
    assert study.report(0, 3, 0.45) == "pause"
    assert study.report(study.ask().number, 1, 0.2) == "pause"
    assert study.ended_by == "no_gain_for"
    assert study.promote().number == 0
