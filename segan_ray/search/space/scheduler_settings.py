"""Schedulers: which trials are stopped early, as a space file says it and as Optuna does it.

Epochs count from 1. Where there is a ``grace_period``, no trial is stopped before it has run
that many; Optuna's pruners decide from the study's storage alone, so they may be made anew at
any time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    SuccessiveHalvingPruner,
)
from pydantic import Field

from segan_ray.search.space.parameters import Frozen
from segan_ray.sizes import MOST_EPOCHS, MOST_TRIALS

if TYPE_CHECKING:
    from segan_ray.search.space.search_space import SearchSpace

Epochs = Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
Factor = Annotated[int, Field(ge=2, le=MOST_EPOCHS)]


class AshaScheduler(Frozen):
    """Stops a trial at a rung unless it is among the best 1/``reduction_factor`` there.

    The first rung is after ``grace_period`` epochs, each later one after ``reduction_factor``
    times as many.
    """

    type: Literal["asha"] = "asha"
    grace_period: Epochs = 1
    reduction_factor: Factor = 3


class HyperbandScheduler(Frozen):
    """ASHA with several grace periods, the least of them ``grace_period``; a trial has one."""

    type: Literal["hyperband"]
    grace_period: Epochs = 1
    reduction_factor: Factor = 3


class MedianScheduler(Frozen):
    """Stops a trial whose best is below the median of completed ones at the same epoch.

    Nothing is stopped until ``startup_trials`` have completed.
    """

    type: Literal["median"]
    grace_period: Epochs = 1
    startup_trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 5


class PbtScheduler(Frozen):
    """Population-based training: every ``interval`` epochs the weak take over from the strong.

    A trial among the lowest ``quantile`` goes on from the checkpoint of one among the highest,
    with its parameters changed a little, or drawn anew with probability ``resample``.
    """

    type: Literal["pbt"]
    interval: Epochs = 3
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    resample: Annotated[float, Field(ge=0, le=1)] = 0.25


class NoScheduler(Frozen):
    """Every trial runs to its last epoch."""

    type: Literal["none"]


Scheduler = Annotated[
    AshaScheduler | HyperbandScheduler | MedianScheduler | PbtScheduler | NoScheduler,
    Field(discriminator="type"),
]


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
            # Steps below the warm-up are never pruned, and a step is the epochs done.
            return MedianPruner(
                n_startup_trials=median.startup_trials, n_warmup_steps=median.grace_period
            )
        case PbtScheduler() | NoScheduler():
            return NopPruner()
