"""Running one experiment, as ``train`` does: a sweep of one trial that nobody judges."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from segan_ray.config import Experiment, flatten
from segan_ray.errors import SweepError
from segan_ray.filesystem.atomic_files import write_text
from segan_ray.filesystem.locations import absolute
from segan_ray.home import Home, resume_command
from segan_ray.orchestration.cluster.doctor import refuse_if_unfit
from segan_ray.orchestration.cluster.engine_storage import forget_engine
from segan_ray.orchestration.cluster.session import ray_session
from segan_ray.orchestration.cluster.shared_folder import make_shared
from segan_ray.orchestration.train.epoch_result import OnEvent
from segan_ray.orchestration.tune.concurrency_limit import check_one_fits
from segan_ray.orchestration.tune.run_file import read_run, recorded_experiment, run_file
from segan_ray.orchestration.tune.run_trials import Tasks, run_tasks
from segan_ray.orchestration.tune.sweep import check_nothing_there, make_task, suspended_if_cut_off
from segan_ray.orchestration.tune.sweep_lock import held, interruptible
from segan_ray.orchestration.tune.trial_lifecycle import NobodyJudges, TrialLifecycle
from segan_ray.search.results.ranking import SweepStatus
from segan_ray.search.space.search_space import Objective
from segan_ray.search.storage.recorded_locations import check_records, check_storage
from segan_ray.search.study.sweep_study import Outcome
from segan_ray.tracking.client.connection import connect
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.reading.sweeps import name_is_taken
from segan_ray.tracking.recording.recorder import Recorder
from segan_ray.training.checkpoints.trial_folder import epoch_name
from segan_ray.training.validation_scores import SCORE

SINGLE: Final = "000"


@dataclass(frozen=True)
class Run:
    """What a single run is to do."""

    name: str
    experiment: Experiment
    store: str | Path
    card: StoreCard
    home: Home
    resume: bool = False

    @property
    def folder(self) -> Path:
        """Where its checkpoints and journal are."""
        return self.home.sweeps / self.name


@dataclass(frozen=True)
class RunResult:
    """What a single run came to; ``checkpoint`` is its best epoch's."""

    run: str
    epochs: int
    best_epoch: int
    best_scores: Mapping[str, float]
    checkpoint: str


def run_single(run: Run, on_event: OnEvent) -> RunResult:
    """Train one experiment and record it as a run of its own.

    Raises:
        SweepError: if the name is taken, the run is another's, the cluster cannot hold it, or it
            failed.
        TrackingError: if it cannot be recorded.
        Interrupted: if a signal asked for its end; nothing is left running.
    """
    if not run.home.tracks_itself:
        connect(run.home)  # to say at once that nobody answers: Ray takes long to start
    command = resume_command(run.home, "train", str(run.store), "--name", run.name)
    with (
        interruptible(run.name, command),
        held(run.folder, run.name),
        ray_session(),
        # Once more, for Ray has taken SIGTERM for itself.
        interruptible(run.name, command) as asked,
    ):
        refuse_if_unfit(run.home, absolute(run.store))
        check_one_fits(run.experiment.resources)
        _settle(run)
        with asked.later():
            recorder = Recorder.for_run(
                run.home, run.name, run.card, SCORE, "max", run.folder, resume=run.resume
            )
        objective = Objective(metric=SCORE, mode="max")
        lifecycle = TrialLifecycle(
            NobodyJudges(), recorder, [objective], run.home.checkpoints(run.name), on_event
        )
        with suspended_if_cut_off(run.name, command, lifecycle, asked):
            make_shared(run.home.checkpoints(run.name))
            run_tasks(run.folder, run.home.storage_of(run.name), _tasks(run), lifecycle)
            lifecycle.stop_open()
            ended = lifecycle.ended[SINGLE]
            recorder.close(_closed(ended.status))
            mlflow_run = recorder.run_id(SINGLE)
    forget_engine(run.home.storage_of(run.name))
    if ended.status == "failed" or ended.best_epoch is None:
        raise SweepError(f"The run '{run.name}' failed. {ended.reason}")
    checkpoint = f"{run.home.checkpoints(run.name)}/{SINGLE}/{epoch_name(ended.best_epoch)}"
    return RunResult(
        mlflow_run or run.name, ended.epoch, ended.best_epoch, ended.best_metrics, checkpoint
    )


def _closed(status: Outcome | None) -> SweepStatus:
    return "finished" if status == "completed" else status or "failed"


def _settle(run: Run) -> None:
    """Write down what the run is, or make sure that it is the one written down."""
    file = run_file(run.home, run.name)
    known = recorded_experiment(run.home, run.name)
    if known is None:
        if name_is_taken(run.home, run.name):
            raise SweepError(_taken(run.name))
        check_nothing_there(run.home, run.name)
        content = {
            "storage": run.home.storage_setting,
            "records": run.home.records,
            "experiment": run.experiment.model_dump(mode="json"),
            "store": run.card.fingerprint,
        }
        write_text(file, json.dumps(content, indent=1))
        return
    if not run.resume:
        raise SweepError(_taken(run.name))
    before, now = flatten(known), flatten(run.experiment)
    changed = [
        f"{path} was {before[path]!r}, is {now[path]!r}"
        for path in before
        if before[path] != now[path]
    ]
    if changed:
        raise SweepError(
            f"'{run.name}' began with other settings: {'; '.join(changed)}. Resume it without "
            "settings, or begin another run."
        )
    begun = read_run(file)
    check_storage(run.name, begun.get("storage"), run.home.storage_setting)
    recorded_here = partial(name_is_taken, run.home, run.name)
    check_records(run.name, begun.get("records"), run.home, recorded_here)
    store = begun["store"]
    if store != run.card.fingerprint:
        raise SweepError(
            f"'{run.name}' began on the store with fingerprint {store}, this one has "
            f"{run.card.fingerprint}."
        )


def _taken(name: str) -> str:
    return f"A sweep or run named '{name}' exists already. Choose another --name, or --resume it."


def _tasks(run: Run) -> Tasks:
    task = make_task(
        SINGLE,
        run.experiment,
        run.store,
        run.home.checkpoints(run.name),
        params={},
        repeat_of=None,
        metric=SCORE,
        mode="max",
    )

    def order(_trial: str, _epoch: int, _taken: Any) -> dict[str, Any]:
        raise AssertionError("nobody judges a single run")

    return Tasks(1, lambda _: 1, run.experiment.resources.retries, lambda: task, order)
