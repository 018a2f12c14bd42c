"""What Ray Tune runs: a lane, on which one trial after another goes through the same crew.

Tune keeps a lane's process for the next trial and only tells it the new configuration; the lane
hands that on to its crew as a task, and each epoch's result back to Tune.
"""

from __future__ import annotations

from typing import Any, Final

# The session's settings must be in the environment before Ray is imported.
from segan_ray.orchestration.cluster import session  # noqa: F401

from ray import tune  # isort: skip

from segan_ray.orchestration.train.trial_channel import TrialChannelClient
from segan_ray.orchestration.train.worker_group import WorkerGroup, WorkerGroupSpec

LOOK_S: Final = 1.0
"""How often a lane that waits for a result looks whether its crew is still there."""
FAREWELL_S: Final = 10.0


class ReusableTrainable(tune.Trainable):
    """One trial at a time; ``config`` holds ``channel``, ``storage`` and the worker's ``task``."""

    def setup(self, config: dict[str, Any]) -> None:
        """Take the first trial."""
        self._channel = TrialChannelClient(config["mailbox"])
        self._crew: WorkerGroup | None = None
        self._judged = 0
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial."""
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Let the trial go on to its next epoch and return what that came to.

        Raises:
            TrialError: if the crew was lost; the trial may begin again at its last checkpoint.
        """
        assert self._crew is not None
        while True:
            result = self._channel.result(self._crew.lane, self._judged, LOOK_S)
            if result is not None:
                self._judged = result.epoch
                return {"result": result, "done": result.last, "lane": self._crew.lane}
            self._crew.check()

    def cleanup(self) -> None:
        """Send the crew home."""
        self._dismiss()

    def _take(self, config: dict[str, Any]) -> None:
        shape = WorkerGroupSpec.of(config["task"]["experiment"])
        self._judged = 0
        crew, task = self._crew, config["task"]
        fits = crew is not None and crew.shape == shape and crew.at_work
        if crew is not None and fits and self._channel.assign(crew.lane, task):
            return
        self._dismiss()
        self._crew = WorkerGroup(shape, config["mailbox"], config["storage"])
        self._channel.assign(self._crew.lane, task)

    def _dismiss(self) -> None:
        if self._crew is not None:
            self._channel.close(self._crew.lane)
            self._crew.wait(FAREWELL_S)
            self._crew = None
