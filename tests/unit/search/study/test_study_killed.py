"""A sweep whose process is killed at any point comes to what an uninterrupted one comes to."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.storages import BaseStorage, RDBStorage

from segan_ray.home import Home
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.search.study.sweep_study import Point, SweepStudy
from tests.unit.search.study.test_study import space

pytestmark = pytest.mark.slow

TRIALS = 7
REPEATS = 2
EPOCHS = 4
SAMPLERS = {
    "tpe": {"type": "tpe", "seed": 3, "startup_trials": 3},
    "tpe, promoting": {"type": "tpe", "seed": 3, "startup_trials": 3},
    "random": {"type": "random", "seed": 3},
    "grid": {"type": "grid", "seed": 3},
    "cmaes": {"type": "cmaes", "seed": 3, "startup_trials": 1, "population": 4},
}
NAMES = count()
WRITES = (
    "create_new_trial",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "set_study_user_attr",
)
few = settings(
    max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


HALVING = {"type": "asha", "grace_period": 1, "reduction_factor": 2}
SCHEDULERS = {"tpe, promoting": {**HALVING, "promote": True}}


def searched(sampler: str) -> SearchSpace:
    depth: dict[str, Any] = {"type": "int", "low": 1, "high": 4}
    lr: dict[str, Any] = {"type": "float", "low": 1e-5, "high": 1e-2, "log": True}
    if sampler == "grid":
        depth = {"type": "choice", "values": [1, 2, 3]}
        lr = {"type": "choice", "values": [1e-4, 1e-3, 1e-2]}
    return space(
        base={"training": {"epochs": EPOCHS}},
        parameters={"segmentor.lr": lr, "critic.depth": depth},
        sampler=SAMPLERS[sampler],
        scheduler=SCHEDULERS.get(sampler, HALVING),
        enqueue=[] if sampler == "grid" else [{"critic.depth": 2, "segmentor.lr": 1e-3}],
        budget={"trials": TRIALS},
    )


def score(params: Any, seed: int | None, epoch: int) -> float:
    """Return what a trial of these settings would come to."""
    peak = math.exp(-abs(math.log10(params["segmentor.lr"]) + 3)) / (1 + params["critic.depth"])
    return peak * (1 - math.exp(-epoch)) + 0.001 * (seed or 0)


def train(study: SweepStudy) -> Iterator[None]:
    """Run what is left of a sweep as its process does, with a pause after each call."""
    for repeats in (0, REPEATS):
        cut_off = study.reopen()
        yield
        new = (
            study.enqueue_repeats(1, repeats)
            if repeats
            else TRIALS - study.asked + study.trials.repeats
        )
        last = study.asked + new
        yield
        while point := next_of(study, cut_off, last):
            yield
            # A checkpoint is as far as the last epoch that was reported, at least.
            for epoch in range(max(study._scores.values[point.number], default=1), EPOCHS + 1):
                value = score(point.params, point.seed, epoch)
                verdict = study.report(point.number, epoch, value)
                yield
                if verdict != "continue":
                    break
            if verdict != "pause":
                study.tell(point.number, "completed" if verdict == "continue" else "stopped")
                yield
        for number in study.trials.paused():
            study.stop_waiting(number)
            yield


def next_of(study: SweepStudy, cut_off: list[Point], last: int) -> Point | None:
    point = cut_off.pop(0) if cut_off else study.promote()
    return study.ask() if point is None and study.asked < last else point


def outcome(study: SweepStudy) -> list[tuple[Any, ...]]:
    return [
        (trial.state.name, trial.params, trial.value, trial.intermediate_values)
        for trial in study.study.trials
    ]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module", params=SAMPLERS)
def uninterrupted(request, home: Home) -> tuple[SearchSpace, list[tuple[Any, ...]], int]:
    drawn = searched(request.param)
    study = SweepStudy.create(f"whole-{request.param}", drawn, open_storage(home))
    calls = sum(1 for _ in train(study))
    return drawn, outcome(study), calls


@few
@given(data=st.data())
def test_killed_between_calls_a_sweep_comes_to_the_same(home: Home, uninterrupted, data) -> None:
    drawn, expected, calls = uninterrupted
    assert len(expected) == TRIALS + REPEATS
    assert {state for state, *_ in expected} == {"COMPLETE", "PRUNED"}
    name = f"killed-{next(NAMES)}"
    study = SweepStudy.create(name, drawn, open_storage(home))
    for lived in data.draw(st.lists(st.integers(0, calls), max_size=4), label="calls until killed"):
        for _ in zip(range(lived), train(study), strict=False):
            pass
        study = SweepStudy.open(name, drawn, open_storage(home))
    for _ in train(study):
        pass
    assert outcome(SweepStudy.open(name, drawn, open_storage(home))) == expected


class Killed(BaseException):
    pass


def mortal(home: Home, monkeypatch: pytest.MonkeyPatch, writes: int, before: bool) -> BaseStorage:
    """Return a storage that dies with its ``writes``-th write, before it or right after."""
    storage = RDBStorage(f"sqlite:///{home.studies}")
    left = [writes]

    def dying(method: Any) -> Any:
        def write(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] <= 0 and before:
                raise Killed
            result = method(*arguments, **named)
            if left[0] <= 0:
                raise Killed
            return result

        return write

    for name in WRITES:
        monkeypatch.setattr(storage, name, dying(getattr(storage, name)))
    return storage


@few
@given(
    writes=st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=5),
    suspends=st.booleans(),
)
def test_killed_at_any_write_a_sweep_has_all_its_trials(home: Home, writes, suspends: bool) -> None:
    name, drawn = f"killed-{next(NAMES)}", searched("tpe")
    SweepStudy.create(name, drawn, open_storage(home))
    for lived, before in writes:
        with pytest.MonkeyPatch.context() as patch:
            study = SweepStudy.open(name, drawn, mortal(home, patch, lived, before))
            try:
                for _ in train(study):
                    pass
            except Killed:
                pass
        if suspends:
            SweepStudy.open(name, drawn, open_storage(home)).suspend()
    study = SweepStudy.open(name, drawn, open_storage(home))
    for _ in train(study):
        pass
    ended = outcome(study)
    assert len(ended) == TRIALS + REPEATS
    assert {state for state, *_ in ended} <= {"COMPLETE", "PRUNED"}
    assert ended[0][1] == {"critic.depth": 2, "segmentor.lr": 1e-3}
    repeated = [trial.user_attrs for trial in study.study.trials[TRIALS:]]
    assert [each["seed"] for each in repeated] == [1, 2]
    assert len({each["repeat_of"] for each in repeated}) == 1
