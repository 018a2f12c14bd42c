"""The best score of a sweep so far, by the epochs and by the hours that it trained."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from segan_ray.search.results.progress import BestSoFar, TimedEpoch, progress

HOUR = 3600.0
EPOCHS = st.lists(
    st.builds(
        TimedEpoch,
        at_s=st.integers(0, 100).map(float),
        took_s=st.integers(1, 20).map(float),
        score=st.one_of(st.just(math.nan), st.integers(0, 5).map(float)),
    ),
    max_size=12,
)


def test_a_night_in_which_nothing_trains_does_not_count() -> None:
    epochs = [
        TimedEpoch(1 * HOUR, HOUR, 0.4),
        TimedEpoch(2 * HOUR, HOUR, 0.3),
        TimedEpoch(12 * HOUR, HOUR, 0.6),
        TimedEpoch(13 * HOUR, HOUR, 0.5),
    ]
    assert progress(reversed(epochs), "max") == (
        BestSoFar(1, 1.0, 0.4),
        BestSoFar(3, 3.0, 0.6),
        BestSoFar(4, 4.0, 0.6),
    )


def test_trials_side_by_side_take_the_hours_of_one() -> None:
    epochs = [TimedEpoch(HOUR, HOUR, 0.4), TimedEpoch(1.5 * HOUR, HOUR, 0.5)]
    assert progress(epochs, "max")[-1] == BestSoFar(2, 1.5, 0.5)


def test_of_a_least_objective_the_least_is_best_and_no_score_is_none() -> None:
    scores = (math.nan, 3.0, 2.0, 2.0, 4.0)
    epochs = [TimedEpoch(at * HOUR, HOUR, score) for at, score in enumerate(scores, start=1)]
    assert [point.best for point in progress(epochs, "min")] == [3.0, 2.0, 2.0]
    assert progress(epochs[:1], "min") == ()
    assert progress([], "max") == ()


@given(EPOCHS)
def test_hours_are_those_that_any_trial_trained(epochs: list[TimedEpoch]) -> None:
    found = progress(epochs, "max")
    scores = [each.score for each in epochs if not math.isnan(each.score)]
    if not scores:
        assert found == ()
        return
    seconds = {
        second for each in epochs for second in range(int(each.at_s - each.took_s), int(each.at_s))
    }
    assert found[-1].best == max(scores)
    assert found[-1].epochs <= len(epochs)
    # What was trained before an epoch that ended is not always known when that one is counted.
    assert found[-1].hours * HOUR <= len(seconds) + 1e-6
    assert [point.best for point in found] == sorted(point.best for point in found)
