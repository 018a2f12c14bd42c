from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from segan_ray.search.optuna_adapters import make_pruner, make_sampler, mixed
from segan_ray.search.space.grid import grid_size
from segan_ray.search.space.search_space import SearchSpace

NUMBERS = {
    "segmentor.lr": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "critic.depth": {"type": "int", "low": 1, "high": 5},
    "loss.dice_weight": {"type": "float", "low": 0, "high": 2},
}
CHOICE = {"segmentor.skip": {"type": "choice", "values": ["add", "concat"]}}
WEIGHTS = {
    "loss.scale_weights": {"type": "floats", "length": "critic.depth + 1", "low": 0.1, "high": 4}
}
GRID = {
    "segmentor.lr": {**NUMBERS["segmentor.lr"], "points": 3},
    "critic.depth": NUMBERS["critic.depth"],
    **CHOICE,
}
ACCEPTED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"type": "tpe", "startup_trials": 5}, {**NUMBERS, **CHOICE, **WEIGHTS}),
    ({"type": "tpe", "multivariate": False}, {**NUMBERS, **CHOICE, **WEIGHTS}),
    ({"type": "random"}, {**NUMBERS, **CHOICE, **WEIGHTS}),
    ({"type": "cmaes"}, NUMBERS),
    ({"type": "cmaes", "population": 4}, {"segmentor.lr": NUMBERS["segmentor.lr"]}),
    ({"type": "gp", "startup_trials": 8}, {**NUMBERS, **CHOICE}),
    ({"type": "nsga2", "population": 4}, {**NUMBERS, **CHOICE}),
    ({"type": "grid"}, GRID),
]
TWO = [{"metric": "val/dice_mean"}, {"metric": "model/parameters", "mode": "min"}]


def space(sampler: dict, parameters: dict, **more: Any) -> SearchSpace:
    return SearchSpace.model_validate(
        {
            "name": "test",
            "parameters": parameters,
            "sampler": {"seed": 3, **sampler},
            "scheduler": {"type": "none"},
            **more,
        }
    )


def study_of(
    space: SearchSpace, storage: optuna.storages.BaseStorage | None = None
) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = ["maximize" if each.mode == "max" else "minimize" for each in space.objectives]
    return optuna.create_study(
        study_name="s", directions=directions, pruner=make_pruner(space), storage=storage
    )


def worth(point: dict[str, Any]) -> float:
    return -abs(point.get("critic.depth", 2) - 2) - abs(point.get("loss.dice_weight", 1) - 0.5)


def run(space: SearchSpace, study: optuna.Study, trials: int) -> list[dict[str, Any]]:
    """Ask each trial from a fresh sampler, and tell it, pruned if the pruner says so."""
    points = []
    for _ in range(trials):
        study.sampler = make_sampler(space, len(study.trials))
        trial = study.ask()
        points.append(space.suggest(trial))
        value = worth(points[-1])
        pruned = False
        for epoch in range(1, 10 * (len(space.objectives) == 1)):
            trial.report(value * (1 - 0.5**epoch), epoch)
            pruned = pruned or trial.should_prune()
        if pruned:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, [value, 1.0][: len(space.objectives)])
    return points


@pytest.mark.parametrize("scheduler", ["none", "hyperband"])
@pytest.mark.parametrize(("sampler", "parameters"), ACCEPTED, ids=lambda value: value.get("type"))
def test_a_sampler_made_anew_for_each_trial_searches_and_repeats_itself(
    sampler: dict, parameters: dict, scheduler: str
) -> None:
    searched = space(sampler, parameters, scheduler={"type": scheduler})
    first = run(searched, study_of(searched), 15)
    assert first == run(searched, study_of(searched), 15)
    assert len({str(point) for point in first}) > 10
    assert first[0].keys() == parameters.keys()
    for point in first:
        searched.experiment(point)


