"""The state of a sweep and its trials: the records of its outbox, added up.

The same code adds record by record while a sweep runs and over the whole file at a resume, so a
resumed sweep has the state of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from segan_ray.search.results.ranking import SweepStatus, TrialStatus, rank, winner
from segan_ray.search.results.trial_state import TrialState
from segan_ray.tracking.outbox import Record
from segan_ray.training.epoch_record import Mode, improves

ENDS: Final = ("completed", "stopped", "failed")


@dataclass
class Ledger:
    """The states of a sweep's trials, by name, and the sweep's own status.

    The checkpoints of the trials in ``dropped`` are to be deleted.
    """

    metric: str
    mode: Mode
    trials: dict[str, TrialState] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
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
        state = self.trials.get(new.trial, TrialState(new.trial, "pending"))
        if new.kind == "known":
            state = _known(new.trial, facts)
        elif new.kind == "start":
            again = {"repeat_of": facts["repeat_of"], "infeasible": False}
            state = replace(state, status="running", **again)
            self.dropped.discard(new.trial)
        elif new.kind == "epoch":
            failed = facts.get("failed", False)
            state = self.with_epoch(new.trial, facts["epoch"], facts["metrics"], failed=failed)
        elif new.kind == "end":
            infeasible = facts.get("infeasible") or False
            status = cast("TrialStatus", facts["status"])
            state = replace(state, status=status, infeasible=infeasible)
        elif new.kind == "suspend":
            state = replace(state, status="pending")
        elif new.kind == "pause":
            infeasible = facts.get("infeasible") or False
            state = replace(state, status="paused", infeasible=infeasible)
        elif new.kind == "drop":
            self.dropped.add(new.trial)
        self.trials[new.trial] = state

    def has(self, trial: str, epoch: int) -> bool:
        """Tell whether that epoch is recorded."""
        return trial in self.trials and epoch <= self.trials[trial].epoch

    @property
    def open(self) -> tuple[TrialState, ...]:
        """The trials that were started and have neither ended nor been suspended."""
        return tuple(state for state in self.trials.values() if state.status == "running")

    @property
    def unfinished(self) -> tuple[TrialState, ...]:
        """The trials that have not ended."""
        return tuple(state for state in self.trials.values() if state.status not in ENDS)

    @property
    def best_score(self) -> float | None:
        """The score of the best trial so far, by the leaderboard's rule."""
        best = winner(list(self.trials.values()), self.mode)
        return None if best is None else best.score

    def best(self, most: int | None) -> frozenset[str]:
        """Return the ``most`` best trials, ended or not, of those with a score that may win."""
        states = self.trials.values()
        scored = [each for each in states if each.score is not None and not each.infeasible]
        return frozenset(each.trial for each in rank(scored, self.mode)[:most])

    def superfluous(self, keep: int) -> tuple[str, ...]:
        """Return the ended trials whose checkpoints are to be deleted: all but the ``keep`` best.

        Settings that were repeated keep the checkpoint of their best trial too: the mean of the
        repeats may yet win.
        """
        states = self.trials.values()
        # Also those that were stopped before a score: they have trained on some of their folds.
        ended = [each for each in states if each.status in ENDS and each.epoch]
        able = [each for each in ended if each.score is not None and not each.infeasible]
        kept = {each.trial for each in rank(able, self.mode)[:keep]}
        for original in {each.repeat_of for each in states} - {None}:
            repeats = [each for each in able if original in (each.trial, each.repeat_of)]
            kept |= {each.trial for each in rank(repeats, self.mode)[:1]}
        return tuple(each.trial for each in ended if each.trial not in kept | self.dropped)

    def with_epoch(
        self, trial: str, epoch: int, metrics: Mapping[str, Any], *, failed: bool = False
    ) -> TrialState:
        """Return the state of ``trial`` after that epoch; the ledger stays unchanged.

        A ``failed`` epoch has no checkpoint, so it is the best only where there is no other.
        """
        state = self.trials.get(trial, TrialState(trial, "running"))
        state = replace(state, epoch=max(state.epoch, epoch))
        score = metrics.get(self.metric)
        behind = failed and state.score is not None
        if score is None or behind or not improves(score, state.score, self.mode):
            return state
        return replace(state, score=score, best_epoch=epoch, best_metrics=metrics)


def _known(trial: str, facts: Mapping[str, Any]) -> TrialState:
    return TrialState(
        trial,
        cast("TrialStatus", facts["status"]),
        epoch=facts["epochs"],
        score=facts["score"],
        best_epoch=facts["best_epoch"],
        best_metrics=facts["objectives"],
        repeat_of=facts["repeat_of"],
        infeasible=facts.get("infeasible", False),
    )
