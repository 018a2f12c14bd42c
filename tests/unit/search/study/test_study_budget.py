"""A sweep that ends after its hours, and goes on with more of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from segan_ray.search.results.needs import Needs
from segan_ray.search.study.study_budget import Limits, Spent
from segan_ray.search.study.sweep_study import SweepStudy
from tests.unit.search.study.test_study import Sweep, space

pytestmark = pytest.mark.usefixtures("studies")


def hourly(tmp_path: Path, **budget: float) -> Sweep:
    return Sweep(tmp_path, space(budget={"trials": 3, **budget}))


def test_hours_are_added_up_over_processes(tmp_path: Path) -> None:
    sweep = hourly(tmp_path, hours=2, gpu_hours=5)
    sweep.study.budget.spend(0.5, 1)
    sweep.again().budget.spend(1, 2)
    assert sweep.again().budget.spent == Spent(1.5, 3)
    assert sweep.study.budget.limits == Limits(3, 2, 5, "auto")
    assert sweep.study.budget.used_up is None


@pytest.mark.parametrize(
    ("limits", "spent", "used_up"),
    [
        ({"hours": 2}, (2, 9), "hours"),
        ({"hours": 2}, (1.99, 9), None),
        ({"gpu_hours": 4}, (9, 4), "gpu_hours"),
        ({"gpu_hours": 4}, (9, 3.9), None),
        ({"hours": 2, "gpu_hours": 4}, (2, 4), "hours"),
        ({}, (1e6, 1e6), None),
    ],
)
def test_what_comes_first_ends_the_sweep(
    tmp_path: Path, limits: dict[str, float], spent: tuple[float, float], used_up: str | None
) -> None:
    sweep = hourly(tmp_path, **limits)
    sweep.study.budget.spend(*spent)
    assert sweep.study.budget.used_up == used_up
    assert sweep.study.ended_by == used_up
    assert sweep.again().ended_by == used_up


def test_a_trial_waits_at_the_end_of_its_epoch_and_goes_on_with_more_hours(tmp_path: Path) -> None:
    sweep = hourly(tmp_path, hours=1)
    study = sweep.study
    ended, running = study.ask().number, study.ask().number
    assert study.report(ended, 8, 0.4) == study.report(running, 4, 0.5) == "continue"
    study.budget.spend(1, 0)
    # It has come to its end: nothing is left to wait for.
    assert study.report(ended, 9, 0.6) == "continue"
    study.tell(ended, "completed")
    assert study.report(running, 5, 0.7) == "pause"
    study.suspend()
    assert sweep.states == ["COMPLETE", "WAITING"]
    assert study.ended_by == "hours"

    again = sweep.again()
    again.take_budget(Limits(hours=3))
    assert (again.ended_by, again.is_cut_short) == (None, False)
    (point,) = again.reopen()
    assert point.number == running
    # Its worker reports the epoch of its checkpoint first.
    assert again.report(running, 5, 0.7) == again.report(running, 6, 0.8) == "continue"
    assert sweep.trials[running].intermediate_values == {4: 0.5, 5: 0.7, 6: 0.8}


def test_hours_that_end_with_the_last_trial_end_nothing_early(tmp_path: Path) -> None:
    sweep = hourly(tmp_path, hours=1)
    for score in (0.1, 0.2, 0.3):
        sweep.train(score)
    sweep.study.budget.spend(1, 0)
    assert (sweep.study.ended_by, sweep.study.is_cut_short) == ("trials", False)
    # Repeats are trials as well.
    sweep.study.enqueue_repeats(1, 2)
    assert sweep.study.ended_by == "hours"


def test_a_repeat_and_a_trial_of_several_objectives_wait_too(tmp_path: Path) -> None:
    sweep = hourly(tmp_path, hours=1)
    sweep.train(0.4)
    sweep.study.enqueue_repeats(1, 1)
    repeat = sweep.study.ask().number
    sweep.study.budget.spend(1, 0)
    assert sweep.study.report(repeat, 1, 0.3) == "pause"

    both = [{"metric": "val/dice_mean"}, {"metric": "time/epoch_s", "mode": "min"}]
    several = SweepStudy.create(
        "several", space(objective=both, budget={"hours": 1}), sweep.storage
    )
    number = several.ask().number
    several.budget.spend(1, 0)
    assert several.report(number, 1, 0.3, 9.0) == "pause"


def test_what_more_trials_need_is_known_from_those_before(tmp_path: Path) -> None:
    sweep = hourly(tmp_path, hours=9)
    assert sweep.study.needs(2, None) is None
    for scores in ((0.1, 0.2, 0.3), (0.1,)):
        sweep.train(*scores)
    running = sweep.study.ask().number
    assert sweep.study.report(running, 1, 0.1) == "continue"
    sweep.study.budget.spend(1, 4)
    # Five epochs took an hour, and a trial has two.
    assert sweep.again().needs(10, 3.0) == Needs(10 * 2 / 5 * 3600, 10 * 2 / 5 * 4 * 3600, 3.0)


def test_what_waits_at_a_rung_stays_there_when_the_hours_end(tmp_path: Path) -> None:
    scheduler = {"type": "asha", "promote": True, "grace_period": 1, "reduction_factor": 3}
    sweep = Sweep(tmp_path, space(budget={"trials": 9, "hours": 1}, scheduler=scheduler))
    first = sweep.study.ask().number
    assert sweep.study.report(first, 1, 0.5) == "pause"
    second = sweep.study.ask().number
    sweep.study.budget.spend(1, 0)
    assert sweep.study.report(second, 1, 0.6) == "pause"
    sweep.study.suspend()
    study = sweep.again()
    assert study.reopen() == []
    assert study.trials.paused() == {first: 1, second: 1}
    assert study.ended_by == "hours"


def test_limits_that_were_given_stay_while_the_file_says_the_same(tmp_path: Path) -> None:
    sweep = hourly(tmp_path, hours=1)

    def again(given: Limits, **budget: float) -> Limits:
        changed = space(budget={"trials": 3, **budget})
        study = SweepStudy.open("sweep", changed, sweep.storage, store="f")
        study.take_budget(given)
        return study.budget.limits

    assert again(Limits(), hours=1) == Limits(3, 1, None, "auto")
    assert again(Limits(hours=5, gpu_hours=7), hours=1) == Limits(3, 5, 7, "auto")
    assert again(Limits(), hours=1) == Limits(3, 5, 7, "auto")
    assert again(Limits(), hours=2) == Limits(3, 2, 7, "auto")
    assert again(Limits(), gpu_hours=1) == Limits(3, None, 1, "auto")
    assert again(Limits(), gpu_hours=1, max_concurrent=2) == Limits(3, None, 1, 2)


def test_a_study_of_an_earlier_version_has_the_hours_that_its_file_gets(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, space(budget={"trials": 3}))
    assert sweep.study.budget.limits == Limits(3, max_concurrent="auto")
    study = SweepStudy.open(
        "sweep", space(budget={"trials": 3, "hours": 4}), sweep.storage, store="f"
    )
    study.take_budget(Limits())
    assert study.budget.limits == Limits(3, 4, None, "auto")
