from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from segan_ray.config import Experiment
from segan_ray.errors import ConfigError
from segan_ray.search.space import SearchSpace, load_space
from segan_ray.search.study import make_sampler

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "search_spaces").rglob("*.yaml"))
GOOD = {
    "name": "test",
    "parameters": {
        "segmentor.lr": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
        "critic.depth": {"type": "int", "low": 1, "high": 5},
        "loss.scale_weights": {
            "type": "floats", "length": "critic.depth + 1", "low": 0.1, "high": 4, "log": True,
        },
        "segmentor.skip": {"type": "choice", "values": ["add", "concat"]},
    },
}  # fmt: skip


def write(tmp_path: Path, tree: object) -> Path:
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def changed(**changes: object) -> dict:
    return {**GOOD, **changes}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_every_shipped_space_loads_and_is_named_after_its_file(file: Path) -> None:
    space = load_space(file)
    assert space.name == file.stem


def test_there_are_spaces_to_ship() -> None:
    assert {file.stem for file in SHIPPED} >= {
        "smoke", "demo", "learning_rates", "critic", "loss_scales",
    }  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_every_point_makes_an_experiment(seed: int) -> None:
    space = SearchSpace.model_validate(GOOD)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    point = space.suggest(study.ask())
    experiment = space.experiment(point)
    assert isinstance(experiment, Experiment)
    assert len(experiment.loss.scale_weights or ()) == experiment.critic.depth + 1
    assert list(point) == [
        "segmentor.lr", "critic.depth", "segmentor.skip", "loss.scale_weights",
    ]  # fmt: skip


def test_the_base_holds_in_every_trial() -> None:
    space = SearchSpace.model_validate(changed(base={"training": {"epochs": 7}}))
    trial = optuna.create_study().ask()
    assert space.experiment(space.suggest(trial)).training.epochs == 7


def parameters(**entry: object) -> dict:
    return changed(parameters=entry)


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (
            changed(parameters={"critic.dept": {"type": "int", "low": 1, "high": 2}}),
            "unknown parameter 'critic.dept'. Did you mean 'critic.depth'?",
        ),
        (
            changed(objective={"metric": "val/dice_meen"}),
            "no trial reports the metric 'val/dice_meen'. Did you mean 'val/dice_mean'?",
        ),
        (
            changed(parameters={"critic.depth": {"type": "int", "low": 3, "high": 1}}),
            "low 3 to high 1 is no range",
        ),
        (
            changed(
                parameters={"segmentor.lr": {"type": "float", "low": 0, "high": 1, "log": True}}
            ),
            "log needs low above 0",
        ),
        (
            changed(parameters={"critic.depth": {"type": "int", "low": 1, "high": 9}}),
            "critic.depth is 9",
        ),
        (
            changed(parameters={"variant": {"type": "choice", "values": ["s1-3c", "s9"]}}),
            "variant is 's9'",
        ),
        (changed(parameters={"critic.depth": {"type": "integer", "low": 1}}), "type 'integer'"),
        (changed(parameters={"critic.depth": {"low": 1}}), "'type' is missing"),
        (changed(parameters={}), "at least 1 item"),
        (
            changed(parameters={"loss.scale_weights": {
                "type": "floats", "length": "critic.deep + 1", "low": 0.1, "high": 1}}),
            "length names 'critic.deep', no setting. Did you mean 'critic.depth'?",
        ),
        (
            changed(parameters={"loss.scale_weights": {
                "type": "floats", "length": "critic.depth * 2", "low": 0.1, "high": 1}}),
            "is not a count, a setting, or a setting + a count",
        ),
        (
            changed(parameters={"segmentor.lr": {
                "type": "floats", "length": 2, "low": 0.1, "high": 1}}),
            "segmentor.lr is [0.1, 0.1]",
        ),
        (
            changed(parameters={"loss.scale_weights": {
                "type": "floats", "length": "critic.depth", "low": 0.1, "high": 1}}),
            "critic.depth 3 makes 4 scales. Give 4 weights.",
        ),
        (
            changed(parameters={"loss.scale_weights": {
                "type": "floats", "length": "critic.clamp", "low": 0.1, "high": 1}}),
            "which is no whole number",
        ),
        (
            changed(base={"training": {"epochs": 2}}, scheduler={
                "type": "asha", "grace_period": 5}),
            "grace_period 5 is more than the 2 epochs",
        ),
        (
            {"name": "x", "base": {"loss": {"scale_weights": [1, 1, 1, 1]}},
             "parameters": {"critic.depth": {"type": "int", "low": 1, "high": 5}}},
            "critic.depth 1 makes 2 scales",
        ),
        (changed(base={"training.epochs": 3}), "is written as one key; nest it"),
        (changed(sampler={"type": "tpe", "seed": -1}), "sampler.tpe.seed"),
        (changed(base={"critic": {"widht": 3}}), "unknown setting 'critic.widht'"),
        (changed(sampler={"type": "tpe", "sed": 1}), "Did you mean 'seed'?"),
        (changed(scheduler={"type": "asah"}), "type 'asah'"),
        (changed(budget={"trails": 3}), "Did you mean 'trials'?"),
        (changed(budget={"trials": 0}), "greater than or equal to 1"),
        (changed(name="../evil"), "name"),
        ({"name": "x"}, "'parameters' is missing"),
        ([1, 2], "holds a list"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_words(tmp_path: Path, tree: object, words: str) -> None:
    file = write(tmp_path, tree)
    with pytest.raises(ConfigError) as caught:
        load_space(file)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)


def test_all_problems_are_said_at_once(tmp_path: Path) -> None:
    tree = changed(
        parameters={
            "critic.dept": {"type": "int", "low": 1, "high": 2},
            "segmentor.lr": {"type": "float", "low": 2, "high": 1},
        },
        budget={"trials": 0},
    )
    with pytest.raises(ConfigError) as caught:
        load_space(write(tmp_path, tree))
    assert len(caught.value.problems) == 3


def test_a_space_survives_writing_and_reading(tmp_path: Path) -> None:
    space = load_space(write(tmp_path, GOOD))
    assert load_space(write(tmp_path, space.model_dump(mode="json"))) == space


def test_drawn_epochs_bound_the_scheduler() -> None:
    space = SearchSpace.model_validate(
        changed(parameters={"training.epochs": {"type": "int", "low": 4, "high": 40}})
    )
    assert (space.fewest_epochs(), space.most_epochs()) == (4, 40)
    assert SearchSpace.model_validate(GOOD).most_epochs() == 20


def test_the_sampler_is_the_one_asked_for() -> None:
    tpe = make_sampler(SearchSpace.model_validate(GOOD))
    assert isinstance(tpe, optuna.samplers.TPESampler)
    random = make_sampler(SearchSpace.model_validate(changed(sampler={"type": "random"})))
    assert isinstance(random, optuna.samplers.RandomSampler)
