"""Asking something of a sweep from a terminal, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from segan_ray.errors import SweepError
from segan_ray.orchestration.tune.sweep_lock import held
from segan_ray.search.study.study_budget import Limits
from segan_ray.workflows.steer import enqueue, set_limits, stop_trial
from tests.unit.command_line import refused, segan
from tests.unit.search.study.test_study import WEIGHTS, Sweep, space

pytestmark = pytest.mark.usefixtures("studies")


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path, space(budget={"trials": 6}))


def test_a_point_is_tried_with_what_it_leaves_out_drawn(sweep: Sweep) -> None:
    asked = enqueue(sweep.home, "sweep", {"critic.depth": 3})
    assert (asked.content, asked.runs) == ({"point": {"critic.depth": 3}}, False)
    enqueue(sweep.home, "sweep", {"critic.depth": 1, "segmentor.lr": 1e-3})
    sweep.study.take_requests()
    first = sweep.study.ask().params
    assert first["critic.depth"] == 3
    assert 1e-5 <= first["segmentor.lr"] <= 1e-2


def test_a_list_is_given_as_its_setting(tmp_path: Path) -> None:
    parameters = {
        "critic.depth": {"type": "int", "low": 1, "high": 3},
        "loss.scale_weights": WEIGHTS,
    }
    sweep = Sweep(tmp_path, space(parameters=parameters))
    enqueue(sweep.home, "sweep", {"critic.depth": 2, "loss.scale_weights": [1, 2, 0.5]})
    sweep.study.take_requests()
    assert sweep.study.ask().params == {"critic.depth": 2, "loss.scale_weights": [1.0, 2.0, 0.5]}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"critic.depth": 4}, "cannot try this point: critic.depth is 4, the space draws"),
        ({"segmentor.lr": "low"}, "cannot try this point: segmentor.lr is"),
        ({"segmentor.depth": 4}, "'sweep' does not draw segmentor.depth. Did you mean"),
    ],
)
def test_a_point_outside_the_space_is_refused(
    sweep: Sweep, values: dict[str, Any], said: str
) -> None:
    with pytest.raises(SweepError, match=said):
        enqueue(sweep.home, "sweep", values)


def test_a_grid_tries_its_own_points(tmp_path: Path) -> None:
    depths = {"critic.depth": {"type": "int", "low": 1, "high": 3}}
    sweep = Sweep(tmp_path, space(parameters=depths, sampler={"type": "grid"}))
    with pytest.raises(SweepError, match="tries every point of a grid"):
        enqueue(sweep.home, "sweep", {"critic.depth": 2})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trials": 1}, "'sweep' has 2 trials already; trials=1 cannot take any away."),
        ({"trials": 0}, "trials=0: Input should be greater than or equal to 1."),
        ({"trials": None}, "trials=None: "),
        ({"hours": -1}, "hours=-1: Input should be greater than 0."),
        ({"max_concurrent": "all"}, "max_concurrent=all: found 'all', expected a count"),
        ({"trails": 9}, "No limit 'trails'. Did you mean 'trials'?"),
        ({"keep_checkpoints": 3}, "No limit 'keep_checkpoints'"),
    ],
)
def test_limits_that_cannot_be_are_refused(sweep: Sweep, values: dict[str, Any], said: str) -> None:
    sweep.train(0.1)
    sweep.train(0.1)
    with pytest.raises(SweepError) as raised:
        set_limits(sweep.home, "sweep", values)
    assert str(raised.value).startswith(said)
    sweep.study.take_requests()
    assert sweep.study.budget.trials == 6


def test_only_a_trial_that_has_not_ended_can_be_ended(sweep: Sweep) -> None:
    sweep.train(0.1)
    running = sweep.study.ask().number
    with pytest.raises(SweepError, match="Trial 000 of 'sweep' has ended already: completed"):
        stop_trial(sweep.home, "sweep", 0)
    with pytest.raises(SweepError, match="'sweep' has no trial 007: it has 2 trials"):
        stop_trial(sweep.home, "sweep", 7)
    stop_trial(sweep.home, "sweep", running)
    sweep.study.take_requests()
    assert sweep.study.is_to_stop(running)
    with pytest.raises(SweepError, match="No study of a sweep 'other'"):
        stop_trial(sweep.home, "other", 0)


def test_the_commands_say_when_it_counts(sweep: Sweep) -> None:
    here = {"cwd": sweep.home.folder, "home": sweep.home.folder}
    sweep.study.ask()
    assert segan("stop", "sweep", "--trial", "0", **here).stdout.splitlines() == [
        "Trial 000 of 'sweep' ends with its epoch.",
        "No process runs 'sweep' now: that counts from its next --resume on.",
    ]
    with held(sweep.home.sweeps / "sweep", "sweep"):
        assert segan("enqueue", "sweep", "critic.depth=2", **here).stdout == (
            "'sweep' tries this as its next trial.\n"
        )
        given = segan("set", "sweep", "trials=9", "hours=2.5", "--json", **here).stdout
    assert json.loads(given) == {
        "sweep": "sweep", "asked": {"trials": 9, "hours": 2.5}, "runs": True
    }  # fmt: skip
    sweep.study.take_requests()
    assert sweep.study.budget.limits == Limits(9, 2.5, None, "auto")
    wrong = segan("set", "sweep", "trails=9", "hours", **here)
    refused(wrong, "unknown setting 'trails'. Did you mean 'trials'?")
    refused(wrong, "'hours' has no '='")


def test_a_sweep_that_has_had_all_of_its_trials_needs_more(sweep: Sweep) -> None:
    for _ in range(6):
        sweep.train(0.1)
    asked = enqueue(sweep.home, "sweep", {"critic.depth": 2})
    assert asked.hint == "It has had all of its 6 trials. More: segan-ray set sweep trials=7"
    set_limits(sweep.home, "sweep", {"trials": 7})
    assert enqueue(sweep.home, "sweep", {"critic.depth": 2}).hint is None
