"""Running a whole sweep: open its records, search, repeat the best, close.

A sweep goes on from its study and its outbox, so beginning and resuming differ only in whether
these are there. However the process ends, the next one can resume the sweep.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from typing import Any

from segan_ray.errors import SweepError, many
from segan_ray.filesystem.locations import absolute
from segan_ray.home import OPTUNA_STORAGE, Home
from segan_ray.orchestration.cluster.doctor import refuse_if_unfit
from segan_ray.orchestration.cluster.engine_storage import forget_engine
from segan_ray.orchestration.cluster.session import ray_session
from segan_ray.orchestration.cluster.shared_folder import make_shared
from segan_ray.orchestration.train.worker_group_spec import WorkerGroupSpec
from segan_ray.orchestration.tune.concurrency_limit import ConcurrencyLimit, concurrency_limit
from segan_ray.orchestration.tune.open_study import open_study
from segan_ray.orchestration.tune.run_trials import Tasks, run_tasks
from segan_ray.orchestration.tune.suspension import suspended_if_cut_off
from segan_ray.orchestration.tune.sweep_lock import (
    held,
    interruptible,
    stop_requested,
)
from segan_ray.orchestration.tune.sweep_plan import Sweep
from segan_ray.orchestration.tune.trial_lifecycle import TrialLifecycle
from segan_ray.search.points.same_points import count_points
from segan_ray.search.results.needs import Needs
from segan_ray.search.results.ranking import SweepStatus
from segan_ray.search.results.trial_state import EndedBefore, MoreTrials, OnState
from segan_ray.search.space import estimate
from segan_ray.search.storage.lease import HeldLease
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.search.study.sweep_study import Point, SweepStudy
from segan_ray.tracking.client.connection import connect
from segan_ray.tracking.reading.sweeps import epoch_seconds
from segan_ray.tracking.recording.recorder import Recorder

log = logging.getLogger(__name__)


def run_sweep(sweep: Sweep, on_state: OnState, say: Any = print) -> SweepStatus:
    """Search until every trial has ended, and record it; return how the sweep ended.

    Raises:
        SweepError: as ``search``, or if all trials failed.
        TrackingError, Interrupted, TakenOver: as ``search``.
    """
    status, study = search(sweep, on_state, say)
    if status == "failed":
        raise SweepError(
            f"{'All ' * (study.asked > 1)}{many(study.asked, 'trial')} of '{sweep.name}' failed. "
            f"The first: {study.trials.first_reason}"
        )
    return status


def search(sweep: Sweep, on_state: OnState, say: Any) -> tuple[SweepStatus, SweepStudy]:
    """Search until every trial has ended, and record it; return how, and the study.

    Raises:
        SweepError: if the name is taken, another process runs the sweep, or no trial fits into
            the cluster.
        TrackingError: if its runs cannot be recorded.
        Interrupted: if a signal asked for its end; nothing is left running.
        TakenOver: if another process has taken the sweep over.
    """
    check_servers(sweep.home)
    with (
        interruptible(sweep.name, sweep.resume_with),
        held(sweep.folder, sweep.name),
        ray_session(),
        # Once more, since Ray has replaced the handler of SIGTERM.
        interruptible(sweep.name, sweep.resume_with) as request,
        contextlib.ExitStack() as until_the_end,
    ):
        refuse_if_unfit(sweep.home, absolute(sweep.store))
        limit = concurrency_limit(sweep.space, say)
        _check_gpu_hours(sweep, limit)
        study, holding = open_study(sweep, until_the_end, say)
        limit.most = study.budget.at_once
        more = study.budget.trials - (sweep.given.trials or sweep.space.budget.trials)
        if more:
            # An earlier process was given them.
            on_state(MoreTrials(more))
        if ended := study.trials.ended():
            on_state(EndedBefore(len(ended)))
        _say_estimate(sweep, study, limit, say)
        with request.later():
            recorder = _recorder(sweep, holding)
        lifecycle = TrialLifecycle(
            study,
            recorder,
            sweep.home.checkpoints(sweep.name),
            on_state,
            gpus=limit.spec.gpus,
            check=holding.check,
        )
        with suspended_if_cut_off(sweep.name, sweep.resume_with, lifecycle, request):
            make_shared(sweep.home.checkpoints(sweep.name))
            lifecycle.reconcile()
            lifecycle.take_requests()
            _draw_new(sweep, study, lifecycle, limit)
            _say_reused(study, say)
            _repeat(sweep, study, lifecycle, limit)
            if study.is_cut_short and not stop_requested(sweep.folder):
                lifecycle.pause_open()
            else:
                lifecycle.stop_open()
            status = _status(sweep, study)
            recorder.close(status, ended_by=study.ended_by if status == "finished" else None)
    forget_engine(sweep.home.storage_of(sweep.name))
    if status == "finished":
        _say_early_end(sweep, study, say)
    return status, study


def check_servers(home: Home) -> None:
    """Make sure that servers of records and studies answer, since Ray takes long to start.

    Nothing is made in the home yet: the cluster may turn out unfit.

    Raises:
        TrackingError: if runs cannot be recorded.
        SweepError: if studies cannot be read.
    """
    if not home.tracks_itself:
        connect(home)
    if os.environ.get(OPTUNA_STORAGE):
        open_storage(home)


def _check_gpu_hours(sweep: Sweep, limit: ConcurrencyLimit) -> None:
    hours = sweep.given.gpu_hours or sweep.space.budget.gpu_hours
    if hours is not None and not limit.spec.gpus:
        raise SweepError(
            f"The trials hold no GPU (resources.gpus_per_worker), so {hours:g} GPU hours would "
            "never be used up. Give them GPUs, or a budget of hours."
        )


def _say_estimate(sweep: Sweep, study: SweepStudy, limit: ConcurrencyLimit, say: Any) -> None:
    left = study.left(sweep.repeat_top * sweep.seeds)
    points = count_points(sweep.space)
    wanted = study.budget.trials
    if left and points is not None and points < min(wanted, study.most_trials):
        say(
            f"The space has {points} different points, fewer than {wanted} trials: what remains "
            "trains points again, with fresh seeds."
        )
    if left:
        kept = sweep.space.budget.keep_checkpoints
        needs = estimate.estimate(sweep.space, left, limit.now(left), kept)
        say(estimate.sentence(needs, shutil.disk_usage(sweep.home.folder).free))
    more = study.needs(left, sweep.price)
    if left and more is None:
        _say_pace_of_another(sweep, needs, limit, say)
    if left and more is not None:
        say(f"At the pace of '{sweep.name}' so far that takes about {more.said()}.")
    if left and limit.spec.gpus_per_worker:
        say(estimate.memory_sentence(estimate.memory_bytes(sweep.space)))


def _say_pace_of_another(
    sweep: Sweep, plan: estimate.Estimate, limit: ConcurrencyLimit, say: Any
) -> None:
    """Say what a sweep without epochs would take at the pace of the last one on its store."""
    known = epoch_seconds(sweep.home, sweep.card.fingerprint)
    if known is None:
        return
    name, epoch_s = known
    trained_s = epoch_s * (plan.epochs_expected or plan.epochs_at_most)
    needs = Needs(trained_s / plan.concurrent, trained_s * limit.spec.gpus, sweep.price)
    say(
        f"If its epochs take as long as those of '{name}' on this store ({epoch_s:.2g} s), that is "
        f"about {needs.said()}."
    )


def _say_early_end(sweep: Sweep, study: SweepStudy, say: Any) -> None:
    patience, ended_by, limits = sweep.space.budget.no_gain_for, study.ended_by, study.budget.limits
    if patience is not None and ended_by == "no_gain_for":
        why = f"The last {many(patience.trials, 'trial')} brought no gain"
        more = "a larger budget.no_gain_for"
    elif ended_by == "hours":
        why, more = f"The {limits.hours:g} hours are used up", "more --hours"
    elif ended_by == "gpu_hours":
        why, more = f"The {limits.gpu_hours:g} GPU hours are used up", "more --gpu-hours"
    else:
        return
    say(
        f"{why}, so '{sweep.name}' ended after {study.trials.searched} of {limits.trials} trials. "
        f"It goes on with {more}: {sweep.resume_with}"
    )


def _say_reused(study: SweepStudy, say: Any) -> None:
    reused = study.trials.reused
    if reused:
        say(
            f"{reused} draws came to points that had been tried. Their results were told to the "
            "sampler again, and others were drawn."
        )


def _recorder(sweep: Sweep, holding: HeldLease) -> Recorder:
    first, *_ = sweep.space.objectives
    return Recorder.for_sweep(
        sweep.home,
        sweep.name,
        sweep.card,
        first.metric,
        first.mode,
        sweep.space_text,
        sweep.folder,
        objectives=tuple((each.metric, each.mode) for each in sweep.space.objectives),
        keep_checkpoints=sweep.space.budget.keep_checkpoints,
        resume=sweep.resume,
        check=holding.check,
    )


def _draw_new(
    sweep: Sweep, study: SweepStudy, lifecycle: TrialLifecycle, limit: ConcurrencyLimit
) -> None:
    _train(sweep, study, lifecycle, limit)
    if not stop_requested(sweep.folder) and not study.is_cut_short:
        lifecycle.stop_paused()


def _repeat(
    sweep: Sweep, study: SweepStudy, lifecycle: TrialLifecycle, limit: ConcurrencyLimit
) -> None:
    """Train the best settings again with fresh seeds, so that a lucky trial does not win."""
    if stop_requested(sweep.folder) or not sweep.repeat_top:
        return
    study.enqueue_repeats(sweep.repeat_top, sweep.seeds)
    _train(sweep, study, lifecycle, limit)


def _train(
    sweep: Sweep, study: SweepStudy, lifecycle: TrialLifecycle, limit: ConcurrencyLimit
) -> None:
    cut_off: list[Point] = []

    def draw() -> dict[str, Any] | None:
        if study.budget.used_up:
            return None
        # Also those that had to make room meanwhile.
        cut_off.extend(study.reopen())
        point = cut_off.pop(0) if cut_off else study.promote()
        if point is None and study.more:
            point = study.ask()
        return None if point is None else task_of(sweep, point, limit.spec)

    def left() -> int:
        return 0 if study.budget.used_up else len(cut_off) + len(study.waiting) + study.more

    def at_once(wanted: int) -> int:
        limit.most = study.budget.at_once
        return limit.now(wanted)

    if left():
        retries = sweep.space.base_experiment().resources.retries
        storage = sweep.home.storage_of(sweep.name)
        run_tasks(sweep.folder, storage, Tasks(draw, left, at_once, retries), lifecycle)


def task_of(sweep: Sweep, point: Point, workers: WorkerGroupSpec) -> dict[str, Any]:
    """Return the task of one trial's workers: its experiment, and plain values."""
    experiment = sweep.space.experiment(point.params)
    if point.seed is not None:
        experiment = experiment.model_copy(update={"seed": point.seed})
    trial, objective = f"{point.number:03d}", sweep.space.objective
    return {
        "trial": trial,
        "experiment": experiment,
        "workers": workers,
        "params": dict(point.params),
        "repeat_of": None if point.repeat_of is None else f"{point.repeat_of:03d}",
        "store": absolute(sweep.store),
        "checkpoints": f"{sweep.home.checkpoints(sweep.name)}/{trial}",
        "runs": sweep.space.runs,
        "metric": objective.metric,
        "mode": objective.mode,
    }


def _status(sweep: Sweep, study: SweepStudy) -> SweepStatus:
    if study.trials.all_failed and not study.is_cut_short:
        return "failed"
    return "stopped" if stop_requested(sweep.folder) else "finished"
