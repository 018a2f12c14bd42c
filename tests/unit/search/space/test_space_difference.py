from __future__ import annotations

from typing import Any

import pytest

from segan_ray.search.space.difference import difference
from segan_ray.search.space.search_space import SearchSpace

GOOD: dict[str, Any] = {
    "name": "test",
    "parameters": {
        "critic.depth": {"type": "int", "low": 1, "high": 5},
        "segmentor.skip": {"type": "choice", "values": ["add", "concat"]},
    },
    "sampler": {"type": "tpe", "seed": 0},
}


def space(**changes: Any) -> SearchSpace:
    return SearchSpace.model_validate({**GOOD, **changes})


def parameters(**changes: Any) -> dict[str, Any]:
    return {**GOOD["parameters"], **changes}


@pytest.mark.parametrize(
    ("changes", "sentences"),
    [
        ({"name": "other"}, ["name was test and is other."]),
        ({"sampler": {"type": "tpe", "seed": 1}}, ["sampler: seed was 0 and is 1."]),
        ({"sampler": {"type": "random"}}, ["sampler was tpe and is random."]),
        ({"scheduler": {"type": "asha", "grace_period": 2}},
         ["scheduler: grace_period was 1 and is 2."]),
        ({"base": {"training": {"epochs": 3}}}, ["training.epochs was 20 and is 3."]),
        ({"objective": {"metric": "val/dice_core"}},
         ["objective was val/dice_mean (max) and is val/dice_core (max)."]),
        ({"enqueue": []}, ["enqueue was [paper, authors-brats] and is []."]),
        ({"warm_start": "before"}, ["warm_start was null and is before."]),
        ({"parameters": parameters(**{"critic.depth": {"type": "int", "low": 1, "high": 6}})},
         ["critic.depth: high was 5 and is 6."]),
        ({"parameters": parameters(**{"critic.depth": {"type": "choice", "values": [1, 2]}})},
         ["critic.depth was int and is choice."]),
        ({"parameters": {"critic.depth": GOOD["parameters"]["critic.depth"],
                         "critic.lr": {"type": "float", "low": 0.1, "high": 1}}},
         ["segmentor.skip was drawn and is not.", "critic.lr is drawn and was not."]),
    ],
)  # fmt: skip
def test_a_difference_is_a_sentence(changes: dict[str, Any], sentences: list[str]) -> None:
    assert difference(space(), space(**changes)) == sentences


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"budget": {"trials": 99, "max_concurrent": 2, "keep_checkpoints": 1}},
        {"base": {"training": {"epochs": 20}}},
        {"base": {"critic": {"depth": 2}}},
        {"objective": [{"metric": "val/dice_mean"}]},
    ],
    ids=["nothing", "budget", "written out", "drawn over", "a list of one"],
)
def test_what_searches_the_same_is_the_same(changes: dict[str, Any]) -> None:
    assert difference(space(), space(**changes)) == []


def test_conditions_count() -> None:
    when = {"type": "int", "low": 1, "high": 5, "when": {"segmentor.skip": "add"}}
    (said,) = difference(space(), space(parameters=parameters(**{"critic.depth": when})))
    assert said == "critic.depth: when was {} and is {segmentor.skip: [add]}."
