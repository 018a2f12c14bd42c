"""The events of a sweep's trials, recorded by the driver in one order.

The study comes first, since it holds the truth; then the recorder, for MLflow; then the terminal.
The process may be killed between any two of them, so each event may come twice: an event that is
recorded is not recorded again, and ``reconcile`` records the ends that only the study knows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from segan_ray.config import Experiment
from segan_ray.orchestration.train.folds import Folds
from segan_ray.orchestration.train.messages import Decision, EpochResult
from segan_ray.search.results.trial_state import MoreTrials, OnState, TrialState
from segan_ray.search.study.sweep_study import Ended, Exploit, Outcome, SweepStudy
from segan_ray.tracking.recording.recorder import Recorder
from segan_ray.training.checkpoints.remote_folder import (
    TrialCheckpoints,
    best_kept,
    trial_checkpoints,
)

SUSPEND_S: Final = 5.0
"""How long an interrupted sweep waits for MLflow; what MLflow does not take stays on disk."""
STOPPED: Final = "Stopped by segan-ray stop."
TRIAL_STOPPED: Final = "Stopped by segan-ray stop --trial."
NO_EPOCH: Final = "It ended without a single epoch."


class TrialLifecycle:
    """Records trials as they begin, finish epochs, and end, and decides what they do next."""

    def __init__(
        self,
        study: SweepStudy,
        recorder: Recorder,
        checkpoints: str,
        on_state: OnState,
        *,
        gpus: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Follow the trials of this process; ``check`` raises if the sweep is another's by now.

        ``checkpoints`` is the folder or URL with a folder a trial, ``gpus`` how many GPUs a trial
        holds while it trains. The hours by ``clock`` count from now on.
        """
        self._study = study
        self._recorder = recorder
        self._checkpoints = checkpoints
        self._on_state = on_state
        self._gpus = gpus
        self._clock = clock
        self._counted_s = clock()
        self.check = check
        self._open: dict[str, TrialState] = {}
        self._paused: dict[str, TrialState] = {}
        self._said: set[tuple[str, str]] = set()
        self.ended: dict[str, TrialState] = {}

    def begin(
        self,
        trial: str,
        experiment: Experiment,
        params: Mapping[str, Any],
        repeat_of: str | None = None,
    ) -> None:
        """Record that a trial trains, for the first time or again."""
        self._count_hours()
        epochs = experiment.training.epochs * self._study.space.runs
        new = TrialState(trial, "running", epochs=epochs, repeat_of=repeat_of, gpus=self._gpus)
        if trial in self._paused:
            new = replace(self._paused.pop(trial), status="running")
        self._recorder.start_trial(trial, experiment, params, repeat_of)
        self._on_state(self._open.setdefault(trial, new))

    def knows(self, trial: str) -> bool:
        """Tell whether a trial has begun, paused or ended in this process."""
        return trial in self._open or trial in self._paused or trial in self.ended

    def epoch(self, trial: str, result: EpochResult) -> Decision:
        """Record a finished epoch, once, and return what the trial does next."""
        state = self._open.get(trial)
        if state is None:
            return Decision(stop=True)
        self._count_hours()
        number, epoch = int(trial), result.epoch
        # An epoch that came to nothing has only the first objective.
        objectives = self._study.space.objectives
        values = [result.metrics.get(each.metric, math.nan) for each in objectives]
        measured = {} if result.failure else result.metrics
        verdict = self._study.report(number, epoch, *values, metrics=measured)
        # Tune passes the epoch that it stops a trial with twice.
        if result.warning and (trial, result.warning) not in self._said:
            self._said.add((trial, result.warning))
            self._on_state(replace(state, warning=result.warning))
        if epoch > state.epoch:
            state = self._open[trial] = self._after(state, result)
            # MLflow's parameters cannot change. Settings that do are recorded as metrics.
            settings = {
                f"param/{path}": value for path, value in self._study.changing(number).items()
            }
            failed = result.failure is not None
            self._recorder.log_epoch(
                trial,
                epoch,
                {**result.metrics, **settings},
                failed=failed,
                fold=self._fold(epoch, result.epochs),
                picture=result.picture,
            )
            self._on_state(state)
        if verdict == "continue" and not result.last and not self._has_room:
            self._study.hold(number)
            verdict = "pause"
        if verdict == "pause":
            self._pause(state)
        if verdict != "continue" or result.last:
            return Decision(stop=verdict != "continue")
        exploit = self._study.exploit(number, epoch)
        return Decision() if exploit is None else self._exploiting(trial, epoch, exploit)

    def retry(self, trial: str) -> None:
        """Record that a trial was lost and begins again at its last checkpoint."""
        state = self._open.get(trial)
        # Its trainable may have been lost before the trial began.
        if state is not None:
            self._open[trial] = replace(state, retries=state.retries + 1)
            self._on_state(self._open[trial])

    def end(self, trial: str, crash: str | None = None) -> None:
        """Record that a trial ended: after its last epoch, stopped before it, or crashed."""
        self._count_hours()
        state = self._open.pop(trial, None)
        if state is None:
            return
        if crash is not None or state.failure is not None or not state.epoch:
            outcome: Outcome = "failed"
        else:
            outcome = "completed" if state.epoch >= state.epochs else "stopped"
        reason = crash or state.failure or (None if state.epoch else NO_EPOCH)
        if reason is None and outcome == "stopped" and self._study.is_to_stop(int(trial)):
            reason = TRIAL_STOPPED
        self._close(state, outcome, reason)

    def take_requests(self) -> None:
        """Take in what was asked of the sweep: its limits, trials to end, points to try.

        A trial that trains ends with its epoch, one that waits at once.
        """
        before = self._study.budget.trials
        self._study.take_requests()
        if self._study.budget.trials != before:
            self._on_state(MoreTrials(self._study.budget.trials - before))
        waiting = [number for number in self._study.waiting if self._study.is_to_stop(number)]
        self._stop_waiting(waiting, TRIAL_STOPPED)

    def stop_open(self) -> None:
        """End the open trials and those that wait, since the sweep was asked to stop.

        Trials that were drawn and never began wait on, in case the sweep is resumed.
        """
        for trial in sorted(self._open):
            self._close(self._open.pop(trial), "stopped", STOPPED)
        begun = self._recorder.unfinished
        self._stop_waiting([n for n in self._study.unfinished if f"{n:03d}" in begun], STOPPED)
        self._study.suspend()

    def stop_paused(self) -> None:
        """End the paused trials: no more are drawn, and none of them may go on."""
        self._stop_waiting(list(self._study.trials.paused()), None)

    def pause_open(self) -> None:
        """Let every trial that has not ended wait: the sweep has used up its hours.

        Their best checkpoints are recorded, so that the sweep's best can be promoted.
        """
        self._count_hours()
        for trial in sorted(self._open):
            self._on_state(replace(self._open.pop(trial), status="paused"))
        self._study.suspend()
        waiting = self._recorder.unfinished
        infeasible = [each for each in waiting if self._study.broken(int(each)) is not None]
        self._recorder.hold({each: best_kept(self._of(each)) for each in waiting}, infeasible)

    def suspend(self) -> None:
        """Leave no trial running in the records: they wait for the sweep to be resumed."""
        self._count_hours()
        self._study.suspend()
        self._recorder.suspend(patience_s=SUSPEND_S)
        for state in self._open.values():
            self._on_state(replace(state, status="pending"))
        self._open.clear()

    def abandon(self) -> None:
        """Record nothing more, since another process runs the sweep."""
        self._recorder.abandon()
        self._open.clear()

    def reconcile(self) -> None:
        """Record the pauses and ends that only the study knows of."""
        for number in self._study.trials.paused():
            self._recorder.pause_trial(f"{number:03d}")
        ended = self._study.trials.ended()
        for trial in self._recorder.unfinished:
            known = ended.get(int(trial))
            if known is not None:
                self._record_end(trial, known)

    def _fold(self, epoch: int, epochs: int) -> tuple[int, int] | None:
        """Return the fold of an epoch and which of its epochs it is, where trials have folds."""
        runs = self._study.space.runs
        if runs == 1:
            return None
        folds = Folds(runs, epochs // runs)
        return folds.of(epoch), folds.epoch_of(epoch)

    def _count_hours(self) -> None:
        """Count the hours since the last event, at which as many trials trained as do until now."""
        now = self._clock()
        hours, self._counted_s = (now - self._counted_s) / 3600, now
        self._study.budget.spend(hours, hours * len(self._open) * self._gpus)

    @property
    def _has_room(self) -> bool:
        """Whether no more trials train than may at once."""
        most = self._study.budget.at_once
        return most is None or len(self._open) <= most

    def _after(self, state: TrialState, result: EpochResult) -> TrialState:
        failure, memory = result.failure, result.out_of_memory
        state = replace(state, epoch=result.epoch, failure=failure, infeasible=memory)
        if result.best is None:
            return state
        best, objective = result.best, self._study.space.objective
        score = best.metrics.get(objective.metric)
        return replace(state, score=score, best_epoch=best.epoch, best_metrics=best.metrics)

    def _pause(self, state: TrialState) -> None:
        """Record that a trial waits, and end those waiting at a rung that cannot go on."""
        paused = self._paused[state.trial] = replace(self._open.pop(state.trial), status="paused")
        self._recorder.pause_trial(state.trial)
        self._on_state(paused)
        self._stop_waiting(self._study.out_of_reach(), None)

    def _stop_waiting(self, numbers: Sequence[int], reason: str | None) -> None:
        for number in numbers:
            ended = self._study.stop_waiting(number, reason)
            trial = f"{number:03d}"
            if trial in self._recorder.unfinished:
                self._record_end(trial, ended)
            state = self._paused.pop(trial, None)
            if state is not None:
                self._show_end(state, ended)

    def _exploiting(self, trial: str, epoch: int, exploit: Exploit) -> Decision:
        """Keep the source trial's checkpoint for this trial, and have it go on from there."""
        source = self._of(f"{exploit.source:03d}")
        return Decision(
            experiment=self._study.space.experiment(exploit.params),
            checkpoint=self._of(trial).take(source, epoch),
        )

    def _close(self, state: TrialState, outcome: Outcome, reason: str | None) -> None:
        # The sampler learns from settings that diverge or collapse, not from a crash.
        learn = state.failure is not None and reason == state.failure
        memory = learn and state.infeasible
        number = int(state.trial)
        ended = self._study.tell(number, outcome, reason, learn=learn, out_of_memory=memory)
        self._record_end(state.trial, ended)
        self._show_end(state, ended)

    def _record_end(self, trial: str, ended: Ended) -> None:
        best, infeasible = best_kept(self._of(trial)), ended.infeasible
        self._recorder.end_trial(trial, ended.outcome, ended.reason, best, infeasible=infeasible)

    def _show_end(self, state: TrialState, ended: Ended) -> None:
        known = replace(state, status=ended.outcome, reason=ended.reason)
        self.ended[state.trial] = replace(known, infeasible=ended.infeasible)
        self._on_state(self.ended[state.trial])

    def _of(self, trial: str) -> TrialCheckpoints:
        """Return the checkpoints of a trial, without a folder for copies of far ones."""
        return trial_checkpoints(f"{self._checkpoints}/{trial}", Path())
