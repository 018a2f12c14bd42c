"""Schedulers: which trials are stopped early, as a space file says it.

Epochs count from 1. No trial is stopped before it has run ``grace_period`` epochs, where there
is a grace period.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from segan_ray.search.space.parameters import Frozen
from segan_ray.sizes import MOST_EPOCHS, MOST_FOLDS, MOST_TRIALS

Epochs = Annotated[int, Field(ge=1, le=MOST_EPOCHS)]
Factor = Annotated[int, Field(ge=2, le=MOST_EPOCHS)]


FEWEST_IN_POPULATION: Final = 4
"""A quarter of fewer trials is not even one trial."""

CHANGEABLE: Final = frozenset(
    {
        "segmentor.lr",
        "critic.lr",
        "critic.clamp",
        "critic.steps",
        "loss.scale_weights",
        "loss.adversarial_weight",
        "loss.class_weights",
        "loss.ce_weight",
        "loss.dice_weight",
        "loss.dice_smoothing",
        "data.tumour_fraction",
        "data.flip",
        "data.flip_front_back",
        "data.rotation_deg",
        "data.scaling",
        "data.intensity",
        "data.bias",
    }
)
"""Settings that may change during a run: they leave networks, optimizers and slices as they are."""


class AshaScheduler(Frozen):
    """Stops a trial at a rung unless it is among the best 1/``reduction_factor`` there.

    The first rung is after ``grace_period`` epochs, each later one after ``reduction_factor``
    times as many. With ``promote`` a trial is not stopped but paused, and goes on from its
    checkpoint once later trials have put it among the best. If ``max_epochs`` is to grow, trials
    go as far as the second rung, and each time that the order of the best changes from one rung to
    the next, a rung further (PASHA, Bohdal et al. 2023).
    """

    type: Literal["asha"] = "asha"
    grace_period: Epochs = 1
    reduction_factor: Factor = 3
    promote: bool = False
    max_epochs: Literal["grow"] | None = None

    @model_validator(mode="after")
    def _grows_with_pauses(self) -> AshaScheduler:
        if self.max_epochs is not None and not self.promote:
            raise ValueError(
                "max_epochs grow lets trials wait for others to show how far they are to go. Write "
                "promote: true beside it."
            )
        return self


def rung_epochs(first: int, factor: int, most: int) -> tuple[int, ...]:
    """Return the rungs of trials that run at most ``most`` epochs; their last epoch is none."""
    rungs = []
    rung = first
    while rung < most:
        rungs.append(rung)
        rung *= factor
    return tuple(rungs)


class HyperbandScheduler(Frozen):
    """ASHA with several grace periods, one for each trial; ``grace_period`` is the least."""

    type: Literal["hyperband"]
    grace_period: Epochs = 1
    reduction_factor: Factor = 3


class MedianScheduler(Frozen):
    """Stops a trial whose best score is below the median of completed trials at the same epoch.

    Nothing is stopped until ``startup_trials`` have completed.
    """

    type: Literal["median"]
    grace_period: Epochs = 1
    startup_trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 5


class PbtScheduler(Frozen):
    """Population-based training: every ``interval`` epochs weak trials exploit strong ones.

    A trial among the lowest ``quantile`` goes on from the checkpoint of a trial among the highest.
    It takes that trial's parameters, changed a little or, with probability ``resample``, redrawn.
    """

    type: Literal["pbt"]
    interval: Epochs = 3
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    resample: Annotated[float, Field(ge=0, le=1)] = 0.25


class WilcoxonScheduler(Frozen):
    """Stops a trial after a fold if its folds are worse than those of the best trial so far.

    They are worse if the signed-rank test says so, one-sided and paired by fold, with a p below
    ``p_threshold``; not before ``startup_folds`` folds. If all are worse, p is 0.25, 0.125 and
    0.0625 after two, three and four folds. For a space with ``folds`` alone.
    """

    type: Literal["wilcoxon"] = "wilcoxon"
    p_threshold: Annotated[float, Field(gt=0, lt=1)] = 0.15
    startup_folds: Annotated[int, Field(ge=1, le=MOST_FOLDS)] = 2


class NoScheduler(Frozen):
    """Every trial runs to its last epoch."""

    type: Literal["none"]


Scheduler = Annotated[
    AshaScheduler
    | HyperbandScheduler
    | MedianScheduler
    | PbtScheduler
    | WilcoxonScheduler
    | NoScheduler,
    Field(discriminator="type"),
]
