"""What is said of a trial: by its workers after an epoch, and to whoever watches a sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from segan_ray.search.results.ranking import TrialStatus


@dataclass(frozen=True)
class EpochResult:
    """What a trial's epoch came to; the best is by the (first) objective, the later of equals.

    ``failure`` says why training cannot go on, if so; ``warning``, what is to be known of how it
    went on.
    """

    epoch: int
    epochs: int
    metrics: Mapping[str, float]
    best_epoch: int | None
    best_metrics: Mapping[str, float]
    failure: str | None = None
    warning: str | None = None

    @property
    def last(self) -> bool:
        """Whether the trial ends here by itself."""
        return self.failure is not None or self.epoch >= self.epochs


@dataclass(frozen=True)
class TrialEvent:
    """A trial started (epoch 0), finished an epoch, or ended (``status`` is not running).

    ``score`` is the objective's best so far; ``retries`` is how often it was lost and begun again;
    ``warning`` is to be told to whoever watches.
    """

    trial: str
    status: TrialStatus
    epoch: int
    epochs: int
    score: float | None
    reason: str | None = None
    retries: int = 0
    warning: str | None = None


OnEvent = Callable[[TrialEvent], None]
