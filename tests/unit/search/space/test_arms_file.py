"""Arms files: what an arm adds to what all share, and what makes a comparison unfair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from segan_ray.errors import ConfigError
from segan_ray.search.space.arms_file import Arms, build_arms, load_arms
from segan_ray.search.space.space_file import load_space, resolve_space, shipped_spaces

LR = {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}
DEPTH = {"type": "int", "low": 1, "high": 3}
TREE: dict[str, Any] = {
    "name": "methods",
    "base": {"training": {"epochs": 12, "steps_per_epoch": 5}},
    "parameters": {"segmentor.lr": LR},
    "sampler": {"type": "tpe", "seed": 4},
    "scheduler": {"type": "asha", "grace_period": 4, "reduction_factor": 3},
    "budget": {"trials": 9},
    "arms": {
        "segan": {"parameters": {"critic.depth": DEPTH}},
        "unet": {"base": {"variant": "unet"}},
    },
}


def load(folder: Path, **changed: Any) -> Arms:
    file = folder / "arms.yaml"
    file.write_text(yaml.safe_dump({**TREE, **changed}, sort_keys=False))
    return load_arms(file)


def refused(folder: Path, **changed: Any) -> str:
    with pytest.raises(ConfigError) as refusal:
        load(folder, **changed)
    return str(refusal.value)


def test_arms_share_all_that_stands_at_the_top(tmp_path: Path) -> None:
    arms = load(tmp_path)
    assert list(arms.spaces) == ["segan", "unet"]
    segan, unet = arms.spaces.values()
    assert list(segan.parameters) == ["segmentor.lr", "critic.depth"]
    assert list(unet.parameters) == ["segmentor.lr"]
    assert unet.base_experiment().critic.kind == "none"
    for space in (segan, unet):
        assert (space.budget.trials, space.sampler.type, space.most_epochs()) == (9, "tpe", 12)
        assert space.enqueue == ()


def test_an_arm_without_parameters_is_one_experiment(tmp_path: Path) -> None:
    arms = load(tmp_path, parameters={}, arms={"segan": TREE["arms"]["segan"], "paper": {
        "preset": "paper",
        "base": {"segmentor": {"base_width": 8}, "training": {"batch_size": 8}},
    }})  # fmt: skip
    paper = arms.spaces["paper"]
    assert paper.budget.trials == 1
    assert paper.base_experiment().segmentor.optimizer == "rmsprop"
    assert paper.base_experiment().segmentor.base_width == 8


def test_an_experiment_is_judged_by_the_objective_of_all(tmp_path: Path) -> None:
    objective = {"metric": "train/loss_segmentor", "mode": "min"}
    arms = load(tmp_path, objective=objective, parameters={})
    assert {str(space.objective) for space in arms.spaces.values()} == {
        str(arms.spaces["segan"].objective)
    }
    assert arms.spaces["unet"].objective.mode == "min"
    assert arms.spaces["unet"].scheduler.type == "none"


def test_an_arm_may_begin_with_a_space_beside_the_file_or_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump(
            {
                "name": "mine",
                "base": {"critic": {"clamp": 0.05}, "training": {"epochs": 3}},
                "parameters": {"critic.lr": LR},
                "budget": {"trials": 2},
            }
        )
    )
    begun = {"space": "mine.yaml", "base": {"training": {"epochs": 12}}}
    arms = load(tmp_path, arms={"mine": begun, "unet": TREE["arms"]["unet"]})
    mine = arms.spaces["mine"]
    assert list(mine.parameters) == ["segmentor.lr", "critic.lr"]
    assert (mine.base_experiment().critic.clamp, mine.budget.trials) == (0.05, 9)
    assert "no shipped space" in refused(
        tmp_path, arms={"a": {"space": "nowhere"}, "b": TREE["arms"]["unet"]}
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"arms": {"alone": {}}}, "at least two arms"),
        ({"name": "a b"}, "name is 'a b'"),
        ({"arms": {"a": {"budget": {"trials": 3}}, "b": {}}}, "a: unknown key 'budget'. Budget,"),
        ({"arms": {"a": {"bsae": {}}, "b": {}}}, "Did you mean 'base'?"),
        ({"arms": {"a": 3, "b": {}}}, "a: expected settings as key: value."),
        ({"arms": None}, "at least two arms"),
        ({"arms": {2017: {}, "b": {}}}, "'2017' cannot name an arm."),
        ({"arms": {"a": {}, "a-timing": {}}}, "It may not end in -timing."),
        ({"arms": {"a": {"base": "training.epochs=2"}, "b": {}}}, "a.base: expected settings"),
        ({"parameters": ["segmentor.lr"]}, "parameters: expected settings as key: value."),
        ({"arms": {"a": {"parameters": [1]}, "b": {}}}, "a.parameters: expected settings"),
        ({"enqueue": ["paper"]}, "enqueue: say of each arm what it tries first"),
        ({"arms": {"a": {"space": 7}, "b": {}}}, "no shipped space of that name"),
        (
            {"arms": {"a": {"parameters": {"critic.depht": DEPTH}}, "b": {}}},
            "arms.yaml:24: a: unknown parameter 'critic.depht'. Did you mean 'critic.depth'?",
        ),
        ({"budget": {"trials": 3, "hours": 2}}, "budget.hours would end some arms before others."),
        ({"budget": {"no_gain_for": {"trials": 2}}}, "budget.no_gain_for would end some arms"),
        ({"smapler": {}}, "unknown key 'smapler'. Did you mean 'sampler'?"),
        (
            {"arms": {"a": {}, "b": {"base": {"training": {"epochs": 20}}}}},
            "b: training.epochs is 20, and 12 in a. All arms need the same.",
        ),
        (
            {"arms": {"a": {}, "b": {"parameters": {"training.batch_size": DEPTH}}}},
            "b: training.batch_size is a parameter. All arms need the same: set it in base.",
        ),
        (
            {"parameters": {"training.epochs": {"type": "int", "low": 5, "high": 9}}},
            "segan: training.epochs is a parameter.",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_or_unfair_is_said(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    assert said in refused(tmp_path, **changed)


def test_what_is_wrong_for_all_arms_is_said_of_each_at_its_line(tmp_path: Path) -> None:
    said = refused(tmp_path, sampler={"type": "tep"})
    assert said.count("is not one of") == 2
    assert "arms.yaml:12: segan: sampler: type 'tep'" in said


def test_batches_may_differ_where_an_epoch_shows_every_slice(tmp_path: Path) -> None:
    base = {"training": {"epochs": 12}}
    load(tmp_path, base=base, arms={"a": {}, "b": {"base": {"training": {"batch_size": 16}}}})


def test_longer_arms_have_their_rungs_at_the_same_shares(tmp_path: Path) -> None:
    arms = load(tmp_path).lengthened({"segan": 12, "unet": 30})
    segan, unet = arms.spaces.values()
    assert (segan.most_epochs(), unet.most_epochs()) == (12, 30)
    assert (segan.scheduler.grace_period, unet.scheduler.grace_period) == (4, 10)  # type: ignore[union-attr]


def test_the_shipped_arms_load_and_are_no_space() -> None:
    file = shipped_spaces()["segan_vs_unet"]
    arms = load_arms(file)
    assert list(arms.spaces) == ["segan", "segan-without-critic", "unet", "unet-with-critic"]
    kinds = {
        name: (space.base_experiment().segmentor.network, space.base_experiment().critic.kind)
        for name, space in arms.spaces.items()
    }
    assert kinds == {
        "segan": ("segan", "per-region"),
        "segan-without-critic": ("segan", "none"),
        "unet": ("unet", "none"),
        "unet-with-critic": ("unet", "per-region"),
    }
    with pytest.raises(ConfigError, match="segan-ray compare"):
        load_space(file)


def test_arms_built_in_code_are_those_of_a_file(tmp_path: Path) -> None:
    file = resolve_space("segan_vs_unet")
    tree = yaml.safe_load(file.read_text())
    assert build_arms(tree).spaces == load_arms(file).spaces
    with pytest.raises(ConfigError, match=r"arms: .*unknown key 'bugdet'") as caught:
        build_arms({**tree, "arms": {**tree["arms"], "third": {"bugdet": {}}}})
    assert caught.value.lines == (None,)
    with pytest.raises(ConfigError, match="cannot be in a file"):
        build_arms({**tree, "base": {"seed": object()}})
