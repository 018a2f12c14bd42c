"""What an expert believes: where points are drawn, how often, and what is refused."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from segan_ray.search.points.priors import HALVED_AFTER, believed_point
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.study.sweep_study import SweepStudy
from tests.unit.search.study.test_study import space

LR = {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}
PARAMETERS: dict[str, Any] = {
    "segmentor.lr": {**LR, "prior": {"value": 1e-3, "spread": 3}},
    "critic.lr": LR,
    "critic.depth": {"type": "int", "low": 1, "high": 4, "prior": {"value": 3, "spread": 0.5}},
    "segmentor.skip": {
        "type": "choice", "values": ["add", "concat"], "prior": {"value": "add", "spread": 0.2},
    },
    "loss.scale_weights": {
        "type": "floats", "length": "critic.depth + 1", "low": 0.1, "high": 4.0, "log": True,
        "prior": {"value": 1.0, "spread": 1.5},
    },
}  # fmt: skip


def believing(**changes: Any) -> SearchSpace:
    sampler = {"type": "tpe", "seed": 3, "startup_trials": 4}
    return space(**{"parameters": PARAMETERS, "sampler": sampler, **changes})


@given(st.integers(0, 200), st.integers(0, 2**32))
def test_a_point_lies_in_its_space(number: int, seed: int) -> None:
    searched = believing()
    point = believed_point(searched, number, Random(seed))
    if number == 0:
        assert point is not None
        assert point["segmentor.lr"] == 1e-3
        assert (point["critic.depth"], point["segmentor.skip"]) == (3, "add")
        assert [point[f"loss.scale_weights.{index}"] for index in range(4)] == [1.0] * 4
    if point is not None:
        assert 1e-5 <= point["segmentor.lr"] <= 1e-1
        assert point["critic.depth"] in (1, 2, 3, 4)
        weights = [name for name in point if name.startswith("loss.scale_weights.")]
        assert len(weights) == point["critic.depth"] + 1
        assert all(0.1 <= point[name] <= 4.0 for name in weights)


def test_points_lie_around_what_is_believed_and_others_evenly() -> None:
    random, searched = Random(1), believing()
    points = [believed_point(searched, 1, random) for _ in range(2000)]
    drawn = [point for point in points if point is not None]
    near = [point for point in drawn if 1e-3 / 3 <= point["segmentor.lr"] <= 3e-3]
    assert 0.64 < len(near) / len(drawn) < 0.72, "within one standard deviation"
    even = [point for point in drawn if 1e-3 / 3 <= point["critic.lr"] <= 3e-3]
    assert 0.19 < len(even) / len(drawn) < 0.29, "0.95 of 4 decades"
    # A fifth may be either.
    added = [point for point in drawn if point["segmentor.skip"] == "add"]
    assert 0.87 < len(added) / len(drawn) < 0.93


def test_a_belief_fades() -> None:
    random, searched = Random(1), believing()

    def share(number: int) -> float:
        return sum(believed_point(searched, number, random) is not None for _ in range(600)) / 600

    assert share(0) == 1
    assert share(HALVED_AFTER) == pytest.approx(1 / 2, abs=0.07)
    assert share(9 * HALVED_AFTER) == pytest.approx(1 / 10, abs=0.05)
    assert believed_point(space(), 0, random) is None


def test_a_sweep_begins_with_what_is_believed_behind_its_first_points() -> None:
    first = {"critic.depth": 1, "segmentor.lr": 1e-5}
    study = SweepStudy.create("s", believing(enqueue=[first]), None)
    assert study.ask().params["segmentor.lr"] == 1e-5
    believed = study.ask().params
    assert believed["segmentor.lr"] == 1e-3
    assert believed["loss.scale_weights"] == [1.0] * 4
    again = SweepStudy.create("s", believing(enqueue=[first]), None)
    points = [again.ask().params for _ in range(8)]
    assert points[1] == believed
    assert points[2:] == [study.ask().params for _ in range(6)]


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ({**LR, "prior": {"value": 1, "spread": 3}}, r"prior.value 1 is not in 1e-05 to 0.1"),
        ({**LR, "prior": {"value": 1e-3, "spread": 0.5}}, "is a factor where log is true"),
        ({**LR, "prior": {"value": 1e-3}}, "spread"),
        (
            {"type": "choice", "values": [1, 2], "prior": {"value": 3, "spread": 0.1}},
            "prior.value 3 is not in 1 or 2",
        ),
        (
            {"type": "choice", "values": [1, 2], "prior": {"value": 1, "spread": 3}},
            "share of draws that may be any",
        ),
        ({"type": "int", "low": 1, "high": 4, "prior": {"value": 2.5, "spread": 1}}, "whole"),
    ],
)
def test_beliefs_that_mean_nothing_are_refused(parameter: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        space(parameters={"segmentor.lr": parameter})
