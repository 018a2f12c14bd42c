from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from segan_ray.config import Experiment
from segan_ray.errors import ConfigError
from segan_ray.search.space.objectives import METRICS
from segan_ray.search.space.scheduler_settings import CHANGEABLE
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.space.space_file import load_space

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
        "segmentor.lr", "critic.depth", "loss.scale_weights", "segmentor.skip",
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
            changed(budget={"no_gain_for": {"trails": 3}}),
            "unknown key 'budget.no_gain_for.trails'. Did you mean 'trials'?",
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
        (changed(sampler={"type": "tpe", "seed": -1}), "sampler.seed: input should be greater"),
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
    assert "?." not in str(caught.value)


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


CONDITIONAL = {
    "loss.scale_weights": {
        "type": "floats", "length": "critic.depth + 1", "low": 0.1, "high": 4,
        "when": {"variant": "s1-3c", "critic.scales": "multi-scale"},
    },
    "critic.depth": {"type": "int", "low": 1, "high": 4, "when": {"variant": "s1-3c"}},
    "critic.scales": {
        "type": "choice", "values": ["multi-scale", "single-scale"], "when": {"variant": "s1-3c"},
    },
    "critic.clamp": {"type": "fixed", "value": 0.01, "when": {"critic.depth": [3, 4]}},
    "variant": {"type": "choice", "values": ["s1-3c", "unet"]},
}  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_a_parameter_is_drawn_where_its_condition_holds(seed: int) -> None:
    space = SearchSpace.model_validate(parameters(**CONDITIONAL))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trial = study.ask()
    point = space.suggest(trial)
    experiment = space.experiment(point)
    assert ("critic.depth" in point) == (experiment.variant == "s1-3c")
    multi = experiment.variant == "s1-3c" and experiment.critic.scales == "multi-scale"
    assert ("loss.scale_weights" in point) == multi
    # The base's depth is 3, and stands where none is drawn.
    assert experiment.critic.depth == point.get("critic.depth", 3)
    assert experiment.critic.clamp == (0.01 if experiment.critic.depth >= 3 else 0.05)
    assert "critic.clamp" not in trial.params


def test_parameters_are_drawn_in_order_of_need() -> None:
    order = SearchSpace.model_validate(parameters(**CONDITIONAL)).order()
    assert order == [
        "variant", "critic.depth", "critic.scales", "loss.scale_weights", "critic.clamp",
    ]  # fmt: skip


def test_what_not_every_trial_draws_is_known() -> None:
    space = SearchSpace.model_validate(parameters(**CONDITIONAL))
    assert space.conditional().keys() == CONDITIONAL.keys() - {"variant"}
    always = SearchSpace.model_validate(
        parameters(
            **{
                "critic.depth": {"type": "int", "low": 3, "high": 3},
                "loss.scale_weights": {**CONDITIONAL["loss.scale_weights"], "when": {
                    "variant": ["s1-3c", "s1-1c"], "critic.depth": [3, 4]}},
            }
        )
    )  # fmt: skip
    assert always.conditional() == {}


LR = {"type": "float", "low": 1e-4, "high": 1e-2}
INT = {"type": "int", "low": 1, "high": 3}
PATIENT = {"no_gain_for": {"trials": 5}}
TWO = [{"metric": "val/dice_mean"}, {"metric": "model/parameters", "mode": "min"}]
BOUND = [{"metric": "memory/peak_gb", "max": 20}]
SKIP = {"type": "choice", "values": ["add", "concat"]}


