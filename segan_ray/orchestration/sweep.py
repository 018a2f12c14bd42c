"""Running trials on Ray: a whole sweep, or a single run.

Both go through ``_run``: Ray Tune starts one driver a trial, each driver one Ray Train worker
group, and a callback in this process hands every result to the tracker.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from segan_ray.config import Experiment
from segan_ray.data.places import absolute
from segan_ray.errors import SweepError
from segan_ray.home import Home
from segan_ray.orchestration.progress import OnEvent
from segan_ray.orchestration.session import ray_session
from segan_ray.search.space import AshaScheduler, SearchSpace
from segan_ray.search.study import SweepStudy
from segan_ray.training.scores import SCORE

# The session's settings must be in the environment before Ray is imported.
import ray  # isort: skip
from ray import tune  # isort: skip
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler  # isort: skip

from segan_ray.orchestration.callback import TrackTrials, told_as
from segan_ray.orchestration.searcher import StudySearcher
from segan_ray.orchestration.trial import run_trial
from segan_ray.tracking.card import StoreCard
from segan_ray.tracking.recorder import Recorder
from segan_ray.tracking.sweeps import name_is_taken

SINGLE: Final = "000"
DRIVER_BYTES: Final = 300 * 2**20


@dataclass(frozen=True)
class RunResult:
    """What a single run came to; ``checkpoint`` is its best epoch's."""

    run: str
    epochs: int
    best_epoch: int
    best_scores: dict[str, float]
    checkpoint: Path


def run_sweep(
    space: SearchSpace,
    space_text: str,
    name: str,
    store: str | Path,
    card: StoreCard,
    home: Home,
    *,
    trials: int,
    on_event: OnEvent,
) -> None:
    """Search ``space`` with ``trials`` trials and record them under ``name``.

    Raises:
        SweepError: if the name is taken, the cluster cannot hold one trial, or all failed.
    """
    _refuse_taken_name(home, name)
    objective = space.objective
    with ray_session():
        concurrent = concurrency(space.base_experiment())
        if space.budget.max_concurrent != "auto":
            concurrent = min(concurrent, space.budget.max_concurrent)
        home.folder.mkdir(parents=True, exist_ok=True)
        study = SweepStudy.create(name, space, home.optuna_storage)
        recorder = Recorder.for_sweep(
            home, name, card, objective.metric, objective.mode, space_text
        )
        track = TrackTrials(recorder, objective.metric, objective.mode, on_event)

        def configure(number: int, params: dict[str, Any]) -> dict[str, Any]:
            return trial_config(
                f"{number:03d}", space.experiment(params), params, store, home, name, space
            )

        try:
            _run(
                name,
                home,
                trials=trials,
                concurrent=min(concurrent, trials),
                searcher=StudySearcher(study, configure, told_as),
                scheduler=_scheduler(space),
                track=track,
            )
        finally:
            interrupted = track.close()
            study.close()
            cut_off = interrupted or len(track.ended) < trials
            recorder.close(failed=track.all_failed or cut_off)
    if cut_off:
        raise SweepError(
            f"'{name}' was interrupted before its {trials} trials had ended. What they recorded "
            f"is kept: segan-ray trials {name}"
        )
    if track.all_failed:
        raise SweepError(
            f"All {len(track.ended)} trials of '{name}' failed. The first: {track.first_reason}"
        )


def run_single(
    experiment: Experiment,
    name: str,
    store: str | Path,
    card: StoreCard,
    home: Home,
    *,
    on_event: OnEvent,
) -> RunResult:
    """Train one experiment and record it as a run of its own.

    Raises:
        SweepError: if the name is taken, the cluster cannot hold it, or it failed.
    """
    _refuse_taken_name(home, name)
    with ray_session():
        concurrency(experiment)
        recorder = Recorder.for_run(home, name, card, SCORE, "max")
        track = TrackTrials(recorder, SCORE, "max", on_event)
        config = trial_config(SINGLE, experiment, {}, store, home, name, None)
        try:
            _run(
                name,
                home,
                trials=1,
                concurrent=1,
                searcher=None,
                scheduler=FIFOScheduler(),
                track=track,
                config=config,
            )
        finally:
            track.close()
            recorder.close(failed=track.all_failed)
    trial = track.ended.get(SINGLE)
    if trial is None or trial.best_checkpoint is None or track.all_failed:
        raise SweepError(f"The run '{name}' failed. {track.first_reason}")
    return RunResult(
        trial.run, trial.epoch, trial.best_epoch, trial.best_metrics, trial.best_checkpoint
    )


def trial_config(
    trial: str,
    experiment: Experiment,
    params: dict[str, Any],
    store: str | Path,
    home: Home,
    name: str,
    space: SearchSpace | None,
) -> dict[str, Any]:
    """Return what the driver of one trial is told, all of it plain values."""
    return {
        "trial": trial,
        "experiment": experiment.model_dump(mode="json"),
        "params": params,
        "store": absolute(store),
        "checkpoints": str(home.sweeps / name / "checkpoints"),
        "metric": space.objective.metric if space else SCORE,
        "mode": space.objective.mode if space else "max",
        "max_failures": 0,
    }


def concurrency(experiment: Experiment) -> int:
    """Return how many trials the cluster holds at once.

    Raises:
        SweepError: if it cannot hold one, with the numbers.
    """
    resources = experiment.resources
    have: dict[str, float] = ray.cluster_resources()
    needs = {
        "CPU": resources.workers * resources.cpus_per_worker,
        "GPU": resources.workers * resources.gpus_per_worker,
    }
    for kind, need in needs.items():
        if need > have.get(kind, 0):
            raise SweepError(
                f"One trial asks for {need:g} {kind} ({resources.workers} workers), the cluster "
                f"has {have.get(kind, 0):g}. Lower resources.workers or "
                f"resources.{kind.lower()}s_per_worker."
            )
    fits = min(have[kind] / need for kind, need in needs.items() if need)
    return max(1, math.floor(fits))


def _run(
    name: str,
    home: Home,
    *,
    trials: int,
    concurrent: int,
    searcher: StudySearcher | None,
    scheduler: TrialScheduler,
    track: TrackTrials,
    config: dict[str, Any] | None = None,
) -> None:
    # Tune repeats each failed trial's traceback and warns about what we do on purpose; the
    # leaderboard and the run have the reason.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    # The driver only waits for its workers, and they are what takes cores; but Tune wants
    # every trial to ask for something.
    driver = tune.with_resources(run_trial, {"memory": DRIVER_BYTES})
    tuner = tune.Tuner(
        driver,
        param_space=config or {},
        tune_config=tune.TuneConfig(
            num_samples=trials,
            search_alg=searcher,
            scheduler=scheduler,
            max_concurrent_trials=concurrent,
            trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(home.sweeps),
            callbacks=[track],
            verbose=0,
        ),
    )
    tuner.fit()


def _refuse_taken_name(home: Home, name: str) -> None:
    if (home.sweeps / name).exists() or name_is_taken(home, name):
        raise SweepError(f"A sweep or run named '{name}' exists already. Choose another --name.")


def _scheduler(space: SearchSpace) -> TrialScheduler:
    settings = space.scheduler
    if not isinstance(settings, AshaScheduler):
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="epoch",
        metric=space.objective.metric,
        mode=space.objective.mode,
        max_t=space.most_epochs(),
        grace_period=settings.grace_period,
        reduction_factor=settings.reduction_factor,
    )
