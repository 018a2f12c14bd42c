"""Running a whole sweep: open its records, search, repeat the best, close.

A sweep goes on from what its study and its journal hold, so beginning and resuming differ only
in whether these are there. Whatever ends the process, the next one can resume.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from segan_ray.config import Experiment
from segan_ray.errors import Interrupted, SeganRayError, SweepError, TakenOver, many, said
from segan_ray.filesystem.locations import absolute, is_url
from segan_ray.home import OPTUNA_STORAGE, Home
from segan_ray.orchestration.cluster.doctor import refuse_if_unfit
from segan_ray.orchestration.cluster.engine_storage import forget_engine
from segan_ray.orchestration.cluster.session import ray_session
from segan_ray.orchestration.cluster.shared_folder import make_shared
from segan_ray.orchestration.train.epoch_result import OnEvent
from segan_ray.orchestration.tune.concurrency_limit import ConcurrencyLimit, concurrency_limit
from segan_ray.orchestration.tune.run_trials import Tasks, run_tasks
from segan_ray.orchestration.tune.sweep_lock import (
    EndRequest,
    held,
    interruptible,
    request_stop,
    stop_requested,
)
from segan_ray.orchestration.tune.trial_lifecycle import TrialLifecycle
from segan_ray.search.results.ranking import SweepStatus
from segan_ray.search.space import estimate
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.storage.lease import Holding, forget_half_made, holder_of, leased
from segan_ray.search.storage.open_storage import Storage, open_storage, studies_location
from segan_ray.search.storage.owned_storage import OwnedStorage
from segan_ray.search.storage.recorded_locations import settle_records, settle_storage
from segan_ray.search.storage.study_record import empty_study, reserve_study
from segan_ray.search.study.same_points import count_points
from segan_ray.search.study.sweep_study import Exploit, Point, SweepStudy, study_exists
from segan_ray.search.study.warm_start import EarlierTrials, earlier_trials
from segan_ray.tracking.client.connection import connect
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.reading.sweeps import name_is_taken
from segan_ray.tracking.recording.recorder import Recorder
from segan_ray.training.checkpoints.remote_folder import anything_at

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sweep:
    """What a sweep is to do; ``trials`` None means what it had, or else its space's budget.

    The settings of the ``repeat_top`` best trials are trained again with ``seeds`` fresh seeds;
    ``resume_with`` is the command that goes on with it.
    """

    name: str
    space: SearchSpace
    space_text: str
    store: str | Path
    card: StoreCard
    home: Home
    resume_with: str
    trials: int | None = None
    resume: bool = False
    repeat_top: int = 0
    seeds: int = 3

    @property
    def folder(self) -> Path:
        """Where its checkpoints and journal are."""
        return self.home.sweeps / self.name


def run_sweep(sweep: Sweep, on_event: OnEvent, say: Any = print) -> SweepStatus:
    """Search until every trial has ended, and record it; return how the sweep ended.

    Raises:
        SweepError: if the name is taken, the sweep is another's, the cluster cannot hold one
            trial, or all failed.
        TrackingError: if its runs cannot be recorded.
        Interrupted: if a signal asked for its end; nothing is left running.
        TakenOver: if another process runs it by now.
    """
    check_servers(sweep.home)
    with (
        interruptible(sweep.name, sweep.resume_with),
        held(sweep.folder, sweep.name),
        ray_session(),
        # Once more, for Ray has taken SIGTERM for itself.
        interruptible(sweep.name, sweep.resume_with) as asked,
        contextlib.ExitStack() as until_the_end,
    ):
        refuse_if_unfit(sweep.home, absolute(sweep.store))
        room = concurrency_limit(sweep.space, say)
        study, holding = _study(sweep, until_the_end, say)
        _say_estimate(sweep, study, room, say)
        with asked.later():
            recorder = _recorder(sweep, holding)
        lifecycle = TrialLifecycle(
            study,
            recorder,
            sweep.space.objectives,
            sweep.home.checkpoints(sweep.name),
            on_event,
            holding.check,
        )
        with suspended_if_cut_off(sweep.name, sweep.resume_with, lifecycle, asked):
            make_shared(sweep.home.checkpoints(sweep.name))
            lifecycle.reconcile()
            _search(sweep, study, lifecycle, room)
            _say_reused(study, say)
            _repeat(sweep, study, lifecycle, room)
            lifecycle.stop_open()
            status = _status(sweep, study)
            recorder.close(status)
    forget_engine(sweep.home.storage_of(sweep.name))
    if status == "failed":
        raise SweepError(
            f"{'All ' * (study.asked > 1)}{many(study.asked, 'trial')} of '{sweep.name}' failed. "
            f"The first: {study.first_reason}"
        )
    return status


@contextlib.contextmanager
def suspended_if_cut_off(
    name: str, command: str, lifecycle: TrialLifecycle, asked: EndRequest
) -> Iterator[None]:
    """Leave nothing running in the records if the block does not come to its end.

    Raises:
        Interrupted: for a signal, saying how to go on.
        TakenOver: if the records are another process's by now; they are left as they are.
    """
    try:
        with _suspended(name, command, lifecycle, asked):
            yield
    except TakenOver:
        lifecycle.abandon()
        raise


@contextlib.contextmanager
def _suspended(
    name: str, command: str, lifecycle: TrialLifecycle, asked: EndRequest
) -> Iterator[None]:
    try:
        asked.now()
        yield
    except TakenOver:
        raise
    except KeyboardInterrupt:
        lifecycle.suspend()
        raise Interrupted(
            f"'{name}' was interrupted; nothing of it is lost. Go on: {command}",
            asked.signal or signal.SIGINT,
        ) from None
    except BaseException as error:
        try:
            lifecycle.suspend()
        except TakenOver:
            # What went wrong did so since the other process cut this one off.
            raise
        except Exception as second:  # what went wrong first is what counts
            log.debug("The sweep could not be parked: %s", said(second))
        if isinstance(error, SeganRayError):
            raise SweepError(f"{error} Then go on: {command}") from None
        raise


def check_servers(home: Home) -> None:
    """Make sure that records and studies answer where they are elsewhere: Ray takes long to start.

    Nothing is made in the home yet: the cluster may turn out unfit.

    Raises:
        TrackingError: if runs cannot be recorded.
        SweepError: if studies cannot be read.
    """
    if not home.tracks_itself:
        connect(home)
    if os.environ.get(OPTUNA_STORAGE):
        open_storage(home)


def _study(
    sweep: Sweep, until_the_end: contextlib.ExitStack, say: Any
) -> tuple[SweepStudy, Holding]:
    """Open or make the study, hold it, and see that checkpoints are where they were."""
    storage, by = open_storage(sweep.home), holder_of(sweep.home)
    ask = partial(request_stop, sweep.folder)
    mine = partial(leased, sweep.name, storage, by, say, on_stop=ask)
    forget_half_made(sweep.name, storage, by, say)
    if study_exists(sweep.name, storage):
        if not sweep.resume:
            raise SweepError(_taken(sweep.name))
        holding = until_the_end.enter_context(mine())
        study = _earlier_study(sweep, OwnedStorage(storage, holding.check), say)
    else:
        check_nothing_there(sweep.home, sweep.name)
        earlier = _earlier_trials(sweep, storage)
        # Held first, then filled: another process may look at it meanwhile.
        reserve_study(sweep.name, sweep.space, storage)
        holding = until_the_end.enter_context(mine(new=True))
        study = _new_study(sweep, OwnedStorage(storage, holding.check), earlier, say)
    settle_storage(study.study, sweep.home.storage_setting)
    settle_records(study.study, sweep.home, lambda: name_is_taken(sweep.home, sweep.name))
    return study, holding


def _earlier_study(sweep: Sweep, storage: Storage, say: Any) -> SweepStudy:
    study = SweepStudy.open(sweep.name, sweep.space, storage, store=sweep.card.fingerprint)
    before = study.budget
    study.take_budget(sweep.trials)
    if study.budget != before and sweep.trials is None:
        say(f"'{sweep.name}' is to have {study.budget} trials, as its space file says now.")
    return study


def _earlier_trials(sweep: Sweep, storage: Storage) -> EarlierTrials:
    """Return what a new sweep learns from first, if nothing of its name is recorded."""
    if name_is_taken(sweep.home, sweep.name):
        raise SweepError(_without_study(sweep) if sweep.resume else _taken(sweep.name))
    return earlier_trials(sweep.space, storage, sweep.card.fingerprint)


def _new_study(sweep: Sweep, storage: Storage, earlier: EarlierTrials, say: Any) -> SweepStudy:
    study = SweepStudy.begin(
        empty_study(sweep.name, sweep.space, storage),
        sweep.space,
        store=sweep.card.fingerprint,
        earlier=earlier.trials,
    )
    for sentence in (*earlier.said, *study.skipped):
        say(sentence)
    study.take_budget(sweep.trials)
    return study


def check_nothing_there(home: Home, name: str) -> None:
    """Make sure that a new sweep or run finds no checkpoints of another.

    Raises:
        SweepError: if something lies where its own would, at a URL or in a shared folder.
        CheckpointError: if that place cannot be read.
    """
    where, setting = home.storage_of(name), home.storage_setting
    if setting is None:
        return
    if anything_at(where) if is_url(where) else any(Path(where).glob("*")):
        raise SweepError(
            f"{where} holds files of an earlier '{name}' that this home's records do not know. "
            "Choose another --name, or remove them if nobody needs them."
        )


def _say_estimate(sweep: Sweep, study: SweepStudy, room: ConcurrencyLimit, say: Any) -> None:
    left = study.left(sweep.repeat_top * sweep.seeds)
    points = count_points(sweep.space)
    if left and points is not None and points < min(study.budget, study.most_trials):
        say(
            f"The space has {points} different points, fewer than {study.budget} trials: what "
            "remains trains points again, with fresh seeds."
        )
    if left:
        kept = sweep.space.budget.keep_checkpoints
        told = estimate.estimate(sweep.space, left, room.now(left), kept)
        say(estimate.sentence(told, shutil.disk_usage(sweep.home.folder).free))


def _say_reused(study: SweepStudy, say: Any) -> None:
    if study.reused:
        say(
            f"{study.reused} draws came to points that had been tried. Their results were told to "
            "the sampler again, and others were drawn."
        )


def _taken(name: str) -> str:
    return f"A sweep or run named '{name}' exists already. Choose another --name, or --resume it."


def _without_study(sweep: Sweep) -> str:
    return (
        f"'{sweep.name}' is recorded at {sweep.home.records}, but its study is not in "
        f"{studies_location(sweep.home)}. Set {OPTUNA_STORAGE} to the database that it began with, "
        "or choose another --name."
    )


def _recorder(sweep: Sweep, holding: Holding) -> Recorder:
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


def _search(
    sweep: Sweep, study: SweepStudy, lifecycle: TrialLifecycle, room: ConcurrencyLimit
) -> None:
    wanted = min(study.budget, study.most_trials)
    _train(sweep, study, lifecycle, room, new=max(0, wanted - study.searched))


def _repeat(
    sweep: Sweep, study: SweepStudy, lifecycle: TrialLifecycle, room: ConcurrencyLimit
) -> None:
    """Train the best settings again with fresh seeds, so that a lucky one does not win."""
    if stop_requested(sweep.folder) or not sweep.repeat_top:
        return
    new = study.enqueue_repeats(sweep.repeat_top, sweep.seeds)
    _train(sweep, study, lifecycle, room, new=new)


def _train(
    sweep: Sweep, study: SweepStudy, lifecycle: TrialLifecycle, room: ConcurrencyLimit, new: int
) -> None:
    cut_off = study.reopen()
    count = len(cut_off) + new
    if not count:
        return
    waiting = iter(cut_off)

    def draw() -> dict[str, Any]:
        return _task(sweep, next(waiting, None) or study.ask())

    def order(trial: str, epoch: int, taken: Exploit) -> dict[str, Any]:
        checkpoint = lifecycle.checkpoints(trial).take(
            lifecycle.checkpoints(f"{taken.source:03d}"), epoch
        )
        return {
            "experiment": sweep.space.experiment(taken.params).model_dump(mode="json"),
            "checkpoint": checkpoint,
        }

    retries = sweep.space.base_experiment().resources.retries
    storage = sweep.home.storage_of(sweep.name)
    run_tasks(sweep.folder, storage, Tasks(count, room.now, retries, draw, order), lifecycle)


def _task(sweep: Sweep, point: Point) -> dict[str, Any]:
    experiment = sweep.space.experiment(point.params)
    if point.seed is not None:
        experiment = experiment.model_copy(update={"seed": point.seed})
    objective = sweep.space.objective
    return make_task(
        f"{point.number:03d}",
        experiment,
        sweep.store,
        sweep.home.checkpoints(sweep.name),
        params=dict(point.params),
        repeat_of=None if point.repeat_of is None else f"{point.repeat_of:03d}",
        metric=objective.metric,
        mode=objective.mode,
    )


def make_task(
    trial: str,
    experiment: Experiment,
    store: str | Path,
    checkpoints: str,
    *,
    params: dict[str, Any],
    repeat_of: str | None,
    metric: str,
    mode: str,
) -> dict[str, Any]:
    """Return what the workers of one trial are told, all of it plain values."""
    return {
        "trial": trial,
        "experiment": experiment.model_dump(mode="json"),
        "params": params,
        "repeat_of": repeat_of,
        "store": absolute(store),
        "checkpoints": f"{checkpoints}/{trial}",
        "metric": metric,
        "mode": mode,
    }


def _status(sweep: Sweep, study: SweepStudy) -> SweepStatus:
    if study.all_failed:
        return "failed"
    return "stopped" if stop_requested(sweep.folder) else "finished"
