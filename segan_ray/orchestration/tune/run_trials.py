"""Ray Tune as the engine of a sweep: its searcher, scheduler and callbacks, all of them thin.

What is drawn, judged and noted is decided by the study and the logbook; Tune starts lanes where
there is room, keeps them for the next trial, and starts a lost trial again.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

# The session's settings must be in the environment before Ray is imported.
from segan_ray.orchestration.cluster.session import ray_session  # noqa: F401

import ray  # isort: skip
from ray import tune  # isort: skip
from ray.tune import Callback, Stopper, TuneError  # isort: skip
from ray.tune.execution import class_cache  # isort: skip
from ray.tune.experiment import Trial  # isort: skip
from ray.tune.schedulers import FIFOScheduler  # isort: skip
from ray.tune.search import Searcher  # isort: skip

from segan_ray.config import build
from segan_ray.errors import SeganRayError, SweepError, said
from segan_ray.orchestration.cluster.engine_storage import ENGINE, engine_storage
from segan_ray.orchestration.train.reaper import tidying
from segan_ray.orchestration.train.trial_channel import TrialChannelClient, open_channel
from segan_ray.orchestration.tune.sweep_lock import stop_requested
from segan_ray.orchestration.tune.trainable import ReusableTrainable
from segan_ray.orchestration.tune.trial_lifecycle import TrialLifecycle
from segan_ray.search.study.sweep_study import Exploit

DRIVER_BYTES: Final = 600 * 2**20
"""What a lane and Ray Train's controller of its crew take; neither computes anything."""
DISK_FULL: Final = ("No space left on device", "database or disk is full", "Disk quota exceeded")

NextTask = Callable[[], dict[str, Any]]
RoomFor = Callable[[int], int]
"""How many of so many trials can train now."""
MakeOrder = Callable[[str, int, Exploit], dict[str, Any]]


@dataclass(frozen=True)
class Tasks:
    """``count`` trials, as many at once as there is ``room``; ``draw`` gives the next's task."""

    count: int
    room: RoomFor
    retries: int
    draw: NextTask
    order: MakeOrder


