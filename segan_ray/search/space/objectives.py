"""What trials are judged by: objectives, and constraints that a trial must keep to win."""

from __future__ import annotations

import math
from typing import Annotated, Final

from pydantic import AfterValidator, Field, model_validator

from segan_ray.errors import nearest
from segan_ray.search.space.parameters import Frozen
from segan_ray.training.epoch_record import Mode
from segan_ray.training.validation_scores import VALIDATION

METRICS: Final = (
    "train/loss_critic",
    "train/loss_segmentor",
    *VALIDATION,
    "time/epoch_s",
    "time/slices_per_s",
    "model/parameters",
    "memory/peak_gb",
)
"""Every metric a trial reports, each epoch."""
FROM_SETTINGS: Final = ("model/parameters", "memory/peak_gb")
"""Metrics that follow from a trial's settings: an epoch tells that a trial breaks a bound."""


def _reported(metric: str) -> str:
    if metric not in METRICS:
        raise ValueError(f"no trial reports the metric '{metric}'.{nearest(metric, METRICS)}")
    return metric


Metric = Annotated[str, AfterValidator(_reported)]
Bound = Annotated[float, Field(allow_inf_nan=False)]


class Objective(Frozen):
    """What a trial is to reach the most, or the least, of."""

    metric: Metric = "val/dice_mean"
    mode: Mode = "max"


class Constraint(Frozen):
    """A metric that is to be at most ``max`` and at least ``min``."""

    metric: Metric
    min: Bound | None = None
    max: Bound | None = None

    @model_validator(mode="after")
    def _bounded(self) -> Constraint:
        if self.min is None and self.max is None:
            raise ValueError(f"{self.metric} has no bound. Give it a max, a min, or both.")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"{self.metric} cannot be at least {self.min:g} and at most "
                             f"{self.max:g}.")  # fmt: skip
        return self

    @property
    def follows_from_settings(self) -> bool:
        """Whether an epoch that breaks it tells that the trial does."""
        return self.metric in FROM_SETTINGS

    def violation(self, value: float) -> float:
        """Return by how much ``value`` breaks it, in shares of the bound: 0 or less if kept.

        A value that is no number breaks it by 1.
        """
        if math.isnan(value):
            return 1.0
        over = [] if self.max is None else [(value - self.max) / (abs(self.max) or 1.0)]
        under = [] if self.min is None else [(self.min - value) / (abs(self.min) or 1.0)]
        return max(over + under)

    def said(self) -> str:
        """Return the constraint in words."""
        least = [] if self.min is None else [f"at least {self.min:g}"]
        most = [] if self.max is None else [f"at most {self.max:g}"]
        return f"{self.metric} {' and '.join(least + most)}"
