"""Sweeps and trials as records, their order on a leaderboard, and which of them won."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from segan_ray.training.epoch_record import Mode

TrialStatus = Literal["completed", "stopped", "failed", "running", "paused", "pending"]
SweepStatus = Literal["running", "finished", "failed", "stopped", "interrupted"]
EndedBy = Literal["trials", "hours", "gpu_hours", "no_gain_for"]
"""The part of its budget that a finished sweep has used up."""


class Scored(Protocol):
    """What ranking needs to know of a trial."""

    @property
    def trial(self) -> str: ...
    @property
    def score(self) -> float | None: ...
    @property
    def repeat_of(self) -> str | None: ...
    @property
    def status(self) -> TrialStatus: ...
    @property
    def infeasible(self) -> bool: ...


AnyScored = TypeVar("AnyScored", bound=Scored)


@dataclass(frozen=True)
class TrialRecord:
    """One trial: ``epochs`` finished, ``score`` its best epoch's objective or None.

    ``repeat_of`` names the trial whose settings it repeats with a fresh seed; ``objectives``
    holds every objective's value at the best epoch, where there are several. An ``infeasible``
    trial broke a constraint or ran out of memory, as ``reason`` says, and cannot win.
    """

    trial: str
    """Its number, such as ``007``."""
    status: TrialStatus
    """``stopped``: ended early, by the scheduler or for its ``reason``."""
    epochs: int
    score: float | None
    mlflow_run: str
    """The identifier of its MLflow run."""
    params: Mapping[str, Any]
    """The settings that were drawn for it, by their dotted paths."""
    reason: str | None = None
    """Why it failed, was stopped or is infeasible."""
    repeat_of: str | None = None
    objectives: Mapping[str, float] = field(default_factory=dict)
    infeasible: bool = False

    def document(self) -> dict[str, Any]:
        """Return the record as the ``--json`` documents show it."""
        return asdict(self)


@dataclass(frozen=True)
class Repeats:
    """The ``scores`` that the settings of ``trial`` reached with fresh seeds."""

    trial: str
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean of ``scores``."""
        return statistics.fmean(self.scores)

    @property
    def std(self) -> float | None:
        """Standard deviation of a sample, or None of a single score."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    def document(self) -> dict[str, Any]:
        """Return the entry of the ``trials`` document."""
        return {
            "trial": self.trial,
            "scores": list(self.scores),
            "mean": self.mean,
            "std": self.std,
        }


@dataclass(frozen=True)
class SweepRecord:
    """One sweep with its ``trials``, best first; ``objectives`` is empty unless it has several.

    ``ended_by`` is None unless it is finished, and where an earlier version recorded it.
    """

    sweep: str
    """Its name."""
    status: SweepStatus
    """How it stands, or how it ended."""
    metric: str
    """What it optimises: its first objective, such as ``val/dice_mean``."""
    mode: Mode
    """Whether the highest or the lowest value of that is best."""
    store: str
    """The fingerprint of the store that it trained on."""
    created: str
    """When it began: UTC, as ISO 8601."""
    trials: tuple[TrialRecord, ...]
    objectives: tuple[tuple[str, Mode], ...] = ()
    ended_by: EndedBy | None = None

    @property
    def best(self) -> TrialRecord | None:
        """The trial that won (see ``winner``), or None while there is no score."""
        return winner(self.trials, self.mode)

    @property
    def repeats(self) -> tuple[Repeats, ...]:
        """The scores of repeated trials with fresh seeds, best mean first."""
        return repeats(self.trials, self.mode)

    @property
    def pareto(self) -> tuple[str, ...]:
        """The trials that no other dominates (see ``pareto_front``); none with one objective."""
        names = [name for name, _ in self.objectives]
        able = [trial for trial in self.trials if names and not trial.infeasible]
        scored = [
            trial
            for trial in able
            if not any(math.isnan(trial.objectives.get(name, math.nan)) for name in names)
        ]
        values = [tuple(trial.objectives[name] for name in names) for trial in scored]
        front = pareto_front(values, [mode for _, mode in self.objectives])
        return tuple(scored[index].trial for index in front)

    def summary(self) -> dict[str, Any]:
        """Return the sweep's entry of the ``sweeps`` document."""
        best = self.best
        return {
            "sweep": self.sweep,
            "status": self.status,
            "ended_by": self.ended_by,
            "trials": len(self.trials),
            "metric": self.metric,
            "mode": self.mode,
            "best": None if best is None else best.score,
            "store": self.store,
            "created": self.created,
        }

    def document(self) -> dict[str, Any]:
        """Return the ``trials`` document."""
        best = self.best
        return {
            "sweep": self.sweep,
            "metric": self.metric,
            "mode": self.mode,
            "trials": [trial.document() for trial in self.trials],
            "best": None if best is None else best.document(),
            "repeats": [group.document() for group in self.repeats],
            "objectives": [{"metric": name, "mode": mode} for name, mode in self.objectives],
            "pareto": list(self.pareto),
        }


