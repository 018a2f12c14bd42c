"""What a sweep's records say of it so far: the journal, added up.

The same sum is made record by record while a sweep runs and over the whole file when it goes on,
so a resumed sweep knows what an uninterrupted one would.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from segan_ray.search.results.ranking import Mode, SweepStatus, TrialStatus, rank, winner
from segan_ray.tracking.journal import Record

ENDS: Final = ("completed", "stopped", "failed")


@dataclass(frozen=True)
class Tally:
    """How far one trial has come; ``dropped`` when its checkpoint was given up."""

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
    """The trials of one sweep, by name, and the sweep's own status."""

    metric: str
    mode: Mode
    objectives: tuple[tuple[str, Mode], ...] = ()
    trials: dict[str, Tally] = field(default_factory=dict)
    status: SweepStatus = "running"

    def note_all(self, records: Iterable[Record]) -> Ledger:
        """Add ``records`` up and return the ledger."""
        for one in records:
            self.note(one)
        return self

    def note(self, new: Record) -> None:
        """Add one record."""
        facts = new.facts
        if new.trial is None:
            self.status = facts["status"] if new.kind == "close" else "running"
            return
        known = self.trials.get(new.trial, Tally(new.trial, "pending"))
        if new.kind == "known":
            known = Tally(new.trial, **facts)
        elif new.kind == "start":
            known = replace(
                known, status="running", repeat_of=facts.get("repeat_of"), dropped=False
            )
        elif new.kind == "epoch":
            known = self.with_epoch(new.trial, facts["epoch"], facts["metrics"])
        elif new.kind == "end":
            known = replace(known, status=cast("TrialStatus", facts["status"]))
        elif new.kind == "park":
            known = replace(known, status="pending")
        elif new.kind == "drop":
            known = replace(known, dropped=True)
        self.trials[new.trial] = known

    def has(self, trial: str, epoch: int) -> bool:
        """Tell whether that epoch is recorded."""
        return trial in self.trials and epoch <= self.trials[trial].epochs

    @property
    def open(self) -> tuple[Tally, ...]:
        """The trials that were started and have neither ended nor been parked."""
        return tuple(one for one in self.trials.values() if one.status == "running")

    @property
    def unfinished(self) -> tuple[Tally, ...]:
        """The trials that have not ended."""
        return tuple(one for one in self.trials.values() if not one.ended)

    @property
    def best_score(self) -> float | None:
        """The score of the trial that won so far, as the leaderboard judges."""
        best = winner(list(self.trials.values()), self.mode)
        return None if best is None else best.score

    def superfluous(self, keep: int) -> tuple[str, ...]:
        """Return the ended trials whose checkpoints are to go: all but the ``keep`` best.

        Of settings that were repeated the best trial stays as well, for it may yet win.
        """
        ended = [one for one in self.trials.values() if one.ended and one.score is not None]
        stay = {one.trial for one in rank(ended, self.mode)[:keep]}
        for original in {one.repeat_of for one in self.trials.values()} - {None}:
            group = [one for one in ended if original in (one.trial, one.repeat_of)]
            stay |= {one.trial for one in rank(group, self.mode)[:1]}
        return tuple(one.trial for one in ended if one.trial not in stay and not one.dropped)

    def with_epoch(self, trial: str, epoch: int, metrics: Mapping[str, Any]) -> Tally:
        """Return what is known of ``trial`` once it has that epoch; the ledger stays as it is."""
        known = self.trials.get(trial, Tally(trial, "running"))
        known = replace(known, epochs=max(known.epochs, epoch))
        score = metrics.get(self.metric)
        if score is None or math.isnan(score):
            return known
        sign = 1 if self.mode == "max" else -1
        # Of equal epochs the later: Ray Train deletes the earlier one's checkpoint.
        if known.score is not None and (score - known.score) * sign < 0:
            return known
        values = {name: metrics[name] for name, _ in self.objectives if name in metrics}
        return replace(known, score=score, best_epoch=epoch, objectives=values)
