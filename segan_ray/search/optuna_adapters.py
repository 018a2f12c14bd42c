"""A space's sampler and scheduler as Optuna's: its samplers draw, its pruners stop.

Neither keeps state outside the study, so fresh ones may be made at any time.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from segan_ray.search.space.grid import grid
from segan_ray.search.space.parameters import IntParameter
from segan_ray.search.space.sampler_settings import (
    CmaesSampler,
    GpSampler,
    GridSampler,
    NsgaSampler,
    RandomSampler,
    TpeSampler,
)
from segan_ray.search.space.scheduler_settings import (
    AshaScheduler,
    HyperbandScheduler,
    MedianScheduler,
    NoScheduler,
    PbtScheduler,
    WilcoxonScheduler,
)
from segan_ray.search.space.search_space import SearchSpace


def make_sampler(space: SearchSpace, seed_offset: int | None) -> BaseSampler:
    """Return a fresh Optuna sampler for ``space``.

    The study holds all that a sampler learns, so each trial may have a fresh sampler. With the
    trial's number as ``seed_offset``, an interrupted sweep draws the points of an uninterrupted
    one. Without a seed in the space, draws cannot be repeated.
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
                # The seed shuffles the cells, so it must be the same for every trial.
                return _Grid(grid(space), seed=settings.seed)
            case NsgaSampler():
                return optuna.samplers.NSGAIISampler(
                    seed=seed,
                    population_size=settings.population,
                    crossover_prob=settings.crossover,
                    mutation_prob=settings.mutation,
                )


def mixed(seed: int | None, offset: int | None) -> int | None:
    """Mix both into a 32-bit seed unlike the seeds of neighbouring pairs; None without a seed."""
    if seed is None:
        return None
    key = () if offset is None else (offset,)
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1)[0])


def _tpe(settings: TpeSampler, seed: int | None) -> BaseSampler:
    return optuna.samplers.TPESampler(
        multivariate=settings.multivariate,
        group=settings.group and settings.multivariate,
        seed=seed,
        n_startup_trials=settings.startup_trials,
        # Running trials count as poor, so that two trials at once do not try the same point.
        constant_liar=True,
    )


def _cmaes(settings: CmaesSampler, seed: int | None, space: SearchSpace) -> BaseSampler:
    return optuna.samplers.CmaEsSampler(
        seed=seed,
        n_startup_trials=settings.startup_trials,
        popsize=settings.population,
        # Completed trials alone would hardly ever fill a population.
        consider_pruned_trials=True,
        # Without a margin, the variance of a whole number can shrink until it never moves.
        with_margin=any(isinstance(each, IntParameter) for each in space.parameters.values()),
        warn_independent_sampling=False,
    )


class _Grid(optuna.samplers.GridSampler):
    """Optuna's grid without its call of ``study.stop``, which raises outside ``optimize``."""

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        return


def make_pruner(space: SearchSpace) -> BasePruner:
    """Return the Optuna pruner that stops trials as the space's scheduler says."""
    match space.scheduler:
        case AshaScheduler() as asha:
            return SuccessiveHalvingPruner(
                min_resource=asha.grace_period, reduction_factor=asha.reduction_factor
            )
        case HyperbandScheduler() as hyperband:
            return HyperbandPruner(
                min_resource=hyperband.grace_period,
                max_resource=space.most_epochs(),
                reduction_factor=hyperband.reduction_factor,
            )
        case MedianScheduler() as median:
            # A step is the number of epochs done; no step below the warm-up is pruned.
            return MedianPruner(
                n_startup_trials=median.startup_trials, n_warmup_steps=median.grace_period
            )
        case PbtScheduler() | WilcoxonScheduler() | NoScheduler():
            return NopPruner()