def said_status(trial: Scored) -> str:
    """Return a trial's status in a word, ``infeasible`` of one that cannot win."""
    return "infeasible" if trial.infeasible else trial.status


def rank(trials: Sequence[AnyScored], mode: Mode) -> tuple[AnyScored, ...]:
    """Order trials best first, then infeasible ones, then those without a score by number."""

    def key(trial: AnyScored) -> tuple[bool, bool, float, int, str]:
        score = 0.0 if trial.score is None else _sign(mode) * trial.score
        return trial.score is None, trial.infeasible, -score, len(trial.trial), trial.trial

    return tuple(sorted(trials, key=key))


def repeats(trials: Sequence[Scored], mode: Mode) -> tuple[Repeats, ...]:
    """Return the scores of repeats by the trial they repeat, best mean first."""
    scores: dict[str, list[float]] = {}
    for trial in sorted(trials, key=lambda trial: (len(trial.trial), trial.trial)):
        if trial.repeat_of is not None and trial.score is not None and not trial.infeasible:
            scores.setdefault(trial.repeat_of, []).append(trial.score)
    groups = [Repeats(original, tuple(found)) for original, found in scores.items()]
    return tuple(sorted(groups, key=lambda g: (-_sign(mode) * g.mean, len(g.trial), g.trial)))


def winner(trials: Sequence[AnyScored], mode: Mode) -> AnyScored | None:
    """Return the trial that won, or None if none that is feasible has a score.

    Where settings were repeated, the settings with the best mean over fresh seeds win: the best
    of many single scores is partly luck, and only repeats tell how much. Of the trials with these
    settings, the original included, the one with the best score wins.
    """
    trials = [trial for trial in trials if not trial.infeasible]
    groups = repeats(trials, mode)
    if groups:
        original = groups[0].trial
        trials = [trial for trial in trials if original in (trial.trial, trial.repeat_of)]
    first = next(iter(rank(trials, mode)), None)
    return first if first is not None and first.score is not None else None


def pareto_front(values: Sequence[Sequence[float]], modes: Sequence[Mode]) -> tuple[int, ...]:
    """Return the indices of the points that no other dominates, in their order.

    A point dominates another if it is worse in no objective and better in at least one.
    """
    points = [
        tuple(_sign(mode) * value for mode, value in zip(modes, point, strict=True))
        for point in values
    ]
    # Best first: each point comes after all points that dominate it.
    front: list[tuple[float, ...]] = []
    for point in sorted(set(points), reverse=True):
        if not any(_covers(other, point) for other in front):
            front.append(point)
    members = set(front)
    return tuple(index for index, point in enumerate(points) if point in members)


def _covers(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True))


def _sign(mode: Mode) -> int:
    return 1 if mode == "max" else -1
