"""How far a trial has come: in the driver, in the records, on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from segan_ray.search.results.ranking import TrialStatus


@dataclass(frozen=True)
class TrialState:
    """A trial after ``epoch`` of at most ``epochs`` epochs (0 where records do not tell).

    ``score`` is the first objective at the best epoch, ``best_metrics`` are the metrics there.
    ``repeat_of`` is the trial whose settings this trial repeats. ``retries`` counts how often the
    trial was lost and begun again at its last checkpoint, ``failure`` says why its training cannot
    go on, ``reason`` how it ended. ``warning`` is news for the user, said once. ``gpus`` is how
    many its workers hold while it runs. An ``infeasible`` trial cannot win.
    """

    trial: str
    status: TrialStatus
    epoch: int = 0
    epochs: int = 0
    score: float | None = None
    reason: str | None = None
    retries: int = 0
    warning: str | None = None
    best_epoch: int | None = None
    best_metrics: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None
    repeat_of: str | None = None
    gpus: float = 0.0
    infeasible: bool = False


@dataclass(frozen=True)
class MoreTrials:
    """A sweep is to have ``count`` more trials than was said before, fewer if it is negative."""

    count: int


@dataclass(frozen=True)
class EndedBefore:
    """So many trials of a sweep ended in an earlier process."""

    count: int


SweepEvent = TrialState | MoreTrials | EndedBefore
OnState = Callable[[SweepEvent], None]
"""Takes the state of a trial whenever it changes, and changes of how many there are to be."""
