"""Samplers: how the next point is chosen, as a space file says it and as Optuna does it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field

from segan_ray.search.space.parameters import Frozen, IntParameter
from segan_ray.sizes import MOST_TRIALS

if TYPE_CHECKING:
    from segan_ray.search.space.search_space import SearchSpace

Seed = Annotated[int, Field(ge=0, lt=2**32)] | None
Count = Annotated[int, Field(ge=1, le=MOST_TRIALS)]


class TpeSampler(Frozen):
    """Optuna's TPE; the first ``startup_trials`` are drawn at random.

    It learns from stopped trials too, and is the one for spaces with conditions.
    """

    type: Literal["tpe"] = "tpe"
    multivariate: bool = True
    group: bool = True
    seed: Seed = None
    startup_trials: Count = 10


class RandomSampler(Frozen):
    """Independent draws."""

    type: Literal["random"]
    seed: Seed = None


class CmaesSampler(Frozen):
    """CMA-ES, for numbers alone; ``population`` trials a generation (null: as many as fit)."""

    type: Literal["cmaes"]
    seed: Seed = None
    startup_trials: Count = 1
    population: Annotated[int, Field(ge=4, le=MOST_TRIALS)] | None = None


class GpSampler(Frozen):
    """A Gaussian process: for few parameters and dear trials. It learns from completed ones."""

    type: Literal["gp"]
    seed: Seed = None
    startup_trials: Count = 10


class GridSampler(Frozen):
    """Every combination once, in an order that ``seed`` shuffles."""

    type: Literal["grid"]
    seed: Seed = None


class NsgaSampler(Frozen):
    """NSGA-II, for several objectives; the first ``population`` trials are drawn at random."""

    type: Literal["nsga2"]
    seed: Seed = None
    population: Annotated[int, Field(ge=2, le=MOST_TRIALS)] = 20
    crossover: Annotated[float, Field(ge=0, le=1)] = 0.9
    mutation: Annotated[float, Field(ge=0, le=1)] | None = None


Sampler = Annotated[
    TpeSampler | RandomSampler | CmaesSampler | GpSampler | GridSampler | NsgaSampler,
    Field(discriminator="type"),
]


def make_sampler(space: SearchSpace, seed_offset: int | None) -> BaseSampler:
    """Return a fresh Optuna sampler for ``space``.

    A sampler's state is what its study holds, so a fresh one may be made for each trial;
    with the trial's number as ``seed_offset`` it then draws the same whether or not the sweep
    was interrupted in between. Without a seed in the space, draws cannot be repeated.
    """
    settings = space.sampler
    seed = mixed(settings.seed, seed_offset)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        match settings:
            case TpeSampler():
                return _tpe(settings, seed)
            case RandomSampler():
                return optuna.samplers.RandomSampler(seed=seed)
            case CmaesSampler():
                return _cmaes(settings, seed, space)
            case GpSampler():
                return optuna.samplers.GPSampler(
                    seed=seed,
                    n_startup_trials=settings.startup_trials,
                    warn_independent_sampling=False,
                )
            case GridSampler():
                # Its cells are numbered in shuffled order: the shuffle must not change.
                return _Grid(grid(space), seed=settings.seed)
            case NsgaSampler():
                return optuna.samplers.NSGAIISampler(
                    seed=seed,
                    population_size=settings.population,
                    crossover_prob=settings.crossover,
                    mutation_prob=settings.mutation,
                )


def mixed(seed: int | None, offset: int | None) -> int | None:
    """Return a 32-bit seed from both, unlike those of neighbouring pairs; None without a seed."""
    if seed is None:
        return None
    key = () if offset is None else (offset,)
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0])


def grid(space: SearchSpace) -> dict[str, Sequence[Any]]:
    """Return the values a grid tries, under the names Optuna draws them by.

    Every trial must draw the same parameters, and none of them from a continuum.
    """
    every = {path: list(each.every() or ()) for path, each in space.parameters.items()}
    # A length may depend on a parameter, if that has but one value.
    known = space.settings() | {path: of[0] for path, of in every.items() if len(of) == 1}
    return {
        name: every[path]
        for path, parameter in space.parameters.items()
        for name in parameter.names(path, known)
    }


def grid_size(space: SearchSpace) -> int:
    """Return how many combinations a grid over ``space`` has."""
    return math.prod(len(values) for values in grid(space).values())


def _tpe(settings: TpeSampler, seed: int | None) -> BaseSampler:
    return optuna.samplers.TPESampler(
        multivariate=settings.multivariate,
        group=settings.group and settings.multivariate,
        seed=seed,
        n_startup_trials=settings.startup_trials,
        # Trials run side by side: points still out count as poor, so that two do not
        # try the same.
        constant_liar=True,
    )


def _cmaes(settings: CmaesSampler, seed: int | None, space: SearchSpace) -> BaseSampler:
    return optuna.samplers.CmaEsSampler(
        seed=seed,
        n_startup_trials=settings.startup_trials,
        popsize=settings.population,
        # A population of survivors alone would hardly ever fill up.
        consider_pruned_trials=True,
        # Without a margin, the variance of a whole number can shrink until it never moves.
        with_margin=any(isinstance(each, IntParameter) for each in space.parameters.values()),
        warn_independent_sampling=False,
    )


class _Grid(optuna.samplers.GridSampler):
    """Optuna's grid, which at the last cell would stop a loop that ask and tell do not have."""

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        return
