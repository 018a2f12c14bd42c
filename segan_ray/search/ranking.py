"""Sweeps and trials as records, and their order on a leaderboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

TrialStatus = Literal["completed", "stopped", "failed", "running", "pending"]
SweepStatus = Literal["running", "finished", "failed"]
Mode = Literal["max", "min"]


@dataclass(frozen=True)
class TrialRecord:
    """One trial: ``epochs`` finished, ``score`` its best epoch's objective or None."""

    trial: str
    status: TrialStatus
    epochs: int
    score: float | None
    mlflow_run: str
    params: Mapping[str, Any]
    reason: str | None = None

    def document(self) -> dict[str, Any]:
        """Return the record as the ``--json`` documents show it."""
        return asdict(self)


@dataclass(frozen=True)
class SweepRecord:
    """One sweep with its trials, best first."""

    sweep: str
    status: SweepStatus
    metric: str
    mode: Mode
    store: str
    created: str
    trials: tuple[TrialRecord, ...]

    @property
    def best(self) -> TrialRecord | None:
        """The trial with the best score, or None while there is no score."""
        first = self.trials[0] if self.trials else None
        return first if first is not None and first.score is not None else None

    def summary(self) -> dict[str, Any]:
        """Return the sweep's entry of the ``sweeps`` document."""
        return {
            "sweep": self.sweep,
            "status": self.status,
            "trials": len(self.trials),
            "metric": self.metric,
            "mode": self.mode,
            "best": None if self.best is None else self.best.score,
            "store": self.store,
            "created": self.created,
        }

    def document(self) -> dict[str, Any]:
        """Return the ``trials`` document."""
        return {
            "sweep": self.sweep,
            "metric": self.metric,
            "mode": self.mode,
            "trials": [trial.document() for trial in self.trials],
            "best": None if self.best is None else self.best.document(),
        }


def rank(trials: Sequence[TrialRecord], mode: Mode) -> tuple[TrialRecord, ...]:
    """Order trials best first; those without a score come last, in order of their numbers."""
    sign = -1 if mode == "max" else 1

    def key(trial: TrialRecord) -> tuple[bool, float, str]:
        return trial.score is None, sign * (trial.score or 0.0), trial.trial

    return tuple(sorted(trials, key=key))
