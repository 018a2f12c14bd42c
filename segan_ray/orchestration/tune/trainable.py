"""What Ray Tune runs: a reusable trainable, which trains one trial after another.

Tune keeps its process for the next trial (``reuse_actors``) and only passes the new configuration.
The trainable gives it to its worker group as a task, and returns each epoch's result to Tune.
"""

from __future__ import annotations

from typing import Any, Final

from ray import tune

from segan_ray.orchestration.train.trial_channel import TrialChannelClient
from segan_ray.orchestration.train.worker_group import WorkerGroup
from segan_ray.orchestration.train.worker_group_spec import WorkerGroupSpec

CHECK_S: Final = 1.0
"""How often it is checked, while a result is awaited, that the worker group still runs."""
LEAVE_S: Final = 10.0
"""How long a worker group is given to end."""


class ReusableTrainable(tune.Trainable):
    """One trial at a time; ``config`` holds ``channel``, ``storage`` and the worker's ``task``."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin the first trial."""
        self._channel = TrialChannelClient(config["channel"])
        self._group: WorkerGroup | None = None
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin the next trial."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Wait for the trial's next epoch and return its result and the number of its task.

        Raises:
            TrialError: if the worker group was lost; the trial may begin again at its last
                checkpoint.
        """
        assert self._group is not None
        while True:
            result = self._channel.result(self._group.id, CHECK_S)
            if result is not None:
                task = {"group": self._group.id, "number": self._number}
                return {"result": result, "done": result.last, **task}
            self._group.check()

    def cleanup(self) -> None:
        """End the worker group."""
        self._end_group()

    def _begin(self, config: dict[str, Any]) -> None:
        spec: WorkerGroupSpec = config["task"]["workers"]
        group = self._group
        if group is not None and group.spec == spec and group.is_running:
            number = self._channel.assign(group.id, config["task"])
            if number is not None:
                self._number = number
                return
        self._end_group()
        self._group = WorkerGroup(spec, config["channel"], config["storage"])
        number = self._channel.assign(self._group.id, config["task"])
        assert number is not None, "a new group is not closed"
        self._number = number

    def _end_group(self) -> None:
        if self._group is not None:
            self._channel.close(self._group.id)
            self._group.wait(LEAVE_S)
            self._group = None