# Ray Tune would hand these from process to process in runtime environments, which command lines and
# the dashboard show. Nodes have credentials of their own, in the environment Ray was started with.
class_cache.ENV_VARS_TO_PROPAGATE.difference_update(
    [name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")]
)


def run_tasks(folder: Path, storage: str, tasks: Tasks, lifecycle: TrialLifecycle) -> None:
    """Train all tasks on the cluster; returns when each has ended, or the sweep is to stop.

    ``storage`` is where Ray keeps files of its own meanwhile.

    Raises:
        SweepError: if a trial could not even begin, time and again.
    """
    lost: list[dict[str, Any]] = []
    names: set[str] = set()

    def draw() -> dict[str, Any]:
        task = lost.pop(0) if lost else tasks.draw()
        names.add(task["trial"])
        return task

    def left() -> int:
        return tasks.count - sum(lifecycle.knows(name) for name in names)

    # What ends a lane while it takes a trial, Tune counts as the trial's end and does not retry:
    # such a trial comes next, before any other is drawn, and Tune has then run one too few.
    for _ in range(tasks.retries + 2):
        _tune(folder, storage, replace(tasks, count=left(), draw=draw), lifecycle, lost)
        if not left() or stop_requested(folder):
            return
    raise SweepError(f"Trial {lost[0]['trial']} could not begin, time and again.")


def _tune(
    folder: Path, storage: str, tasks: Tasks, lifecycle: TrialLifecycle, lost: list[dict[str, Any]]
) -> None:
    # Tune repeats each failed trial's traceback and warns about what we do on purpose; the
    # leaderboard and the run have the reason.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    name = f"mailbox-{uuid.uuid4().hex}"
    channel = open_channel(name)
    tuner = tune.Tuner(
        # A lane only waits for its crew, whose workers are what takes cores; but Tune wants
        # every trial to ask for something.
        tune.with_resources(ReusableTrainable, {"memory": DRIVER_BYTES}),
        tune_config=tune.TuneConfig(
            num_samples=tasks.count,
            search_alg=_StudySearcher(tasks, name, f"{storage}/{ENGINE}"),
            scheduler=_StudyScheduler(lifecycle, tasks.order, TrialChannelClient(name)),
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name="tune",
            **engine_storage(f"{storage}/{ENGINE}"),
            stop=_SweepStopper(folder, lifecycle),
            failure_config=tune.FailureConfig(max_failures=tasks.retries),
            # Workers keep checkpoints; a lane has nothing to add.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[_TrialCallback(lifecycle, lost)],
            verbose=0,
        ),
    )
    try:
        with tidying(TrialChannelClient(name)):
            tuner.fit()
    except TuneError as error:
        raise _ours(error) from error
    finally:
        ray.kill(channel)


def _ours(error: BaseException) -> BaseException:
    """Return what was raised while a trial was noted, which Tune wraps in an error of its own.

    A full disk would fail every trial, and none of its own settings: it ends the sweep.
    """
    chain = [error]
    while chain[-1].__context__ is not None:
        chain.append(chain[-1].__context__)
    told = next((each for each in chain if isinstance(each, SeganRayError)), chain[-1])
    full = next((each for each in chain if any(words in str(each) for words in DISK_FULL)), None)
    if full is not None and not isinstance(told, SeganRayError):
        return SweepError(f"{said(chain[-1]).rstrip('.')}. Free some space.")
    return told


class _StudySearcher(Searcher):
    """Tune's searcher: each trial is the next task, as soon as there is room for it.

    Tune's own limit is one number for good; nodes come and go.
    """

    def __init__(self, tasks: Tasks, channel: str, storage: str) -> None:
        super().__init__()
        self._tasks = tasks
        self._left = tasks.count
        self._live: set[str] = set()
        self._common = {"mailbox": channel, "storage": storage}

    def __getstate__(self) -> dict[str, Any]:
        """Pickle as nothing, as the scheduler does: tasks are drawn in this process."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        wanted = len(self._live) + self._left
        if self._live and len(self._live) >= self._tasks.room(wanted):
            return None
        self._live.add(trial_id)
        self._left -= 1
        return {**self._common, "task": self._tasks.draw()}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Make room for another; the logbook tells the study."""
        self._live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: a sweep goes on from its study."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is kept."""


class _StudyScheduler(FIFOScheduler):
    """Tune's scheduler: the logbook notes an epoch and says what becomes of the trial."""

    def __init__(
        self, lifecycle: TrialLifecycle, order: MakeOrder, channel: TrialChannelClient
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ledger = lifecycle
        self._order = order
        self._channel = channel

    def __getstate__(self) -> dict[str, Any]:
        """Pickle as nothing: Tune saves its scheduler, but records belong to this process."""
        return {}

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Leave it to Tune to give a free lane to a trial that has none.

        One chosen here would take it though a lane of its own is being started, which would then
        be ended: where trials end more often than lanes start, none would ever come up.
        """

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        name = trial.config["task"]["trial"]
        judgement = self._ledger.epoch(name, result["result"])
        if judgement.exploit is not None:
            epoch = result["result"].epoch
            order = self._order(name, epoch, judgement.exploit)
            self._channel.order(result["lane"], epoch, order)
        return self.STOP if judgement.stop else self.CONTINUE


class _TrialCallback(Callback):
    """Tune's callback: what begins, is lost and ends; ``lost`` takes what never began."""

    def __init__(self, lifecycle: TrialLifecycle, lost: list[dict[str, Any]]) -> None:
        self._ledger = lifecycle
        self._lost = lost

    def __getstate__(self) -> dict[str, Any]:
        """Pickle as nothing, as the scheduler does."""
        return {}

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        task = trial.config["task"]
        experiment = build(task["experiment"], task["trial"])
        self._ledger.begin(task["trial"], experiment, task["params"], task["repeat_of"])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        # Tune does not ask its scheduler about a last epoch.
        if result["done"]:
            self._ledger.epoch(trial.config["task"]["trial"], result["result"])

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._ledger.end(trial.config["task"]["trial"])

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        task = trial.config["task"]
        if self._ledger.knows(task["trial"]):
            self._ledger.end(task["trial"], _cause(trial))
        else:
            self._lost.append(task)

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        cause = _cause(trial)
        if any(words in cause for words in DISK_FULL):
            # Every trial would fail of it, and none of its own settings.
            raise SweepError(f"Trial {trial.config['task']['trial']}: {cause}. Free some space.")
        self._ledger.retry(trial.config["task"]["trial"])


class _SweepStopper(Stopper):
    """Ends a sweep when somebody has asked for it, or it is another process's."""

    def __init__(self, folder: Path, lifecycle: TrialLifecycle) -> None:
        self._folder = folder
        self._ledger = lifecycle

    def __getstate__(self) -> dict[str, Any]:
        """Pickle as nothing, as the scheduler does."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        self._ledger.check()
        return stop_requested(self._folder)


def _cause(trial: Trial) -> str:
    """Return the last line of the innermost error: what went wrong, not where Ray saw it."""
    try:
        text = Path(trial.error_file).read_text(encoding="utf-8")
    except OSError:
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "The trial's process died."
    return lines[-1].removeprefix("segan_ray.errors.").removeprefix("TrialError: ")
