"""Training the best settings again with fresh seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segan_ray.search.points.repeats import Repeat, best_trials, plan_repeats
from tests.unit.search.study.test_study import Sweep, space

pytestmark = pytest.mark.usefixtures("studies")


def test_the_best_settings_are_tried_with_fresh_seeds(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, space(base={"seed": 7, "training": {"epochs": 9}}))
    for value in (0.2, 0.9, 0.5):
        sweep.train(0.1, value)
    sweep.train(0.99, outcome="failed")
    assert sweep.study.enqueue_repeats(top=2, seeds=2) == 4
    points = [sweep.study.ask() for _ in range(4)]
    assert [(p.number, p.repeat_of, p.seed) for p in points] == [
        (4, 1, 8), (5, 2, 8), (6, 1, 9), (7, 2, 9),
    ]  # fmt: skip
    drawn = [trial.params for trial in sweep.trials]
    assert [dict(p.params) for p in points] == [drawn[1], drawn[2], drawn[1], drawn[2]]
    assert (sweep.study.asked, sweep.study.trials.repeats) == (8, 4)


def test_repeats_are_not_stopped_early(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, space(scheduler={"type": "asha", "reduction_factor": 2}))
    for value in (0.9, 0.8):
        sweep.train(value)
    sweep.study.enqueue_repeats(top=1, seeds=1)
    repeat = sweep.study.ask()
    assert sweep.study.report(repeat.number, 1, 0.0) == "continue"
    other = sweep.study.ask()
    assert sweep.study.report(other.number, 1, 0.0) == "stop"


def test_the_best_trials_stay_and_each_repeat_runs_once(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, space())
    for value in (0.9, 0.5, 0.7):
        sweep.train(value)
    assert sweep.study.enqueue_repeats(top=1, seeds=2) == 2
    sweep.train(0.1)
    # Killed, and gone on with: the second is left, although another trial is better meanwhile.
    assert sweep.again().enqueue_repeats(top=1, seeds=2) == 1
    sweep.train(0.2)
    sweep.train(0.95)
    assert sweep.again().enqueue_repeats(top=1, seeds=2) == 0
    # More of them, and more seeds: only what is missing.
    assert sweep.again().enqueue_repeats(top=2, seeds=3) == 4
    points = [sweep.study.ask() for _ in range(4)]
    assert [(p.repeat_of, p.seed) for p in points] == [(5, 1), (5, 2), (0, 3), (5, 3)]
    assert sweep.again().enqueue_repeats(top=1, seeds=3) == 0


def test_a_repeat_that_was_cut_off_goes_on_as_one(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, space())
    sweep.train(0.9)
    sweep.study.enqueue_repeats(top=1, seeds=1)
    point = sweep.study.ask()
    assert sweep.again().reopen() == [point]
    assert sweep.study.enqueue_repeats(top=1, seeds=1) == 0


def test_repeats_do_not_take_the_place_of_first_points_nor_of_new_ones(tmp_path: Path) -> None:
    entries = [{"critic.depth": 1}, {"critic.depth": 2}, {"critic.depth": 3}]
    sweep = Sweep(tmp_path, space(enqueue=entries))
    sweep.train(0.5)
    # A budget of one: the best is repeated before the other known points were tried.
    sweep.study.enqueue_repeats(top=1, seeds=2)
    assert sweep.study.ask().repeat_of == 0
    sweep.study.tell(1, "failed")
    # The budget is raised: known points come before the repeats that are left.
    sweep.again()
    assert [sweep.study.ask().params["critic.depth"] for _ in range(2)] == [2, 3]
    assert sweep.study.trials.repeats == 1
    sweep.study.enqueue_repeats(top=1, seeds=2)
    assert sweep.study.ask().seed == 2


@given(
    st.dictionaries(st.integers(0, 9), st.lists(st.floats(-1, 1), max_size=3)),
    st.lists(st.integers(0, 9), unique=True, max_size=3),
    st.sampled_from(["max", "min"]),
)
def test_the_best_come_behind_those_decided(scores, decided, mode) -> None:
    ranked = best_trials(scores, mode, decided)
    assert ranked[: len(decided)] == decided
    assert len(set(ranked)) == len(ranked)
    rest = ranked[len(decided) :]
    pick = max if mode == "max" else min
    values = [pick(scores[number]) for number in rest]
    assert values == sorted(values, reverse=mode == "max")
    assert set(rest) == {n for n, all_ in scores.items() if all_} - set(decided)


@pytest.mark.parametrize("known", [set(), {Repeat(4, 11), Repeat(2, 12)}])
def test_plans_have_only_missing_repeats(known: set[Repeat]) -> None:
    plan = plan_repeats([4, 2], 10, 2, known, set())
    assert set(plan) | known == {Repeat(n, seed) for n in (2, 4) for seed in (11, 12)}
    assert not set(plan) & known


def test_a_seed_that_a_trial_had_is_not_fresh() -> None:
    plan = plan_repeats([4, 2], 10, 3, set(), {12})
    assert {repeat.seed for repeat in plan} == {11, 13, 14}
