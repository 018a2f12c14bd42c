from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segan_ray.config import paths
from segan_ray.search.space.scheduler_settings import CHANGEABLE
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.study.population import perturb, source_trial

SPACE = SearchSpace.model_validate(
    {
        "name": "test",
        "parameters": {
            "segmentor.lr": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
            "loss.dice_weight": {"type": "float", "low": 0, "high": 2},
            "critic.steps": {"type": "int", "low": 1, "high": 4},
            "critic.clamp": {"type": "choice", "values": [None, 0.01, 0.05]},
            "data.flip": {"type": "fixed", "value": True},
            "loss.scale_weights": {"type": "floats", "length": 4, "low": 0.1, "high": 4},
        },
        "scheduler": {"type": "pbt"},
    }
)
POINTS = st.fixed_dictionaries(
    {
        "segmentor.lr": st.floats(1e-5, 1e-2),
        "loss.dice_weight": st.floats(0, 2),
        "critic.steps": st.integers(1, 4),
        "critic.clamp": st.sampled_from([None, 0.01, 0.05]),
        "data.flip": st.just(True),
        "loss.scale_weights": st.lists(st.floats(0.1, 4), min_size=4, max_size=4),
    }
)
SCORES = st.dictionaries(
    st.integers(0, 50), st.floats(allow_infinity=False), min_size=1, max_size=20
)
QUANTILES = st.floats(0.01, 0.5)


def test_the_weakest_takes_over_from_the_strongest() -> None:
    scores = {0: 0.1, 1: 0.5, 2: 0.9, 3: 0.4}
    rng = random.Random(0)
    assert source_trial(scores, 0, "max", 0.25, rng) == 2
    assert source_trial(scores, 2, "min", 0.25, rng) == 0
    assert source_trial(scores, 1, "max", 0.25, rng) is None
    assert source_trial(scores, 2, "max", 0.25, rng) is None


def test_few_equal_or_unknown_trials_have_no_source_trial() -> None:
    rng = random.Random(0)
    assert source_trial({0: 0.1, 1: 0.5, 2: 0.9}, 0, "max", 0.25, rng) is None
    assert source_trial(dict.fromkeys(range(8), 0.3), 7, "max", 0.25, rng) is None
    assert source_trial({1: 0.1, 2: 0.5, 3: 0.9, 4: 1.0}, 0, "max", 0.25, rng) is None


def test_what_is_no_number_is_the_worst() -> None:
    scores = {0: 0.1, 1: math.nan, 2: 0.9, 3: 0.4}
    assert source_trial(scores, 1, "max", 0.25, random.Random(0)) == 2
    assert source_trial(scores, 1, "min", 0.25, random.Random(0)) == 0


def test_every_one_of_the_strongest_may_give() -> None:
    scores = {number: float(number) for number in range(12)}
    rng = random.Random(0)
    assert {source_trial(scores, 0, "max", 0.25, rng) for _ in range(100)} == {9, 10, 11}


@given(SCORES, st.sampled_from(["max", "min"]), QUANTILES, st.integers())
def test_a_source_trial_is_better_and_among_the_best(scores, mode, quantile, seed: int) -> None:
    for own, score in scores.items():
        found = source_trial(scores, own, mode, quantile, random.Random(seed))
        if found is None:
            continue
        assert len(scores) >= 4
        assert not math.isnan(scores[found])
        better = scores[found] > score if mode == "max" else scores[found] < score
        assert better or math.isnan(score)
        ahead = [
            each
            for each in scores.values()
            if (each > scores[found] if mode == "max" else each < scores[found])
        ]
        assert len(ahead) < max(1, len(scores) * quantile)


@given(POINTS, st.floats(0, 1), st.integers(0, 2**32 - 1), st.booleans())
def test_what_is_changed_stays_within_its_range(params, resample, seed: int, numpy: bool) -> None:
    rng = np.random.default_rng(seed) if numpy else random.Random(seed)
    before = {**params}
    changed = perturb(SPACE.parameters, params, resample, rng)
    assert params == before
    assert changed.keys() == params.keys()
    for path, value in changed.items():
        items = value if isinstance(value, list) else [value]
        assert all(SPACE.parameters[path].misfit(item) is None for item in items), path
    SPACE.experiment(changed)


@given(POINTS, st.integers())
def test_without_resampling_everything_moves_one_step(params, seed: int) -> None:
    changed = perturb(SPACE.parameters, params, 0.0, random.Random(seed))
    assert abs(changed["critic.steps"] - params["critic.steps"]) == 1
    clamps = [None, 0.01, 0.05]
    moved = clamps.index(changed["critic.clamp"]) - clamps.index(params["critic.clamp"])
    assert abs(moved) == 1
    assert changed["data.flip"] is True
    for was, now in zip(params["loss.scale_weights"], changed["loss.scale_weights"], strict=True):
        assert now in {min(max(was * 0.8, 0.1), 4), min(was * 1.25, 4)}


def test_all_is_drawn_anew_where_it_should_be() -> None:
    params = {"segmentor.lr": 1e-5, "critic.steps": 1, "critic.clamp": None}
    rng = random.Random(0)
    drawn = [perturb(SPACE.parameters, params, 1.0, rng) for _ in range(300)]
    assert {point["critic.steps"] for point in drawn} == {1, 2, 3, 4}
    assert {point["critic.clamp"] for point in drawn} == {None, 0.01, 0.05}
    # Log-uniform: a third in each decade.
    assert 60 < sum(point["segmentor.lr"] < 1e-4 for point in drawn) < 140


@pytest.mark.parametrize("path", sorted(CHANGEABLE))
def test_what_may_change_is_a_setting(path: str) -> None:
    assert path in set(paths())
