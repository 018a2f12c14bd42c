"""What is asked of a sweep from elsewhere, by way of its study."""

from __future__ import annotations

from pathlib import Path

import pytest

from segan_ray.search.study.requests import DONE, ask
from segan_ray.search.study.study_budget import Limits
from tests.unit.search.study.test_study import Sweep, space

pytestmark = pytest.mark.usefixtures("studies")


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path, space(budget={"trials": 4}))


def test_points_are_tried_next_once_each_and_in_order(sweep: Sweep) -> None:
    sweep.train(0.1)
    for depth in (3, 1):
        ask("sweep", sweep.storage, "try_point", {"point": {"critic.depth": depth}})
    assert sweep.study.more == 3
    sweep.study.take_requests()
    first = sweep.study.ask()
    assert first.params["critic.depth"] == 3
    # The process is killed: the next one tries the other alone.
    again = sweep.again()
    again.take_requests()
    assert [point.params for point in again.reopen()] == [first.params]
    assert again.ask().params["critic.depth"] == 1
    again.take_requests()
    drawn = sweep.again()
    drawn.take_requests()
    assert drawn.ask().number == 3
    assert "requested" not in sweep.trials[3].user_attrs


def test_limits_are_set_once_and_stay(sweep: Sweep) -> None:
    ask("sweep", sweep.storage, "set_limits", {"trials": 9, "max_concurrent": 2})
    ask("sweep", sweep.storage, "set_limits", {"trials": 6, "hours": 1.5})
    sweep.study.take_requests()
    assert sweep.study.budget.limits == Limits(6, 1.5, None, 2)
    assert (sweep.study.more, sweep.study.budget.at_once) == (6, 2)
    # What is given at a resume comes later, and the requests are not fulfilled again.
    study = sweep.again()
    study.take_requests()
    study.take_budget(Limits(trials=5))
    study.take_requests()
    assert sweep.again().budget.limits == Limits(5, 1.5, None, 2)
    ask("sweep", sweep.storage, "set_limits", {"hours": None, "max_concurrent": "auto"})
    study.take_requests()
    assert sweep.again().budget.limits == Limits(5, None, None, "auto")
    assert study.budget.at_once is None


def test_limits_are_set_again_if_the_process_was_killed_before_it_noted_that(sweep: Sweep) -> None:
    ask("sweep", sweep.storage, "set_limits", {"trials": 9})
    sweep.study.take_requests()
    sweep.study.study.set_user_attr(DONE, [])
    study = sweep.again()
    study.take_requests()
    assert study.budget.trials == 9


def test_a_trial_ends_with_its_epoch_and_one_that_waits_is_known(sweep: Sweep) -> None:
    running, other = sweep.study.ask().number, sweep.study.ask().number
    sweep.study.report(running, 1, 0.2)
    ask("sweep", sweep.storage, "stop_trial", {"trial": running})
    assert sweep.study.report(running, 2, 0.3) == "continue"
    sweep.study.take_requests()
    assert sweep.study.report(running, 3, 0.4) == "stop"
    assert sweep.study.report(other, 1, 0.1) == "continue"
    # At its last epoch it has come to its end by itself.
    assert sweep.study.report(running, 9, 0.5) == "continue"
    again = sweep.again()
    again.take_requests()
    assert [number for number in again.waiting if again.is_to_stop(number)] == [running]


def test_a_trial_that_makes_room_is_gone_on_with(sweep: Sweep) -> None:
    number = sweep.study.ask().number
    assert sweep.study.report(number, 1, 0.2) == "continue"
    sweep.study.hold(number)
    assert sweep.study.waiting == [number]
    assert [point.number for point in sweep.study.reopen()] == [number]
    assert sweep.study.waiting == []
    assert sweep.study.report(number, 2, 0.3) == "continue"
