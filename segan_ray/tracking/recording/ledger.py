"""The state of a sweep and its trials: the records of its outbox, added up.

The same code adds record by record while a sweep runs and over the whole file at a resume, so a
resumed sweep has the state of an uninterrupted one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from segan_ray.search.results.ranking import Mode, SweepStatus, TrialStatus, rank, winner
from segan_ray.tracking.outbox import Record

ENDS: Final = ("completed", "stopped", "failed")


@dataclass(frozen=True)
class Tally:
    """The state of one trial; ``dropped`` once its checkpoint is to be deleted."""

    trial: str
    status: TrialStatus
    epochs: int = 0
    score: float | None = None
    best_epoch: int = 0
    repeat_of: str | None = None
    objectives: Mapping[str, float] = field(default_factory=dict)
    dropped: bool = False

    @property
    def ended(self) -> bool:
        return self.status in ENDS


@dataclass
class Ledger:
    """The states of a sweep's trials, by name, and the sweep's own status."""

    metric: str
    mode: Mode
    objectives: tuple[tuple[str, Mode], ...] = ()
    trials: dict[str, Tally] = field(default_factory=dict)
    status: SweepStatus = "running"

    def note_all(self, records: Iterable[Record]) -> Ledger:
        """Add ``records`` and return the ledger."""
        for each in records:
            self.note(each)
        return self

    def note(self, new: Record) -> None:
        """Add one record."""
        facts = new.facts
        if new.trial is None:
            self.status = facts["status"] if new.kind == "close" else "running"
            return
        tally = self.trials.get(new.trial, Tally(new.trial, "pending"))
        if new.kind == "known":
            tally = Tally(new.trial, **facts)
        elif new.kind == "start":
            repeat_of = facts["repeat_of"]
            tally = replace(tally, status="running", repeat_of=repeat_of, dropped=False)
        elif new.kind == "epoch":
            tally = self.with_epoch(new.trial, facts["epoch"], facts["metrics"])
        elif new.kind == "end":
            tally = replace(tally, status=cast("TrialStatus", facts["status"]))
        elif new.kind == "suspend":
            tally = replace(tally, status="pending")
        elif new.kind == "drop":
            tally = replace(tally, dropped=True)
        self.trials[new.trial] = tally

    def has(self, trial: str, epoch: int) -> bool:
        """Tell whether that epoch is recorded."""
        return trial in self.trials and epoch <= self.trials[trial].epochs

    @property
    def open(self) -> tuple[Tally, ...]:
        """The trials that were started and have neither ended nor been suspended."""
        return tuple(tally for tally in self.trials.values() if tally.status == "running")

    @property
    def unfinished(self) -> tuple[Tally, ...]:
        """The trials that have not ended."""
        return tuple(tally for tally in self.trials.values() if not tally.ended)

    @property
    def best_score(self) -> float | None:
        """The score of the best trial so far, by the leaderboard's rule."""
        best = winner(list(self.trials.values()), self.mode)
        return None if best is None else best.score

    def superfluous(self, keep: int) -> tuple[str, ...]:
        """Return the ended trials whose checkpoints are to be deleted: all but the ``keep`` best.

        Settings that were repeated keep the checkpoint of their best trial too: the mean of the
        repeats may yet win.
        """
        ended = [each for each in self.trials.values() if each.ended and each.score is not None]
        kept = {each.trial for each in rank(ended, self.mode)[:keep]}
        for original in {each.repeat_of for each in self.trials.values()} - {None}:
            repeats = [each for each in ended if original in (each.trial, each.repeat_of)]
            kept |= {each.trial for each in rank(repeats, self.mode)[:1]}
        return tuple(each.trial for each in ended if each.trial not in kept and not each.dropped)

    def with_epoch(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> Tally:
        """Return the state of ``trial`` after that epoch; the ledger stays unchanged."""
        tally = self.trials.get(trial, Tally(trial, "running"))
        tally = replace(tally, epochs=max(tally.epochs, epoch))
        score = metrics.get(self.metric)
        if score is None or math.isnan(score):
            return tally
        sign = 1 if self.mode == "max" else -1
        # Of equal epochs the later: Ray Train deletes the earlier one's checkpoint.
        if tally.score is not None and (score - tally.score) * sign < 0:
            return tally
        values = {name: metrics[name] for name, _ in self.objectives if name in metrics}
        return replace(tally, score=score, best_epoch=epoch, objectives=values)
