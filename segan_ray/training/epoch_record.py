"""The record of an epoch of a trial, and the only rule for the best epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from segan_ray.sizes import MOST_EPOCHS

Mode = Literal["max", "min"]
Epoch = Annotated[int, Field(ge=0, le=MOST_EPOCHS, strict=True)]


def improves(value: float, best: float | None, mode: Mode) -> bool:
    """Tell whether an epoch of that ``value`` is better than the ``best`` before it.

    Of equal epochs the later is better: its checkpoint is kept. NaN is never better, and any
    number is better than NaN.
    """
    if math.isnan(value):
        return False
    if best is None or math.isnan(best):
        return True
    return value >= best if mode == "max" else value <= best


def best_epoch(values: Mapping[int, float], mode: Mode) -> int | None:
    """Return the best of ``{epoch: value}``, or None if no value is a number."""
    best: int | None = None
    for epoch in sorted(values):
        if improves(values[epoch], None if best is None else values[best], mode):
            best = epoch
    return best


@dataclass(frozen=True)
class BestEpoch:
    """The best epoch of a trial so far, by its first objective."""

    epoch: Epoch
    metrics: Mapping[str, float]

    def or_better(self, later: BestEpoch, metric: str, mode: Mode) -> BestEpoch:
        """Return the better of this and a later epoch."""
        return later if improves(later.metrics[metric], self.metrics[metric], mode) else self


@dataclass(frozen=True)
class EpochRecord:
    """A finished epoch with its metrics, and the best epoch so far; kept with its checkpoint."""

    epoch: Epoch
    metrics: Mapping[str, float]
    best: BestEpoch
