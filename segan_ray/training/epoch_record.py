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
    """A finished epoch with its metrics, and the best epoch so far; kept with its checkpoint.

    Of a trial that trains on several folds, one after another, ``best`` is that of the fold of this
    epoch, and ``folds`` holds the best epoch of each fold so far, this one included.
    """

    epoch: Epoch
    metrics: Mapping[str, float]
    best: BestEpoch
    folds: tuple[BestEpoch, ...] = ()

    @property
    def to_keep(self) -> set[int]:
        """The epochs whose checkpoints are needed: this one, to go on, and the best."""
        return {self.epoch, self.best.epoch, *(best.epoch for best in self.folds)}
