"""Ray Tune as the engine of a sweep: its searcher, scheduler and callbacks, all of them thin.

The study draws, the lifecycle decides and records. Tune starts trainables where resources are
free, reuses them for the next trial, and starts a lost trial again.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ray
from ray import tune
from ray.tune import Callback, ProgressReporter, Stopper, TuneError
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from segan_ray.errors import SeganRayError, SweepError, said
from segan_ray.orchestration.cluster.engine_storage import ENGINE, engine_storage
from segan_ray.orchestration.train.reaper import reaping
from segan_ray.orchestration.train.trial_channel import TrialChannelClient, open_channel
from segan_ray.orchestration.tune.sweep_lock import stop_requested
from segan_ray.orchestration.tune.trainable import ReusableTrainable
from segan_ray.orchestration.tune.trial_lifecycle import TrialLifecycle

log = logging.getLogger(__name__)

DRIVER_BYTES: Final = 600 * 2**20
"""Memory of a trainable and Ray Train's controller of its worker group."""
ASK_S: Final = 2.0
"""How often requests are looked for."""
DISK_FULL: Final = ("No space left on device", "database or disk is full", "Disk quota exceeded")


@dataclass(frozen=True)
class Tasks:
    """Trials to train, at most ``limit(wanted)`` of them at once.

    ``draw`` returns the next one, or None if there is none before another has ended. ``left`` is
    how many it may yet return. A trial that was lost begins again up to ``retries`` times.
    """

    draw: Callable[[], dict[str, Any] | None]
    left: Callable[[], int]
    limit: Callable[[int], int]
    retries: int


def run_tasks(folder: Path, storage: str, tasks: Tasks, lifecycle: TrialLifecycle) -> None:
    """Train all tasks on the cluster; returns when each has ended, or the sweep is to stop.

    ``storage`` is where Ray keeps files of its own meanwhile.

    Raises:
        SweepError: if a trial could not even begin, time and again.
    """
    # Tune repeats each failed trial's traceback and warns about what we do on purpose; the
    # leaderboard and the run have the reason.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    lost: list[dict[str, Any]] = []
    name = f"channel-{uuid.uuid4().hex}"
    actor = open_channel(name)
    channel = TrialChannelClient(name)
    tuner = tune.Tuner(
        # A trainable only waits for its worker group, whose workers take the cores. Tune wants
        # every trial to ask for something.
        tune.with_resources(ReusableTrainable, {"memory": DRIVER_BYTES}),
        tune_config=tune.TuneConfig(
            # Until the searcher says that all are done.
            num_samples=-1,
            search_alg=_StudySearcher(tasks, lost, name, f"{storage}/{ENGINE}"),
            scheduler=_StudyScheduler(lifecycle, channel),
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"trial_{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name="tune",
            **engine_storage(f"{storage}/{ENGINE}"),
            stop=_SweepStopper(folder, lifecycle),
            failure_config=tune.FailureConfig(max_failures=tasks.retries),
            # Workers keep checkpoints; a trainable has none of its own.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            callbacks=[_TrialCallback(lifecycle, lost, tasks.retries)],
            verbose=0,
            progress_reporter=_NoReporter(),
        ),
    )
    try:
        with _credentials_stay_here(), reaping(channel):
            tuner.fit()
    except TuneError as error:
        raise _ours(error) from error
    finally:
        ray.kill(actor)


@contextmanager
def _credentials_stay_here() -> Iterator[None]:
    """Keep AWS credentials out of runtime environments, which command lines and dashboards show.

    Tune would pass them to its actors so. Nodes have credentials of their own, in the environment
    that Ray was started with.
    """
    passed = class_cache.ENV_VARS_TO_PROPAGATE
    ours = {name for name in passed if name.startswith("AWS_")}
    passed -= ours
    try:
        yield
    finally:
        passed |= ours


def _ours(error: BaseException) -> BaseException:
    """Return the error of recording a trial, which Tune wraps in its own error.

    A full disk would fail every trial whatever its settings, so it ends the sweep.
    """
    chain = [error]
    while chain[-1].__context__ is not None:
        chain.append(chain[-1].__context__)
    told = next((each for each in chain if isinstance(each, SeganRayError)), chain[-1])
    full = next((each for each in chain if any(words in str(each) for words in DISK_FULL)), None)
    if full is not None and not isinstance(told, SeganRayError):
        return SweepError(f"{said(chain[-1]).rstrip('.')}. Free some space.")
    return told