@pytest.mark.parametrize(("sampler", "parameters"), ACCEPTED, ids=lambda value: value.get("type"))
def test_an_interrupted_sweep_draws_what_an_uninterrupted_one_would(
    sampler: dict, parameters: dict
) -> None:
    searched = space(sampler, parameters)
    whole = run(searched, study_of(searched), 9)
    storage = optuna.storages.InMemoryStorage()
    begun = run(searched, study_of(searched, storage), 5)
    resumed = optuna.load_study(study_name="s", storage=storage, pruner=make_pruner(searched))
    assert begun + run(searched, resumed, 4) == whole


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2", "random", "grid"])
def test_several_objectives_are_searched(sampler: str) -> None:
    more = {"population": 4} if sampler == "nsga2" else {}
    searched = space({"type": sampler, **more}, GRID, objective=TWO)
    assert len(run(searched, study_of(searched), 15)) == 15


def test_cmaes_goes_from_generation_to_generation_though_made_anew() -> None:
    searched = space({"type": "cmaes", "population": 4}, NUMBERS)
    study = study_of(searched)
    run(searched, study, 15)
    generations = [t.system_attrs.get("cmawm:generation", -1) for t in study.trials]
    assert max(generations) >= 2


def test_nsga2_goes_from_generation_to_generation_though_made_anew() -> None:
    searched = space({"type": "nsga2", "population": 4}, NUMBERS)
    study = study_of(searched)
    run(searched, study, 15)
    assert max(t.system_attrs["NSGAIISampler:generation"] for t in study.trials) == 3


@pytest.mark.parametrize("seed", [None, 0, 7])
def test_a_grid_tries_every_combination_once(seed: int | None) -> None:
    searched = space({"type": "grid", "seed": seed}, GRID)
    assert grid_size(searched) == 30
    points = run(searched, study_of(searched), 30)
    assert len({str(point) for point in points}) == 30
    rates = sorted({point["segmentor.lr"] for point in points})
    assert rates == [1e-5, pytest.approx(10**-3.5), 1e-2]


def test_a_grid_has_a_place_for_each_item_of_a_list() -> None:
    weights = {"type": "floats", "length": 4, "low": 0, "high": 2, "points": 3}
    searched = space({"type": "grid"}, {"loss.scale_weights": weights})
    assert grid_size(searched) == 81
    points = run(searched, study_of(searched), 10)
    assert {value for point in points for value in point["loss.scale_weights"]} == {0.0, 1.0, 2.0}


def test_a_length_in_a_grid_may_depend_on_what_is_fixed() -> None:
    weights = {**WEIGHTS["loss.scale_weights"], "points": 2}
    depth = {"type": "fixed", "value": 1}
    searched = space({"type": "grid"}, {"loss.scale_weights": weights, "critic.depth": depth})
    points = run(searched, study_of(searched), grid_size(searched))
    assert sorted(point["loss.scale_weights"] for point in points) == [
        [0.1, 0.1], [0.1, 4], [4, 0.1], [4, 4],
    ]  # fmt: skip


def test_a_grid_goes_on_after_trials_it_did_not_choose() -> None:
    searched = space({"type": "grid"}, {"critic.depth": NUMBERS["critic.depth"]})
    study = study_of(searched)
    study.add_trial(
        optuna.trial.create_trial(
            params={"critic.depth": 1},
            distributions={"critic.depth": optuna.distributions.IntDistribution(1, 5)},
            value=0.0,
        )
    )
    points = run(searched, study, 5)
    assert sorted(point["critic.depth"] for point in points) == [1, 2, 3, 4, 5]


def test_without_a_seed_no_two_sweeps_are_alike() -> None:
    searched = space({"type": "random", "seed": None}, NUMBERS)
    assert run(searched, study_of(searched), 3) != run(searched, study_of(searched), 3)


@given(st.integers(0, 2**32 - 1), st.integers(0, 10_000))
def test_mixed_seeds_are_seeds_and_differ_from_their_neighbours(seed: int, offset: int) -> None:
    near = {
        mixed(seed, offset),
        mixed(seed, offset + 1),
        mixed(seed + 1, offset),
        mixed(seed, None),
    }
    assert all(value is not None and 0 <= value < 2**32 for value in near)
    assert len(near) == 4
    assert mixed(seed, offset) == mixed(seed, offset)
    assert mixed(None, offset) is None
