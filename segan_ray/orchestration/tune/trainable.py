"""What Ray Tune runs: a reusable trainable, which trains one trial after another.

Tune keeps its process for the next trial (``reuse_actors``) and only passes the new configuration.
The trainable gives it to its worker group as a task, and returns each epoch's result to Tune.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ray import tune

from segan_ray.config import Experiment
from segan_ray.orchestration.train.messages import EpochResult, worst
from segan_ray.orchestration.train.trial_channel import TrialChannelClient
from segan_ray.orchestration.train.worker_group import WorkerGroup
from segan_ray.orchestration.train.worker_group_spec import WorkerGroupSpec

CHECK_S: Final = 1.0
"""How often it is checked, while a result is awaited, that the worker group still runs."""
LEAVE_S: Final = 10.0
"""How long a worker group is given to end."""


class ReusableTrainable(tune.Trainable):
    """One trial at a time; ``config`` holds ``channel``, ``storage`` and the worker's ``task``."""

    _task: dict[str, Any]
    _number: int
    _asked_parts: int
    _was_killed: bool
    _news: list[str]

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the first trial."""
        self._names = (config["channel"], config["storage"])
        self._channel = TrialChannelClient(config["channel"])
        self._group: WorkerGroup | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin the next trial."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the trial's next epoch and return its result and the number of its task.

        A trial that ran out of memory ends there, unless it may begin again (``_begin_again``).

        Raises:
            TrialError: if the worker group was lost; the trial may begin again at its last
                checkpoint.
        """
        while True:
            assert self._group is not None
            result = self._next_result()
            killed = self._group.ran_out_of_memory if result is None else None
            if killed is not None:
                result = self._came_to_nothing(killed)
            if result is None:
                self._group.check()
            elif result.out_of_memory and self._begin_again(result, killed=killed is not None):
                continue
            else:
                return self._told(result)

    def _next_result(self) -> EpochResult | None:
        """Return the next result of the group, or None if it has none yet."""
        assert self._group is not None
        return self._channel.result(self._group.id, CHECK_S)

    def _told(self, result: EpochResult) -> dict[str, Any]:
        assert self._group is not None
        if self._news:
            warning = "; ".join([*self._news, *filter(None, [result.warning])])
            result, self._news = replace(result, warning=warning), []
        parts = self._task["experiment"].training.accumulate
        if parts > self._asked_parts:
            metrics = {**result.metrics, "param/training.accumulate": float(parts)}
            result = replace(result, metrics=metrics)
        task = {"group": self._group.id, "number": self._number}
        return {"result": result, "done": result.last, **task}

    def _came_to_nothing(self, cause: str) -> EpochResult:
        """Return the result of an epoch in which workers ended for want of memory."""
        # Imports the networks, which a trainable needs for nothing else.
        from segan_ray.training.checkpoints.remote_folder import trial_checkpoints

        task = self._task
        last = trial_checkpoints(task["checkpoints"], Path()).last_report()
        epoch = 1 if last is None else last.epoch + 1
        return EpochResult(
            epoch,
            task["experiment"].training.epochs * task["runs"],
            {task["metric"]: worst(task["mode"])},
            # On folds that is the best of one of them, and no score of the trial.
            None if last is None or last.folds else last.best,
            f"{cause.rstrip('.')} (epoch {epoch})",
            out_of_memory=True,
        )

    def _begin_again(self, result: EpochResult, *, killed: bool) -> bool:
        """Begin the trial again at its last checkpoint if that may help; return whether it did.

        In more parts a batch, if it may. As it is if it was ``killed`` for the first time: another
        process may have taken the memory.
        """
        experiment: Experiment = self._task["experiment"]
        smaller = in_more_parts(experiment)
        if smaller is None and (self._was_killed or not killed):
            return False
        how = "once more"
        if smaller is not None:
            how = f"with its batches in {smaller.training.accumulate} parts"
        self._news.append(f"begins again {how}, since it ran {result.failure}")
        self._was_killed = self._was_killed or smaller is None
        self._end_group()
        self._give({**self._task, "experiment": smaller or experiment})
        return True

    def cleanup(self) -> None:
        """End the worker group."""
        self._end_group()

    def _begin(self, config: dict[str, Any]) -> None:
        self._asked_parts = config["task"]["experiment"].training.accumulate
        self._news = []
        self._was_killed = False
        self._give(config["task"])

    def _give(self, task: dict[str, Any]) -> None:
        """Give a task to the worker group, or to a new one if it is of other workers or gone."""
        spec: WorkerGroupSpec = task["workers"]
        self._task, group = task, self._group
        if group is not None and group.spec == spec and group.is_running:
            number = self._channel.assign(group.id, task)
            if number is not None:
                self._number = number
                return
        self._end_group()
        self._group = WorkerGroup(spec, *self._names)
        number = self._channel.assign(self._group.id, task)
        assert number is not None, "a new group is not closed"
        self._number = number

    def _end_group(self) -> None:
        if self._group is not None:
            self._channel.close(self._group.id)
            self._group.wait(LEAVE_S)
            self._group = None


def in_more_parts(experiment: Experiment) -> Experiment | None:
    """Return the experiment with its batches in twice as many parts, or None if it may not."""
    training, resources = experiment.training, experiment.resources
    parts = 2 * training.accumulate
    if resources.on_out_of_memory == "end" or training.batch_size < parts * resources.workers:
        return None
    update = {"training": training.model_copy(update={"accumulate": parts})}
    return experiment.model_copy(update=update)
