"""What the driver of a sweep and the workers of a trial tell each other.

Down goes a ``Task``, and after each epoch a ``Decision``; up goes an ``EpochResult`` each epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from segan_ray.config import Experiment
from segan_ray.training.epoch_record import BestEpoch, Mode


@dataclass(frozen=True)
class Task:
    """One trial for a worker group, with its number among the group's tasks."""

    number: int
    config: dict[str, Any]


@dataclass(frozen=True)
class EpochResult:
    """A finished epoch of at most ``epochs``, and the best one so far, if any is worth it.

    ``failure`` says why training cannot go on, which with ``out_of_memory`` is that; ``warning``
    is news for the user. ``picture`` is a PNG of validation slices, of some epochs.
    """

    epoch: int
    epochs: int
    metrics: Mapping[str, float]
    best: BestEpoch | None
    failure: str | None = None
    warning: str | None = None
    out_of_memory: bool = False
    picture: bytes | None = None

    @property
    def last(self) -> bool:
        """Whether the trial ends here by itself."""
        return self.failure is not None or self.epoch >= self.epochs


@dataclass(frozen=True)
class Decision:
    """What a trial does after an epoch: it stops, or it goes on.

    To exploit another trial (population-based training), it goes on with ``experiment`` and from
    the weights at ``checkpoint``, unless that is None.
    """

    stop: bool = False
    experiment: Experiment | None = None
    checkpoint: str | None = None


GO_ON: Final = Decision()
STOP: Final = Decision(stop=True)


def worst(mode: Mode) -> float:
    """Return the objective of an epoch that came to nothing: schedulers must find a number."""
    return 0.0 if mode == "max" else 1e9
