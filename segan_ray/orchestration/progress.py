"""What happened to a trial, told to whoever watches a sweep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from segan_ray.search.ranking import TrialStatus


@dataclass(frozen=True)
class TrialEvent:
    """A trial started (epoch 0), finished an epoch, or ended (``status`` is not running).

    ``score`` is the objective's best so far.
    """

    trial: str
    status: TrialStatus
    epoch: int
    epochs: int
    score: float | None
    reason: str | None = None


OnEvent = Callable[[TrialEvent], None]
