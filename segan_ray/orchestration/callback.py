"""From Ray Tune's events to records: the one place where a trial's fate is read off them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from segan_ray.config import build
from segan_ray.orchestration.progress import OnEvent, TrialEvent
from segan_ray.search.ranking import Mode
from segan_ray.search.space import METRICS
from segan_ray.search.study import Outcome
from segan_ray.tracking.recorder import Recorder


@dataclass
class Followed:
    """How far a trial has come."""

    trial: str
    run: str
    epochs: int
    epoch: int = 0
    score: float | None = None
    best_epoch: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    best_checkpoint: Path | None = None
    failure: str | None = None


class TrackTrials(Callback):
    """Hands each trial's start, epochs and end to the recorder and to whoever watches."""

    def __init__(self, recorder: Recorder, metric: str, mode: Mode, on_event: OnEvent) -> None:
        self._recorder = recorder
        self._metric = metric
        self._sign = 1 if mode == "max" else -1
        self._on_event = on_event
        self._open: dict[str, Followed] = {}
        self.ended: dict[str, Followed] = {}
        self.failed: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle as nothing: Tune saves its callbacks, but records belong to this process."""
        return {}

    @property
    def all_failed(self) -> bool:
        """Whether no trial came to an end worth keeping."""
        return len(self.failed) == len(self.ended)

    @property
    def first_reason(self) -> str:
        """Why the first failed trial did."""
        return next(iter(self.failed.values()), "No trial was started.")

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Open the trial's run."""
        config = trial.config
        experiment = build(config["experiment"], config["trial"])
        run = self._recorder.start_trial(config["trial"], experiment, config["params"])
        followed = Followed(config["trial"], run, experiment.training.epochs)
        self._open[trial.trial_id] = followed
        self._tell(followed)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Record an epoch, once."""
        followed = self._open.get(trial.trial_id)
        if followed is None or result.get("epoch", 0) <= followed.epoch:
            return
        followed.epoch = result["epoch"]
        followed.failure = result["failure"]
        metrics = {name: result[name] for name in METRICS if name in result}
        self._recorder.log_epoch(followed.trial, followed.epoch, metrics)
        score = metrics[self._metric]
        # Of equal epochs the later: Ray Train deletes the earlier one's checkpoint.
        if followed.score is None or (score - followed.score) * self._sign >= 0:
            followed.score = score
            followed.best_epoch = followed.epoch
            followed.best_metrics = dict(metrics)
            followed.best_checkpoint = Path(result["checkpoint_path"])
        self._tell(followed)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Close the run of a trial that ended or was stopped."""
        self._end(trial, ended_as(trial.last_result, False))

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        """Close the run of a trial that crashed, with its cause."""
        self._end(trial, "failed", _cause(trial))

    def close(self) -> bool:
        """Close the runs of trials that were cut off, if any; return whether there were."""
        cut_off = bool(self._open)
        for trial_id in list(self._open):
            self._close(
                self._open.pop(trial_id), "failed", "The sweep ended before this trial did."
            )
        return cut_off

    def _end(self, trial: Trial, outcome: Outcome, cause: str | None = None) -> None:
        followed = self._open.pop(trial.trial_id, None)
        if followed is not None:
            self._close(followed, outcome, cause)

    def _close(self, followed: Followed, outcome: Outcome, cause: str | None) -> None:
        reason = cause or followed.failure
        self.ended[followed.trial] = followed
        if outcome == "failed":
            self.failed[followed.trial] = reason or "It ended without a single epoch."
        self._recorder.end_trial(followed.trial, outcome, reason, followed.best_checkpoint)
        self._tell(followed, outcome, reason)

    def _tell(
        self, followed: Followed, status: Outcome | None = None, reason: str | None = None
    ) -> None:
        self._on_event(
            TrialEvent(
                followed.trial,
                status or "running",
                followed.epoch,
                followed.epochs,
                followed.score,
                reason,
            )
        )


def ended_as(result: dict[str, Any] | None, crashed: bool) -> Outcome:
    """Tell how a trial ended from its last result: short of its last epoch means stopped."""
    if crashed or not result or "epoch" not in result or result.get("failure"):
        return "failed"
    return "completed" if result["epoch"] >= result["epochs"] else "stopped"


def told_as(result: dict[str, Any] | None, crashed: bool) -> Outcome:
    """Tell what Optuna should learn of a trial's end.

    A trial that diverged or collapsed counts as stopped at the worst value, so that the sampler
    keeps away from its settings; those of a crash say nothing.
    """
    if not crashed and result and result.get("failure"):
        return "stopped"
    return ended_as(result, crashed)


def _cause(trial: Trial) -> str:
    """Return the last line of the innermost error: what went wrong, not where Ray saw it."""
    try:
        text = Path(trial.error_file).read_text(encoding="utf-8")
    except OSError:
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "The trial's process died."
    return lines[-1].removeprefix("segan_ray.errors.")
