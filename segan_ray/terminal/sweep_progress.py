"""The progress of a sweep, added up from its events. Pure; time comes in as an argument.

Seconds are of any one clock that only goes forward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from segan_ray.search.results.needs import Needs
from segan_ray.search.results.ranking import TrialStatus
from segan_ray.search.results.trial_state import EndedBefore, MoreTrials, SweepEvent, TrialState
from segan_ray.training.epoch_record import Mode


@dataclass(frozen=True)
class TrialProgress:
    """How far a trial has come (``state``), and how fast.

    ``start`` and ``first`` are (second, epoch) of its latest start and of the first epoch after
    it, ``latest_s`` when its last epoch came, ``ended_s`` when it ended.
    """

    state: TrialState
    start: tuple[float, int]
    first: tuple[float, int] | None = None
    latest_s: float | None = None
    ended_s: float | None = None

    @property
    def epoch_s(self) -> float | None:
        """Mean seconds of an epoch, start-up left out as soon as two epochs have ended."""
        if self.latest_s is None or self.first is None:
            return None
        epoch = self.state.epoch
        since_s, since = self.first if epoch > self.first[1] else self.start
        return (self.latest_s - since_s) / max(1, epoch - since)

    def elapsed_s(self, now: float) -> float:
        """Return the seconds since it started, or that it took."""
        return (now if self.ended_s is None else self.ended_s) - self.start[0]

    def left_epochs(self, now: float) -> float:
        """Return how many epochs are left, the current one in parts."""
        left = float(self.state.epochs - self.state.epoch)
        if self.latest_s is None or not self.epoch_s:
            return left
        return max(0.0, left - min(1.0, (now - self.latest_s) / self.epoch_s))

    def left_s(self, now: float) -> float | None:
        """Return the seconds left if it runs to its last epoch, or None while unknown."""
        if self.state.status != "running" or self.epoch_s is None:
            return None
        return self.left_epochs(now) * self.epoch_s


@dataclass(frozen=True)
class SweepProgress:
    """The progress of all trials of a sweep; ``after`` returns a new one for each event.

    ``total`` is how many trials the sweep is to have, of which ``earlier`` ended in a process
    before; ``price`` is that of a GPU hour.
    """

    name: str
    metric: str
    mode: Mode
    total: int
    began_s: float
    trials: Mapping[str, TrialProgress] = field(default_factory=dict)
    price: float | None = None
    earlier: int = 0

    def after(self, event: SweepEvent, now: float) -> SweepProgress:
        """Return the progress after ``event``."""
        if isinstance(event, MoreTrials):
            return replace(self, total=self.total + event.count)
        if isinstance(event, EndedBefore):
            return replace(self, earlier=event.count)
        trial = _after(self.trials.get(event.trial), event, now)
        return replace(self, trials={**self.trials, event.trial: trial})

    @property
    def counts(self) -> Counter[TrialStatus]:
        """How many trials there are of each status; trials that have not begun are pending."""
        counted = Counter(trial.state.status for trial in self.trials.values())
        counted["pending"] += max(0, self.total - self.earlier - len(self.trials))
        return counted

    @property
    def running(self) -> list[TrialProgress]:
        """The running trials, in order of their names."""
        return sorted(
            (trial for trial in self.trials.values() if trial.state.status == "running"),
            key=lambda trial: trial.state.trial,
        )

    @property
    def ended(self) -> list[TrialProgress]:
        """The trials that have ended, the latest first."""
        found = [trial for trial in self.trials.values() if trial.ended_s is not None]
        return sorted(found, key=lambda trial: trial.ended_s or 0.0, reverse=True)

    @property
    def by_score(self) -> list[TrialProgress]:
        """The trials that have a score and may win, best first."""
        sign = -1 if self.mode == "max" else 1
        scored = [
            trial
            for trial in self.trials.values()
            if trial.state.score is not None and not trial.state.infeasible
        ]
        return sorted(
            scored, key=lambda trial: (sign * (trial.state.score or 0.0), trial.state.trial)
        )

    @property
    def best(self) -> TrialProgress | None:
        """The trial with the best score so far, if any has one."""
        return next(iter(self.by_score), None)

    @property
    def saved_epochs(self) -> int:
        """How many epochs were not run because the scheduler stopped trials."""
        return sum(
            trial.state.epochs - trial.state.epoch
            for trial in self.trials.values()
            if trial.state.status == "stopped"
        )

    def left_s(self, now: float) -> float | None:
        """Return the seconds the sweep may still take, or None while unknown.

        That is the epochs left times the mean seconds of an epoch, start-up included, by as
        many trials as run. Trials to come are taken to run as long as those that have ended.
        """
        seen = [trial for trial in self.trials.values() if trial.latest_s is not None]
        spent = sum((trial.latest_s or 0.0) - trial.start[0] for trial in seen)
        epochs = sum(trial.state.epoch - trial.start[1] for trial in seen)
        if self.counts["running"] + self.counts["pending"] == 0:
            return 0.0
        if not epochs or not spent:
            return None
        left = sum(trial.left_epochs(now) for trial in self.running)
        left += self.counts["pending"] * self._usual_epochs()
        return left * spent / epochs / max(1, self.counts["running"])

    @property
    def is_timed(self) -> bool:
        """Whether a trial has ended two epochs, so that its start-up can be left out."""
        return any(
            each.first is not None and each.state.epoch > each.first[1]
            for each in self.trials.values()
        )

    def needs(self, now: float) -> Needs | None:
        """Return what the sweep may still take (see ``left_s``), or None while unknown."""
        seconds = self.left_s(now)
        if seconds is None:
            return None
        gpus = max((trial.state.gpus for trial in self.trials.values()), default=0.0)
        return Needs(seconds, seconds * max(1, self.counts["running"]) * gpus, self.price)

    def _usual_epochs(self) -> float:
        ended = [trial for trial in self.ended if trial.state.status != "failed"]
        if ended:
            return sum(trial.state.epoch for trial in ended) / len(ended)
        return max((trial.state.epochs for trial in self.trials.values()), default=0)


def _after(known: TrialProgress | None, event: TrialState, now: float) -> TrialProgress:
    ended_s = None if event.status in {"running", "paused", "pending"} else now
    if known is None:
        return TrialProgress(event, (now, event.epoch), ended_s=ended_s)
    further = event.epoch > known.state.epoch
    told = replace(known, state=event, ended_s=ended_s)
    if event.status == "running" and (known.state.status != "running" or not further):
        # Also a start over, after which the pace is measured anew.
        return replace(told, start=(now, event.epoch), first=None, latest_s=None)
    if further:
        return replace(told, first=known.first or (now, event.epoch), latest_s=now)
    return told
