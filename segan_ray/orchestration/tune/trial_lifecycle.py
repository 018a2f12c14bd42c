"""What the process of a sweep notes of its trials, and in which order.

First the study, which is the truth; then the journal of the tracker; then whoever watches. A
process may be killed between any two of them, so each note may come again: what is known already
is not noted twice, and ``reconcile`` notes in the journal what only the study knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Protocol

from segan_ray.config import Experiment
from segan_ray.orchestration.train.epoch_result import EpochResult, OnEvent, TrialEvent
from segan_ray.search.results.ranking import TrialStatus
from segan_ray.search.space.search_space import Objective
from segan_ray.search.study.sweep_study import Ended, Exploit, Outcome
from segan_ray.tracking.recording.recorder import Recorder
from segan_ray.training.checkpoints.remote_folder import TrialCheckpoints, trial_checkpoints

SUSPEND_S: Final = 5.0
"""For how long an interrupted sweep waits for MLflow; what it does not take waits on disk."""
STOPPED: Final = "Stopped by segan-ray stop."
NO_EPOCH: Final = "It ended without a single epoch."


class Judge(Protocol):
    """Who decides what becomes of a trial; a sweep's study does."""

    def report(self, number: int, epoch: int, *values: float) -> bool: ...
    def exploit(self, number: int, epoch: int) -> Exploit | None: ...
    def changing(self, number: int) -> Mapping[str, float]: ...
    def tell(
        self, number: int, outcome: Outcome, reason: str | None = None, *, learn: bool = False
    ) -> None: ...
    def ended(self) -> dict[int, Ended]: ...
    def suspend(self) -> None: ...


