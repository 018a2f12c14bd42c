from __future__ import annotations

from typing import Any

import optuna
import pytest

from segan_ray.search.points.first_points import first_points
from segan_ray.search.space.search_space import SearchSpace

RATES = {
    name: {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}
    for name in ("segmentor.lr", "critic.lr")
}
DEPTH = {"type": "int", "low": 1, "high": 6}
WEIGHTS = {"type": "floats", "length": "critic.depth + 1", "low": 0.1, "high": 4}


def space(parameters: dict[str, Any], **more: Any) -> SearchSpace:
    return SearchSpace.model_validate({"name": "test", "parameters": parameters, **more})


def test_presets_become_points_that_optuna_draws() -> None:
    searched = space(
        {**RATES, "critic.depth": DEPTH, "loss.scale_weights": WEIGHTS},
        enqueue=["paper", "authors-skin"],
    )
    first = first_points(searched)
    assert first.skipped == ()
    paper, code = first.points
    rates = {"segmentor.lr": 2e-5, "critic.lr": 2e-5}
    # The paper weighs its scales alike.
    assert paper == {
        **rates,
        "critic.depth": 3,
        **{f"loss.scale_weights.{i}": 1.0 for i in range(4)},
    }
    assert [code[f"loss.scale_weights.{i}"] for i in range(7)] == [1, 1, 2, 2, 2, 2, 4]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for point in first.points:
        study.enqueue_trial(point)
    for point in first.points:
        trial = study.ask()
        drawn = searched.suggest(trial)
        assert trial.params == point
        assert drawn["critic.depth"] == point["critic.depth"]


def test_a_point_outside_the_space_is_skipped_and_said() -> None:
    narrow = {"segmentor.lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}}
    first = first_points(space({**narrow, "critic.depth": {**DEPTH, "high": 3}}))
    assert first.points == ()
    assert first.skipped == (
        "preset 'paper' is not tried: segmentor.lr is 2e-05, the space draws 0.0001 to 0.1.",
        "preset 'authors-brats' is not tried: segmentor.lr is 2e-05, the space draws 0.0001 to "
        "0.1; critic.depth is 6, the space draws 1 to 3.",
    )


def test_weights_that_do_not_fit_the_critic_are_skipped() -> None:
    first = first_points(space({"loss.scale_weights": WEIGHTS}))
    assert len(first.points) == 1
    (said,) = first.skipped
    assert "loss.scale_weights is [1, 1, 2, 2, 4, 8, 16], the space draws 4 numbers there" in said


def test_null_and_words_lie_outside_ranges() -> None:
    clamp = {"critic.clamp": {"type": "float", "low": 0.01, "high": 0.1}}
    entries = [{"critic.clamp": None}, {"critic.clamp": "much"}]
    first = first_points(space(clamp, enqueue=entries))
    assert "critic.clamp is null, the space draws 0.01 to 0.1" in first.skipped[0]
    assert "entry 2 of enqueue is not tried: critic.clamp is much" in first.skipped[1]


def test_the_same_point_is_tried_once() -> None:
    parameters = {"data.flip": {"type": "choice", "values": [True, False]}}
    assert first_points(space(parameters)).points == ({"data.flip": False},)


def test_a_choice_is_told_from_a_number_like_it() -> None:
    parameters = {"data.flip": {"type": "choice", "values": [True, False]}}
    first = first_points(space(parameters, enqueue=[{"data.flip": 1}]))
    assert first.points == ()
    assert "data.flip is 1, the space draws true or false" in first.skipped[0]


def test_a_mapping_leaves_the_rest_to_the_sampler() -> None:
    searched = space(
        {**RATES, "critic.depth": DEPTH, "loss.scale_weights": WEIGHTS},
        enqueue=[
            {"critic.lr": 1e-3},
            {"critic.depth": 2, "loss.scale_weights": [1, 2, 3]},
            {"loss.scale_weights": [1, 1, 1, 1]},
            {"critic.depth": 2, "loss.scale_weights": [1, 2]},
            {"critic.depth": 2, "loss.scale_weights": [1, 2, 9]},
            {"critic.depth": 2.5},
        ],
    )
    first = first_points(searched)
    assert first.points == (
        {"critic.lr": 1e-3},
        {"critic.depth": 2, **{f"loss.scale_weights.{i}": i + 1.0 for i in range(3)}},
    )
    for said, words in zip(
        first.skipped,
        [
            "loss.scale_weights depends on critic.depth: give that too",
            "loss.scale_weights is [1, 2], the space draws 3 numbers there",
            "loss.scale_weights.2 is 9, the space draws 0.1 to 4",
            "critic.depth is 2.5, the space draws whole numbers 1 to 6",
        ],
        strict=True,
    ):
        assert words in said


CONDITIONAL = {
    "variant": {"type": "choice", "values": ["s1-3c", "unet"]},
    "critic.depth": {**DEPTH, "when": {"variant": "s1-3c"}},
    "training.schedule": {"type": "fixed", "value": "poly", "when": {"variant": "unet"}},
}


@pytest.mark.parametrize(
    ("entry", "point"),
    [
        ("paper", {"variant": "s1-3c", "critic.depth": 3}),
        ({"variant": "unet"}, {"variant": "unet"}),
        ({"variant": "s1-3c", "critic.depth": 4}, {"variant": "s1-3c", "critic.depth": 4}),
    ],
)
def test_conditions_hold_in_first_points(entry: Any, point: dict[str, Any]) -> None:
    assert first_points(space(CONDITIONAL, enqueue=[entry])).points == (point,)


def test_a_value_that_would_not_be_drawn_is_said() -> None:
    entries = [{"variant": "unet", "critic.depth": 2}, {"critic.depth": 2}]
    first = first_points(space(CONDITIONAL, enqueue=entries))
    assert first.points == ()
    assert "critic.depth is not drawn beside the other values" in first.skipped[0]
    assert "critic.depth depends on variant: give that too" in first.skipped[1]


def test_a_point_no_run_could_have_is_said() -> None:
    searched = space(
        {"loss.scale_weights": {"type": "floats", "length": 4, "low": 0, "high": 4}},
        enqueue=[{"loss.scale_weights": [0, 0, 0, 0]}],
    )
    assert "at least one must be above 0" in first_points(searched).skipped[0]


def test_a_grid_takes_no_points_first() -> None:
    searched = space({"critic.depth": DEPTH}, sampler={"type": "grid"})
    first = first_points(searched)
    assert (first.points, first.skipped) == ((), ())
