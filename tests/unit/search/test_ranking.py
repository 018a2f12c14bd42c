"""The leaderboard, the winner, and the Pareto front."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segan_ray.search.results.ranking import (
    SweepRecord,
    TrialRecord,
    pareto_front,
    rank,
    said_status,
    winner,
)

VALUES = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
MODES = st.sampled_from(["max", "min"])


def trial(name: str, score: float | None, **more) -> TrialRecord:
    return TrialRecord(name, "completed", 3, score, f"run-{name}", {}, **more)


def sweep(*trials: TrialRecord, mode="max", **more) -> SweepRecord:
    return SweepRecord(
        "s", "finished", "val/dice_mean", mode, "f", "now", rank(trials, mode), **more
    )


def test_equal_scores_are_ordered_by_number_and_no_score_comes_last() -> None:
    trials = [trial("1000", 0.5), trial("002", None), trial("003", 0.5), trial("001", 0.5)]
    assert [one.trial for one in rank(trials, "max")] == ["001", "003", "1000", "002"]
    assert rank(trials, "max") == rank(list(reversed(trials)), "min")


def test_without_repeats_the_best_score_wins() -> None:
    record = sweep(trial("000", 0.4), trial("001", 0.6), trial("002", 0.5))
    assert record.best is not None
    assert record.best.trial == "001"
    assert record.document()["repeats"] == []


def test_what_is_infeasible_comes_behind_and_does_not_win() -> None:
    record = sweep(
        trial("000", 0.9, infeasible=True), trial("001", 0.3), trial("002", None),
        trial("003", 0.8, repeat_of="001", infeasible=True), trial("004", 0.5, repeat_of="001"),
    )  # fmt: skip
    assert [one.trial for one in record.trials] == ["004", "001", "000", "003", "002"]
    assert record.best is not None
    assert record.best.trial == "004"
    assert record.repeats[0].scores == (0.5,)
    assert sweep(trial("000", 0.9, infeasible=True)).best is None
    assert [said_status(one) for one in record.trials[:3]] == [*["completed"] * 2, "infeasible"]
    size = "model/parameters"
    several = sweep(
        trial("000", 0.9, infeasible=True, objectives={"val/dice_mean": 0.9, size: 1.0}),
        trial("001", 0.5, objectives={"val/dice_mean": 0.5, size: 2.0}),
        objectives=(("val/dice_mean", "max"), (size, "min")),
    )
    assert several.pareto == ("001",)
    assert several.document()["trials"][-1]["infeasible"]


def test_with_repeats_the_best_mean_over_fresh_seeds_wins() -> None:
    record = sweep(
        trial("000", 0.9),  # never repeated: it does not compete
        trial("001", 0.8), trial("002", 0.7),
        trial("003", 0.5, repeat_of="001"), trial("004", 0.4, repeat_of="001"),
        trial("005", 0.65, repeat_of="002"), trial("006", 0.55, repeat_of="002"),
        trial("007", None, repeat_of="002"),
    )  # fmt: skip
    assert [one.trial for one in record.trials][:3] == ["000", "001", "002"]
    assert record.best is not None
    assert record.best.trial == "002"  # the lucky original is the highest of its group
    groups = record.document()["repeats"]
    assert [group["trial"] for group in groups] == ["002", "001"]
    assert groups[0]["scores"] == [0.65, 0.55]
    assert groups[0]["mean"] == pytest.approx(0.6)
    assert groups[0]["std"] == pytest.approx(0.0707, abs=1e-4)


def test_a_repeat_above_its_original_is_the_best() -> None:
    record = sweep(
        trial("000", 0.2), trial("001", 0.1, repeat_of="000"), trial("002", 0.3, repeat_of="000"),
        mode="min",
    )  # fmt: skip
    assert record.best is not None
    assert record.best.trial == "001"
    assert sweep(trial("0", 1.0), trial("1", 1.0, repeat_of="0")).repeats[0].std is None


@given(st.lists(st.tuples(VALUES, st.integers(0, 3)), max_size=12), MODES)
def test_the_winner_is_that_of_brute_force(scores, mode) -> None:
    trials = [
        trial(f"{n:03d}", score, repeat_of=None if n < 4 else f"{of:03d}")
        for n, (score, of) in enumerate(scores)
    ]
    better = max if mode == "max" else min
    groups = {
        of: [one.score for one in trials if one.repeat_of == of]
        for of in {one.repeat_of for one in trials} - {None}
    }
    won = winner(trials, mode)
    if not trials:
        assert won is None
    elif not groups:
        assert won.score == better(one.score for one in trials)
    else:
        means = {of: sum(found) / len(found) for of, found in groups.items()}
        assert means[won.repeat_of or won.trial] == pytest.approx(better(means.values()))


@given(st.integers(1, 3).flatmap(
    lambda k: st.tuples(
        st.lists(MODES, min_size=k, max_size=k),
        st.lists(st.tuples(*[VALUES] * k), max_size=25),
    )
))  # fmt: skip
def test_the_front_is_that_of_brute_force(case) -> None:
    modes, points = case
    signs = [1 if mode == "max" else -1 for mode in modes]

    def dominates(one, other) -> bool:
        pairs = [(s * a, s * b) for s, a, b in zip(signs, one, other, strict=True)]
        return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)

    expected = [
        index for index, point in enumerate(points)
        if not any(dominates(other, point) for other in points)
    ]  # fmt: skip
    assert list(pareto_front(points, modes)) == expected


def test_a_sweep_of_several_objectives_lists_its_front() -> None:
    objectives = (("val/dice_mean", "max"), ("time/epoch_s", "min"))
    values = {"000": (0.5, 1.0), "001": (0.6, 2.0), "002": (0.5, 2.0), "003": (float("nan"), 0.1)}
    trials = [
        trial(name, dice, objectives={"val/dice_mean": dice, "time/epoch_s": seconds})
        for name, (dice, seconds) in values.items() if name != "003"
    ]  # fmt: skip
    broken = trial("003", None, objectives=dict(zip(dict(objectives), values["003"], strict=True)))
    record = sweep(*trials, broken, trial("004", None), objectives=objectives)
    assert set(record.pareto) == {"000", "001"}
    assert record.document()["pareto"] == list(record.pareto)
    assert record.document()["objectives"][1] == {"metric": "time/epoch_s", "mode": "min"}
    assert sweep(*trials).pareto == ()


def test_modes_do_not_change_the_size_of_what_ties() -> None:
    points = list(product((0.0, 1.0), repeat=2))
    assert pareto_front(points, ["max", "max"]) == (3,)
    assert pareto_front(points, ["min", "min"]) == (0,)