def having(entry: dict, **changes: object) -> dict:
    return {"name": "test", "parameters": entry, **changes}


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (having({"critic.lr": {**LR, "when": {"varient": "unet"}}}),
         "critic.lr: when names 'varient', no setting. Did you mean 'variant'?"),
        (having({"critic.lr": {**LR, "when": {"variant": "unet"}}}),
         "never drawn: when asks for variant unet, which here is s1-3c in every trial"),
        (having({"critic.lr": {**LR, "when": {"critic.depth": [7, 8]}}, "critic.depth": INT}),
         "when names what cannot be: critic.depth is 7"),
        (having({"critic.lr": {**LR, "when": {"critic.depth": [5, 6]}}, "critic.depth": INT}),
         "when asks for critic.depth 5 or 6, which here is 1, 2 or 3"),
        (having({"critic.lr": {**LR, "when": {"data.flip": 1}}}), "never drawn"),
        (having({"critic.lr": LR}, folds="some"), "expected all, or a number of folds from 2 on"),
        (having({"critic.lr": LR}, folds=1), "expected all, or a number of folds from 2 on"),
        (having({"critic.lr": LR}, folds="all", scheduler={"type": "asha"}),
         "with folds a trial has a score once all are done. Use wilcoxon or none."),
        (having({"critic.lr": LR}, scheduler={"type": "wilcoxon"}), "Write folds: all beside it"),
        (having({"critic.lr": LR}, folds="all", objective=TWO), "the mean of one validation score"),
        (having({"critic.lr": LR}, folds="all", objective={"metric": "time/epoch_s"}),
         "the mean of one validation score over them"),
        (having({"critic.lr": LR}, folds="all", base={"data": {"fold": 1}}),
         "a trial trains on each, so leave data.fold out"),
        (having({"data.fold": {**INT, "low": 0}}, folds="all"), "so leave data.fold out"),
        (having({"critic.lr": {**LR, "when": {"segmentor.lr": 0.1}}, "segmentor.lr": LR}),
         "drawn from a continuum. Ask for a choice or an int"),
        (having({"critic.lr": {**LR, "when": {"critic.depth": []}}}), "at least 1 item"),
        (having({"critic.depth": {**INT, "when": {"data.neighbours": 2}},
                 "data.neighbours": {**INT, "when": {"critic.depth": 1}}}),
         "critic.depth, data.neighbours: none can be drawn first"),
        (having({"critic.depth": {**INT, "when": {"critic.depth": 1}}}), "none can be drawn first"),
        (having({"data.flip": {"type": "choice", "values": [True, 1]}}), "values holds 1 twice"),
        (having({"critic.clamp": {"type": "choice", "values": [None, [1]]}}), "found [1]"),
        (having({"critic.clamp": {"type": "choice", "values": [float("inf")]}}), "found inf"),
        (having({"critic.depth": {"type": "fixed", "value": 9}, "critic.lr": LR}),
         "critic.depth is 9"),
        (having({"critic.depth": {"type": "fixed", "value": 2}}), "nothing is drawn"),
        (having({"loss.scale_weights": {"type": "fixed", "value": [1, 1]}, "critic.lr": LR}),
         "loss.scale_weights has 2 values; critic.depth 3 makes 4 scales"),
        # Only the deepest critic in a certain variant cannot be had.
        (having({"critic.depth": {"type": "int", "low": 1, "high": 7,
                                  "when": {"variant": "unet"}},
                 "variant": {"type": "choice", "values": ["s1-3c", "unet"]}}),
         "critic.depth is 7"),
        (having({"critic.lr": LR}, objective=[]), "objective"),
        (having({"critic.lr": LR}, objective=[*TWO, TWO[0]]), "'val/dice_mean' is named twice"),
        (having({"critic.lr": LR}, objective=[{"metric": "val/dice_meen"}]),
         "objective.0.metric: no trial reports the metric 'val/dice_meen'"),
        (having({"critic.lr": LR}, preset="papper"), "no preset 'papper'. Did you mean 'paper'?"),
        (having({"critic.lr": LR}, enqueue=["papper"]), "no preset 'papper'. Did you mean"),
        (having({"critic.lr": LR}, enqueue=[{"critic.lrr": 1}]), "Did you mean 'critic.lr'?"),
        (having({"critic.lr": LR}, enqueue=[{}]), "enqueue.0: found {}"),
        (having({"critic.lr": LR}, warm_start="../x"), "warm_start"),
        (having({"critic.lr": LR}, budget={"max_concurrent": "all"}),
         "budget.max_concurrent: found 'all', expected a count of at least 1, or auto"),
        (having({"critic.lr": LR}, budget={"keep_checkpoints": 0}), "budget.keep_checkpoints"),
        (having({"critic.lr": {**LR, "points": 1}}), "parameters.critic.lr.points"),
        (having({"critic.lr": {**LR, "points": 10**9}}), "parameters.critic.lr.points"),
        (having({"critic.depth": {"type": "int", "low": 1, "high": 10**12},
                 "loss.scale_weights": {"type": "floats", "length": "critic.depth + 1",
                                        "low": 0.1, "high": 4}}),
         "critic.depth is 1000000000000"),
        (having({"loss.scale_weights": {"type": "floats", "length": 10**12, "low": 1, "high": 2,
                                        "points": 2}}, sampler={"type": "grid"}),
         "critic.depth 3 makes 4 scales. Give 4 weights"),
        (having({"critic.lr": LR}, scheduler={"type": "asha", "reduction_factor": 1}),
         "scheduler.reduction_factor"),
        (having({"critic.lr": LR}, scheduler={"type": "hyperban"}), "Did you mean 'hyperband'?"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_in_words(tmp_path: Path, tree: dict, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_space(write(tmp_path, tree))
    assert words in str(caught.value)


WEIGHTS = {"type": "floats", "length": "critic.depth + 1", "low": 0.1, "high": 4}
DRAWN_LENGTH = {"critic.depth": INT, "loss.scale_weights": WEIGHTS}
WHEN = {"segmentor.skip": SKIP, "critic.lr": {**LR, "when": {"segmentor.skip": "add"}}}


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        *(
            (having(entry, sampler={"type": sampler}), f"sampler {sampler} needs every trial")
            for sampler in ("cmaes", "gp", "nsga2", "grid")
            for entry in (DRAWN_LENGTH, WHEN)
        ),
        (having({"segmentor.skip": SKIP, "critic.lr": LR}, sampler={"type": "cmaes"}),
         "segmentor.skip is a choice. Use tpe or gp"),
        (having({"critic.lr": LR}, sampler={"type": "cmaes"}, objective=TWO,
                scheduler={"type": "none"}),
         "sampler cmaes follows one objective, found 2. Use nsga2 or tpe"),
        *(
            (having({"critic.lr": LR}, objective=TWO, scheduler={"type": scheduler}),
             f"scheduler {scheduler} stops or changes trials by one objective, found 2. Use asha "
             "or none")
            for scheduler in ("hyperband", "median", "pbt")
        ),
        (having({"critic.lr": LR}, objective=TWO,
                scheduler={"type": "asha", "promote": True, "max_epochs": "grow"}),
         "scheduler.max_epochs grows by one objective"),
        (having({"critic.lr": {**LR, "prior": {"value": 1e-3, "spread": 1e-3}}},
                sampler={"type": "nsga2"}), "sampler nsga2 goes by points that it drew itself"),
        (having({"critic.lr": LR}, constraints=BOUND, sampler={"type": "cmaes"}),
         "sampler cmaes learns nothing of constraints"),
        (having({"critic.lr": LR}, sampler={"type": "grid"}),
         "sampler grid cannot try every value of critic.lr. Give it points, as in points: 5"),
        (having({"seed": {"type": "int", "low": 0, "high": 10**6}}, sampler={"type": "grid"}),
         "cannot try every value of seed. List some as a choice"),
        (having({"critic.lr": {**LR, "points": 200}, "segmentor.lr": {**LR, "points": 200}},
                sampler={"type": "grid"}), "the grid has 40000 combinations"),
        *(
            (having({"critic.lr": LR}, base={"training": {"epochs": 4}},
                    scheduler={"type": scheduler, "grace_period": 5}),
             "grace_period 5 is more than the 4 epochs")
            for scheduler in ("asha", "hyperband", "median")
        ),
        (having({"segmentor.depth": {**INT, "low": 2}}, scheduler={"type": "pbt"}),
         "segmentor.depth must stay as it is. Fix it, or use asha"),
        (having(DRAWN_LENGTH, scheduler={"type": "pbt"}),
         "of loss.scale_weights, its length depends on critic.depth, which is drawn. Use asha"),
        (having({"critic.lr": LR}, scheduler={"type": "pbt"}, budget={"trials": 3}),
         "scheduler pbt needs at least 4 trials, found 3"),
        (having({"critic.lr": LR}, scheduler={"type": "pbt"}, budget=PATIENT),
         "so budget.no_gain_for could end nothing"),
        (having({"critic.lr": LR}, objective=TWO, scheduler={"type": "none"}, budget=PATIENT),
         "budget.no_gain_for follows one objective, found 2"),
        (having({"critic.lr": LR}, scheduler={"type": "pbt", "interval": 20}),
         "scheduler.interval 20 is not below the 20 epochs"),
        (having({"critic.steps": INT}, scheduler={"type": "pbt"}, sampler={"type": "grid"}),
         "scheduler pbt changes what sampler grid would try"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused_with_an_alternative(
    tmp_path: Path, tree: dict, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_space(write(tmp_path, tree))
    assert words in str(caught.value)
    assert len(caught.value.problems) == 1 or "pbt" in words or words.startswith("of ")


@pytest.mark.parametrize(
    "tree",
    [
        having({"critic.lr": {**LR, "when": {"variant": "s1-3c"}}}, sampler={"type": "cmaes"}),
        having({"critic.lr": LR, "segmentor.skip": SKIP}, sampler={"type": "gp"},
               objective=TWO, scheduler={"type": "none"}),
        having({"critic.lr": LR, "critic.clamp": {"type": "choice", "values": [None, 0.05]}},
               scheduler={"type": "pbt"}),
        having({"critic.lr": {**LR, "points": 3}, "segmentor.skip": SKIP},
               sampler={"type": "grid"}),
        having({"critic.depth": {"type": "fixed", "value": 2}, "loss.scale_weights": WEIGHTS},
               sampler={"type": "cmaes"}),
        having({**CONDITIONAL, "critic.lr": {**LR, "when": {"critic.depth": [1, 2]}}}),
    ],
)  # fmt: skip
def test_what_can_be_searched_is(tmp_path: Path, tree: dict) -> None:
    space = load_space(write(tmp_path, tree))
    assert SearchSpace.model_validate_json(space.model_dump_json()) == space
    assert load_space(write(tmp_path, space.model_dump(mode="json"))) == space


def test_numbers_with_an_exponent_alone_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "name: x\nparameters:\n  critic.lr: {type: choice, values: [1e-3, 1E+1]}\n"
        "  segmentor.lr: {type: float, low: 1e-5, high: 1e-3}\n"
    )
    space = load_space(file)
    assert space.parameters["critic.lr"].ends() == (1e-3, 10.0)
    assert space.parameters["segmentor.lr"].ends() == (1e-5, 1e-3)


def test_objectives_are_one_or_several() -> None:
    one = SearchSpace.model_validate(having({"critic.lr": LR}, objective=TWO[1]))
    assert one.objectives == (one.objective,)
    assert one.model_dump()["objective"] == {"metric": "model/parameters", "mode": "min"}
    two = SearchSpace.model_validate(having({"critic.lr": LR}, objective=TWO))
    assert [each.metric for each in two.objectives] == ["val/dice_mean", "model/parameters"]
    assert two.objective.metric == "val/dice_mean"
    assert "model/parameters" in METRICS


def test_epochs_and_folds_follow_what_may_be_drawn() -> None:
    space = SearchSpace.model_validate(
        having(
            {
                "variant": {"type": "choice", "values": ["s1-3c", "unet"]},
                "training.epochs": {"type": "fixed", "value": 9, "when": {"variant": "unet"}},
                "data.fold": {"type": "choice", "values": [0, 1, 2]},
            }
        )
    )
    assert (space.fewest_epochs(), space.most_epochs()) == (9, 20)
    assert space.single_folds() == (0, 1, 2)
    assert SearchSpace.model_validate(GOOD).single_folds() == (None,)


@pytest.mark.parametrize("path", sorted(CHANGEABLE - {"loss.scale_weights"}))
def test_all_that_may_change_may_be_drawn_under_pbt(tmp_path: Path, path: str) -> None:
    value = SearchSpace.model_validate(GOOD).settings()[path]
    entry = {path: {"type": "choice", "values": [value]}}
    load_space(write(tmp_path, having(entry, scheduler={"type": "pbt"})))