class _NotPickled:
    """Saved by Tune as nothing: studies and records belong to this process."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _StudySearcher(_NotPickled, Searcher):
    """Tune's searcher: the next trial is the study's, as soon as the limit allows one more.

    Tune's own limit is a constant, while nodes come and go.
    """

    def __init__(
        self, tasks: Tasks, lost: list[dict[str, Any]], channel: str, storage: str
    ) -> None:
        super().__init__()
        self._tasks = tasks
        self._lost = lost
        self._live: set[str] = set()
        self._common = {"channel": channel, "storage": storage}

    # Tune leaves its own FINISHED out of the type.
    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        wanted = len(self._live) + len(self._lost) + self._tasks.left()
        if self._live and len(self._live) >= self._tasks.limit(wanted):
            return None
        task = self._lost.pop(0) if self._lost else self._tasks.draw()
        if task is None:
            return None if self._live else Searcher.FINISHED
        self._live.add(trial_id)
        return {**self._common, "task": task}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Count one trial less; the lifecycle tells the study."""
        self._live.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: a sweep goes on from its study."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class _StudyScheduler(_NotPickled, FIFOScheduler):
    """Tune's scheduler: passes each epoch to the lifecycle, and its decision to the workers."""

    def __init__(self, lifecycle: TrialLifecycle, channel: TrialChannelClient) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._lifecycle = lifecycle
        self._channel = channel

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Leave it to Tune to give a free trainable to a trial that has none.

        A trial chosen here would take it although a trainable of its own is being started, which
        would then be ended. Where trials end more often than trainables start, none ever would.
        """

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        epoch = result["result"]
        decision = self._lifecycle.epoch(trial.config["task"]["trial"], epoch)
        self._channel.decide(result["group"], result["number"], epoch.epoch, decision)
        return self.STOP if decision.stop else self.CONTINUE


class _TrialCallback(_NotPickled, Callback):
    """Tune's callback: tells the lifecycle what begins, is lost and ends.

    If a trainable is lost while it begins a trial, Tune ends the trial and does not retry it. Its
    task goes to ``lost``, from where it is drawn before any other, up to ``retries`` times again.
    """

    def __init__(self, lifecycle: TrialLifecycle, lost: list[dict[str, Any]], retries: int) -> None:
        self._lifecycle = lifecycle
        self._lost = lost
        self._retries = retries
        self._losses: Counter[str] = Counter()

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        task = trial.config["task"]
        begun = (task["trial"], task["experiment"], task["params"], task["repeat_of"])
        self._lifecycle.begin(*begun)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        # Tune does not call its scheduler after a last epoch.
        if result["done"]:
            self._lifecycle.epoch(trial.config["task"]["trial"], result["result"])

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._lifecycle.end(trial.config["task"]["trial"])

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        task = trial.config["task"]
        if self._lifecycle.knows(task["trial"]):
            self._lifecycle.end(task["trial"], _cause(trial))
        else:
            self._losses[task["trial"]] += 1
            if self._losses[task["trial"]] > self._retries + 1:
                raise SweepError(f"Trial {task['trial']} could not begin, time and again.")
            self._lost.append(task)

    def on_trial_recover(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        cause = _cause(trial)
        if any(words in cause for words in DISK_FULL):
            # This error would fail every trial whatever its settings.
            raise SweepError(f"Trial {trial.config['task']['trial']}: {cause}. Free some space.")
        self._lifecycle.retry(trial.config["task"]["trial"])


class _NoReporter(_NotPickled, ProgressReporter):
    """Tune's reporter: nothing. Its own empties the output of a notebook's cell."""

    def should_report(self, trials: list[Trial], done: bool = False) -> bool:
        return False

    def report(self, trials: list[Trial], done: bool, *sys_info: str) -> None:
        """Report nothing."""


class _SweepStopper(_NotPickled, Stopper):
    """Ends a sweep when a stop was requested, or another process has taken it over.

    Tune calls it again and again, so it also has the lifecycle look for what was asked.
    """

    def __init__(self, folder: Path, lifecycle: TrialLifecycle) -> None:
        self._folder = folder
        self._lifecycle = lifecycle
        self._asked = time.monotonic()

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        self._lifecycle.check()
        if time.monotonic() - self._asked >= ASK_S:
            self._take_requests()
            self._asked = time.monotonic()
        return stop_requested(self._folder)

    def _take_requests(self) -> None:
        try:
            self._lifecycle.take_requests()
        except SeganRayError:
            raise
        except Exception as error:  # every database has errors of its own
            # It may be back the next time; trials that need it now say what is wrong.
            log.debug("Requests could not be read: %s", said(error))


def _cause(trial: Trial) -> str:
    """Return the last line of the innermost error, without Ray's own lines around it."""
    try:
        text = Path(trial.error_file).read_text(encoding="utf-8")
    except OSError:
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "The trial's process died."
    return lines[-1].removeprefix("segan_ray.errors.").removeprefix("TrialError: ")
