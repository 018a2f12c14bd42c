"""How far a sweep had come after so many epochs and hours: its best score so far."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from segan_ray.training.epoch_record import Mode, improves


@dataclass(frozen=True)
class TimedEpoch:
    """An epoch that took ``took_s`` and ended at ``at_s``, seconds since any moment.

    ``score`` is NaN if it brought none, or one that cannot win.
    """

    at_s: float
    took_s: float
    score: float


@dataclass(frozen=True)
class BestSoFar:
    """The best score of a sweep once it had trained for so many epochs, and so many hours.

    Hours in which nothing trained do not count.
    """

    epochs: int
    hours: float
    best: float

    @property
    def minutes(self) -> float:
        """The hours in minutes."""
        return self.hours * 60


def progress(epochs: Iterable[TimedEpoch], mode: Mode) -> tuple[BestSoFar, ...]:
    """Return each gain of the best score, and where the last epoch ended."""
    gains: list[BestSoFar] = []
    best: float | None = None
    trained_s, until_s = 0.0, -math.inf
    count = 0
    for count, epoch in enumerate(sorted(epochs, key=lambda each: each.at_s), start=1):
        trained_s += max(0.0, epoch.at_s - max(until_s, epoch.at_s - epoch.took_s))
        until_s = max(until_s, epoch.at_s)
        if epoch.score != best and improves(epoch.score, best, mode):
            best = epoch.score
            gains.append(BestSoFar(count, trained_s / 3600, best))
    if best is not None and gains[-1].epochs < count:
        gains.append(BestSoFar(count, trained_s / 3600, best))
    return tuple(gains)
