"""Trials that wait at rungs and go on: the rule of ASHA, and what holds of any scores."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segan_ray.search.space.scheduler_settings import AshaScheduler
from segan_ray.search.study.rungs import Rungs


def reached(scores: dict[int, dict[int, float]]) -> dict[int, dict[int, tuple[float, ...]]]:
    """The scores as objectives, of which there is one."""
    return {n: {e: (score,) for e, score in of.items()} for n, of in scores.items()}


RUNGS = Rungs((1, 3), 3, ("max",))


@pytest.mark.parametrize(
    ("grace", "factor", "most", "rungs"),
    [(1, 3, 27, (1, 3, 9)), (1, 3, 28, (1, 3, 9, 27)), (4, 2, 12, (4, 8)), (5, 3, 5, ())],
)
def test_the_last_epoch_is_no_rung(grace, factor, most, rungs) -> None:
    settings = AshaScheduler(grace_period=grace, reduction_factor=factor, promote=True)
    assert Rungs.of(settings, most, ["max"]).epochs == rungs


def test_a_third_goes_on_and_the_rest_waits() -> None:
    scores = {0: {1: 0.5}}
    # Of one or two trials, a third is none.
    assert RUNGS.has_to_wait(reached(scores), 0, 1)
    scores[1] = {1: 0.2}
    assert RUNGS.next_to_go_on(reached(scores), {0: 1, 1: 1}) is None
    scores[2] = {1: 0.3}
    assert RUNGS.has_to_wait(reached(scores), 2, 1)
    assert RUNGS.next_to_go_on(reached(scores), {0: 1, 1: 1, 2: 1}) == 0
    # It has gone on, so the next comes when there are six.
    assert RUNGS.next_to_go_on(reached(scores), {1: 1, 2: 1}) is None
    scores |= {3: {1: 0.1}, 4: {1: 0.1}, 5: {1: 0.9}}
    assert not RUNGS.has_to_wait(reached(scores), 5, 1)
    assert not RUNGS.has_to_wait(reached(scores), 3, 2), "no rung"


def test_the_highest_rung_comes_first_and_the_best_of_it() -> None:
    low = {number: {1: 0.9} for number in range(6)}
    high = {number: {1: 0.5, 3: 0.1 * number} for number in range(6, 12)}
    paused = {**dict.fromkeys(low, 1), **dict.fromkeys(high, 3)}
    assert RUNGS.next_to_go_on(reached(low | high), paused) == 11
    del paused[11]
    assert RUNGS.next_to_go_on(reached(low | high), paused) == 10
    del paused[10]
    # Two of six have gone on. Of the twelve at the first rung the equal ones come as drawn.
    assert RUNGS.next_to_go_on(reached(low | high), paused) == 0


def test_the_best_epoch_so_far_counts_and_no_number_is_worst() -> None:
    scores = {0: {1: 0.9, 3: 0.1}, 1: {1: 0.2, 3: 0.3}, 2: {1: math.nan, 3: math.nan}}
    assert RUNGS.next_to_go_on(reached(scores), dict.fromkeys(scores, 3)) == 0
    assert Rungs((1, 3), 3, ("min",)).next_to_go_on(reached(scores), dict.fromkeys(scores, 3)) == 0
    scores[0] = {1: math.nan, 3: math.nan}
    assert RUNGS.next_to_go_on(reached(scores), dict.fromkeys(scores, 3)) == 1


def test_when_no_more_arrive_one_trial_goes_all_the_way() -> None:
    scores = {0: {1: 0.5}, 1: {1: 0.6}}
    assert RUNGS.next_to_go_on(reached(scores), {0: 1, 1: 1}) is None
    assert RUNGS.last_to_go_on(reached(scores), {0: 1, 1: 1}) == 1
    scores[1] |= {2: 0.7, 3: 0.7}
    assert RUNGS.last_to_go_on(reached(scores), {0: 1, 1: 3}) == 1
    scores[1][4] = 0.7
    assert RUNGS.last_to_go_on(reached(scores), {0: 1}) is None
    assert RUNGS.last_to_go_on(reached({}), {}) is None


ARRIVALS = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, math.nan]), min_size=1, max_size=40)


@given(ARRIVALS, st.sampled_from([2, 3, 4]), st.sampled_from(["max", "min"]))
def test_however_they_arrive_the_best_share_has_gone_on(values, factor, mode) -> None:
    rungs = Rungs((1,), factor, (mode,))
    scores: dict[int, dict[int, float]] = {}
    paused: dict[int, int] = {}
    went_on, hopeless = set(), set()
    for number, value in enumerate(values):
        scores[number] = {1: value}
        if rungs.has_to_wait(reached(scores), number, 1):
            paused[number] = 1
        else:
            went_on.add(number)
        while (chosen := rungs.next_to_go_on(reached(scores), paused)) is not None:
            del paused[chosen]
            went_on.add(chosen)
        hopeless.update(rungs.out_of_reach(reached(scores), paused, len(values)))
    sign = -1 if mode == "max" else 1
    known = [number for number in scores if not math.isnan(values[number])]
    best = sorted(known, key=lambda number: (sign * values[number], number))
    assert went_on >= {*best[: len(values) // factor]}
    assert not hopeless & went_on


GROWING = Rungs((1, 2, 4), 2, ("max",), grow=True)


def test_trials_go_farther_only_where_the_order_changes() -> None:
    scores = {n: {1: 0.1 * n, 2: 0.1 * n + 0.05} for n in range(4)}
    # The two best are as they were a rung before, so all wait at the second rung.
    assert all(GROWING.has_to_wait(reached(scores), n, 2) for n in scores)
    assert GROWING.next_to_go_on(reached(scores), dict.fromkeys(scores, 2)) is None
    assert GROWING.last_to_go_on(reached(scores), dict.fromkeys(scores, 2)) == 3
    assert not GROWING.has_to_wait(reached(scores), 3, 1)
    # One falls behind another.
    scores[0][2] = 0.5
    assert GROWING.next_to_go_on(reached(scores), dict.fromkeys(scores, 2)) == 0
    assert not GROWING.has_to_wait(reached(scores), 0, 2)
    # Once a trial has gone past a rung, others may.
    scores[0] |= {3: 0.6}
    scores[4] = {1: 0.9, 2: 0.9}
    assert GROWING.next_to_go_on(reached(scores), {4: 2}) == 4
    assert Rungs((1, 2, 4), 2, ("max",)).next_to_go_on(reached(scores), {4: 2}) == 4


def test_trials_that_overtake_each_other_again_and_again_are_equal() -> None:
    rungs = Rungs((1, 4), 2, ("max",), grow=True)
    scores = {
        0: {1: 0.50, 2: 0.51, 3: 0.54, 4: 0.55},
        1: {1: 0.49, 2: 0.53, 3: 0.52, 4: 0.56},
        2: {1: 0.1, 2: 0.1, 3: 0.1, 4: 0.1},
    }
    assert all(rungs.has_to_wait(reached(scores), n, 4) for n in scores), "changes by 0.01 only"
    scores[2] |= {4: 0.9}
    assert not rungs.has_to_wait(reached(scores), 2, 4)


def test_of_trials_that_cannot_go_on_later_the_first_is_not_stopped() -> None:
    scores = {0: {1: 0.5}}
    assert not RUNGS.has_to_stop(reached(scores), 0, 1)
    scores[1] = {1: 0.2}
    assert RUNGS.has_to_stop(reached(scores), 1, 1)
    assert not RUNGS.has_to_stop(reached(scores), 1, 2), "no rung"


def test_of_several_objectives_the_least_dominated_and_unlikest_go_on() -> None:
    rungs = Rungs((1,), 3, ("max", "min"))
    front = {0: (0.9, 9.0), 1: (0.8, 8.5), 2: (0.5, 1.0), 3: (0.85, 8.9)}
    behind = {4: (0.5, 9.0), 5: (0.1, 1.5), 6: (0.4, 9.5), 7: (0.3, math.nan), 8: (0.1, 9.9)}
    points = {number: {1: point} for number, point in (front | behind).items()}
    # Nine trials: three go on. The best of the first objective, the unlikest to it, the next.
    assert [n for n in points if not rungs.has_to_wait(points, n, 1)] == [0, 1, 2]
    paused = dict.fromkeys(points, 1)
    assert rungs.next_to_go_on(points, paused) == 0
    assert rungs.out_of_reach(points, paused, 9) == []
    # Alone it is the best, whatever it is.
    assert not rungs.has_to_stop({6: points[6]}, 6, 1)
    assert rungs.has_to_stop(points, 6, 1)
    assert not rungs.has_to_stop(points, 0, 1)


SEVERAL = st.lists(
    st.tuples(st.sampled_from([0.1, 0.2, 0.3]), st.sampled_from([1.0, 2.0, 3.0])), max_size=20
)


@given(SEVERAL)
def test_no_trial_goes_on_before_one_that_dominates_it(values) -> None:
    rungs = Rungs((1,), 2, ("max", "min"))
    points = {number: {1: value} for number, value in enumerate(values)}
    going = {number for number in points if not rungs.has_to_wait(points, number, 1)}
    assert len(going) == len(values) // 2
    for number in going:
        for other, (dice, size) in enumerate(values):
            here = values[number]
            if dice >= here[0] and size <= here[1] and (dice, size) != here:
                assert other in going
