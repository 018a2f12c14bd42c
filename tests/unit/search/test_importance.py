"""Parameter importances: what matters comes first, and what cannot be compared is left out."""

from __future__ import annotations

import random

import pytest

from segan_ray.search.results.importance import FEWEST, importances
from segan_ray.search.results.ranking import TrialRecord


def trials(count: int, **more) -> list[TrialRecord]:
    """Return trials whose score is all ``lr``'s doing, and none of ``noise``'s."""
    chance = random.Random(0)
    drawn = [(chance.random(), chance.random()) for _ in range(count)]
    return [
        TrialRecord(
            str(i), "completed", 3, 1 - abs(lr - 0.5), "run",
            {"lr": lr, "noise": noise, "kind": ["a", "b"][i % 2], "fixed": 3}, **more,
        )
        for i, (lr, noise) in enumerate(drawn)
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["max", "min"])
def test_what_decides_comes_first(mode) -> None:
    found = importances(trials(60), mode)
    assert next(iter(found)) == "lr"
    assert found["lr"] > 0.7
    assert set(found) == {"lr", "noise", "kind"}
    assert sum(found.values()) == pytest.approx(1)
    assert found == importances(trials(60), mode)


def test_too_few_trials_say_nothing() -> None:
    assert importances([], "max") == {}
    assert importances(trials(FEWEST - 1), "max") == {}
    assert importances(trials(60, repeat_of="0"), "max") == {}


def test_what_only_some_trials_have_is_left_out() -> None:
    some = trials(20)
    one = TrialRecord("x", "stopped", 1, 0.3, "run", {"lr": 0.9, "list": [1.0, 2.0]})
    failed = TrialRecord("y", "failed", 0, None, "run", {})
    assert set(importances([*some, one, failed], "max")) == {"lr"}


def test_numbers_that_are_not_finite_are_left_out() -> None:
    odd = TrialRecord("x", "completed", 3, float("nan"), "run", {"lr": 0.1})
    infinite = TrialRecord(
        "z", "completed", 3, 0.2, "run", {"lr": float("inf"), "noise": 0.5, "kind": "a"}
    )
    assert set(importances([*trials(20), odd, infinite], "max")) == {"noise", "kind"}


def test_a_list_counts_item_by_item() -> None:
    chance = random.Random(1)
    some = [
        TrialRecord(str(i), "completed", 1, weight, "run", {"w": [weight, chance.random()]})
        for i, weight in enumerate(chance.random() for _ in range(40))
    ]
    assert next(iter(importances(some, "max"))) == "w[0]"


@pytest.mark.parametrize("choices", [(1.0, None), (1, 0.5, "off"), (True, 2, None)])
def test_numbers_among_other_choices_are_compared(choices) -> None:
    some = [
        TrialRecord(str(i), "completed", 3, float(i % len(choices)), "run", {"clamp": drawn})
        for i, drawn in enumerate(choices * 6)
    ]
    assert importances(some, "max") == {"clamp": pytest.approx(1)}
