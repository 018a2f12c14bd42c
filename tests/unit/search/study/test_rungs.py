"""Trials that wait at rungs and go on: the rule of ASHA, and what holds of any scores."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segan_ray.search.space.scheduler_settings import AshaScheduler
from segan_ray.search.study.rungs import Rungs

RUNGS = Rungs((1, 3), 3, "max")


@pytest.mark.parametrize(
    ("grace", "factor", "most", "rungs"),
    [(1, 3, 27, (1, 3, 9)), (1, 3, 28, (1, 3, 9, 27)), (4, 2, 12, (4, 8)), (5, 3, 5, ())],
)
def test_the_last_epoch_is_no_rung(grace, factor, most, rungs) -> None:
    settings = AshaScheduler(grace_period=grace, reduction_factor=factor, promote=True)
    assert Rungs.of(settings, most, "max").epochs == rungs


def test_a_third_goes_on_and_the_rest_waits() -> None:
    scores = {0: {1: 0.5}}
    # Of one or two trials, a third is none.
    assert RUNGS.has_to_wait(scores, 0, 1)
    scores[1] = {1: 0.2}
    assert RUNGS.next_to_go_on(scores, {0: 1, 1: 1}) is None
    scores[2] = {1: 0.3}
    assert RUNGS.has_to_wait(scores, 2, 1)
    assert RUNGS.next_to_go_on(scores, {0: 1, 1: 1, 2: 1}) == 0
    # It has gone on, so the next comes when there are six.
    assert RUNGS.next_to_go_on(scores, {1: 1, 2: 1}) is None
    scores |= {3: {1: 0.1}, 4: {1: 0.1}, 5: {1: 0.9}}
    assert not RUNGS.has_to_wait(scores, 5, 1)
    assert not RUNGS.has_to_wait(scores, 3, 2), "no rung"


def test_the_highest_rung_comes_first_and_the_best_of_it() -> None:
    low = {number: {1: 0.9} for number in range(6)}
    high = {number: {1: 0.5, 3: 0.1 * number} for number in range(6, 12)}
    paused = {**dict.fromkeys(low, 1), **dict.fromkeys(high, 3)}
    assert RUNGS.next_to_go_on(low | high, paused) == 11
    del paused[11]
    assert RUNGS.next_to_go_on(low | high, paused) == 10
    del paused[10]
    # Two of six have gone on. Of the twelve at the first rung the equal ones come as drawn.
    assert RUNGS.next_to_go_on(low | high, paused) == 0


def test_the_best_epoch_so_far_counts_and_no_number_is_worst() -> None:
    scores = {0: {1: 0.9, 3: 0.1}, 1: {1: 0.2, 3: 0.3}, 2: {1: math.nan, 3: math.nan}}
    assert RUNGS.next_to_go_on(scores, dict.fromkeys(scores, 3)) == 0
    assert Rungs((1, 3), 3, "min").next_to_go_on(scores, dict.fromkeys(scores, 3)) == 0
    scores[0] = {1: math.nan, 3: math.nan}
    assert RUNGS.next_to_go_on(scores, dict.fromkeys(scores, 3)) == 1


def test_when_no_more_arrive_one_trial_goes_all_the_way() -> None:
    scores = {0: {1: 0.5}, 1: {1: 0.6}}
    assert RUNGS.next_to_go_on(scores, {0: 1, 1: 1}) is None
    assert RUNGS.last_to_go_on(scores, {0: 1, 1: 1}) == 1
    scores[1] |= {2: 0.7, 3: 0.7}
    assert RUNGS.last_to_go_on(scores, {0: 1, 1: 3}) == 1
    scores[1][4] = 0.7
    assert RUNGS.last_to_go_on(scores, {0: 1}) is None
    assert RUNGS.last_to_go_on({}, {}) is None


ARRIVALS = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, math.nan]), min_size=1, max_size=40)


@given(ARRIVALS, st.sampled_from([2, 3, 4]), st.sampled_from(["max", "min"]))
def test_however_they_arrive_the_best_share_has_gone_on(values, factor, mode) -> None:
    rungs = Rungs((1,), factor, mode)
    scores: dict[int, dict[int, float]] = {}
    paused: dict[int, int] = {}
    went_on, hopeless = set(), set()
    for number, value in enumerate(values):
        scores[number] = {1: value}
        if rungs.has_to_wait(scores, number, 1):
            paused[number] = 1
        else:
            went_on.add(number)
        while (chosen := rungs.next_to_go_on(scores, paused)) is not None:
            del paused[chosen]
            went_on.add(chosen)
        hopeless.update(rungs.out_of_reach(scores, paused, len(values)))
    sign = -1 if mode == "max" else 1
    known = [number for number in scores if not math.isnan(values[number])]
    best = sorted(known, key=lambda number: (sign * values[number], number))
    assert went_on >= {*best[: len(values) // factor]}
    assert not hopeless & went_on