class NobodyJudges:
    """For a single run: it goes to its last epoch."""

    def report(self, number: int, epoch: int, *values: float) -> bool:
        """Never stop."""
        return False

    def exploit(self, number: int, epoch: int) -> None:
        """Never take over."""

    def changing(self, number: int) -> Mapping[str, float]:
        """Change nothing."""
        return {}

    def tell(
        self, number: int, outcome: Outcome, reason: str | None = None, *, learn: bool = False
    ) -> None:
        """Keep nothing."""

    def ended(self) -> dict[int, Ended]:
        """Nothing is kept."""
        return {}

    def suspend(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class TrialState:
    """How far a trial has come; ``best`` is its best epoch by the (first) objective."""

    trial: str
    epochs: int
    epoch: int = 0
    best_epoch: int | None = None
    best_metrics: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None
    retries: int = 0
    status: Outcome | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Decision:
    """What becomes of a trial after an epoch."""

    stop: bool
    exploit: Exploit | None = None


class TrialLifecycle:
    """Notes trials as they begin, finish epochs, and end."""

    def __init__(
        self,
        judge: Judge,
        recorder: Recorder,
        objectives: Sequence[Objective],
        checkpoints: str,
        on_event: OnEvent,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Note trials of this process; ``check`` raises once they are another's."""
        self._judge = judge
        self._recorder = recorder
        self._objectives = tuple(objectives)
        self._checkpoints = checkpoints
        self._on_event = on_event
        self.check = check
        self._open: dict[str, TrialState] = {}
        self.ended: dict[str, TrialState] = {}

    def checkpoints(self, trial: str) -> TrialCheckpoints:
        """Return a trial's checkpoints, without a folder for copies of far ones."""
        return trial_checkpoints(f"{self._checkpoints}/{trial}", Path())

    def begin(
        self,
        trial: str,
        experiment: Experiment,
        params: Mapping[str, Any],
        repeat_of: str | None = None,
    ) -> None:
        """Note that a trial trains, for the first time or again."""
        known = self._open.get(trial)
        self._open[trial] = known or TrialState(trial, experiment.training.epochs)
        self._recorder.start_trial(trial, experiment, params, repeat_of)
        self._tell(self._open[trial])

    def knows(self, trial: str) -> bool:
        """Tell whether a trial has begun, or ended, in this process."""
        return trial in self._open or trial in self.ended

    def epoch(self, trial: str, result: EpochResult) -> Decision:
        """Note a finished epoch, once, and return what becomes of the trial."""
        followed = self._open.get(trial)
        if followed is None:
            return Decision(stop=True)
        epoch, metrics = result.epoch, result.metrics
        values = [metrics[objective.metric] for objective in self._objectives]
        stop = self._judge.report(int(trial), epoch, *values)
        if result.warning:
            self._tell(followed, warning=result.warning)
        if epoch > followed.epoch:
            followed = replace(
                followed,
                epoch=epoch,
                best_epoch=result.best_epoch,
                best_metrics=result.best_metrics,
                failure=result.failure,
            )
            self._open[trial] = followed
            # MLflow's parameters cannot change; what does is a metric.
            changing = self._judge.changing(int(trial))
            settings = {f"param/{path}": value for path, value in changing.items()}
            self._recorder.log_epoch(trial, epoch, {**metrics, **settings})
            self._tell(followed)
        ends = stop or result.last
        return Decision(stop, None if ends else self._judge.exploit(int(trial), epoch))

    def retry(self, trial: str) -> None:
        """Note that a trial was lost and begins again at its last checkpoint."""
        followed = self._open.get(trial)
        if followed is None:
            # Its lane was lost before it began.
            return
        self._open[trial] = replace(followed, retries=followed.retries + 1)
        self._tell(self._open[trial])

    def end(self, trial: str, crash: str | None = None) -> None:
        """Note that a trial ended: after its last epoch, stopped before it, or crashed."""
        followed = self._open.pop(trial, None)
        if followed is None:
            return
        if crash is not None or followed.failure is not None or not followed.epoch:
            outcome: Outcome = "failed"
        else:
            outcome = "completed" if followed.epoch >= followed.epochs else "stopped"
        reason = crash or followed.failure or (None if followed.epoch else NO_EPOCH)
        self._close(followed, outcome, reason)

    def stop_open(self) -> None:
        """End whatever is open: the sweep was asked to stop.

        What was drawn and never began waits, in case the sweep is resumed.
        """
        for trial in sorted(self._open):
            self._close(self._open.pop(trial), "stopped", STOPPED)
        self._judge.suspend()

    def suspend(self) -> None:
        """Leave nothing running: the sweep's process goes, its open trials wait for another."""
        self._judge.suspend()
        self._recorder.suspend(patience_s=SUSPEND_S)
        for followed in self._open.values():
            self._tell(followed, "pending")
        self._open.clear()

    def abandon(self) -> None:
        """Note nothing more, anywhere: the sweep is another process's."""
        self._recorder.abandon()
        self._open.clear()

    def reconcile(self) -> None:
        """Note in the journal the ends that only the study knows of."""
        ended = self._judge.ended()
        for trial in self._recorder.unfinished:
            known = ended.get(int(trial))
            if known is not None:
                self._recorder.end_trial(trial, known.outcome, known.reason, self._best(trial))

    def _close(self, followed: TrialState, outcome: Outcome, reason: str | None) -> None:
        # Settings that diverge or collapse are to be kept away from; a crash says nothing.
        learn = followed.failure is not None and reason == followed.failure
        self._judge.tell(int(followed.trial), outcome, reason, learn=learn)
        self.ended[followed.trial] = replace(followed, status=outcome, reason=reason)
        best = self._best(followed.trial)
        self._recorder.end_trial(followed.trial, outcome, reason, best)
        self._tell(followed, outcome, reason)

    def _best(self, trial: str) -> str | None:
        """Return the checkpoint of a trial's best epoch, as far as one was kept."""
        checkpoints = self.checkpoints(trial)
        last = checkpoints.last_report()
        if last is None:
            return None
        return checkpoints.kept(last.best.epoch) or checkpoints.kept(last.epoch)

    def _tell(
        self,
        followed: TrialState,
        status: TrialStatus = "running",
        reason: str | None = None,
        warning: str | None = None,
    ) -> None:
        score = followed.best_metrics.get(self._objectives[0].metric)
        self._on_event(
            TrialEvent(
                followed.trial,
                status,
                followed.epoch,
                followed.epochs,
                score,
                reason,
                followed.retries,
                warning,
            )
        )
