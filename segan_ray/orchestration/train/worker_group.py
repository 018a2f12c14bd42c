"""A Ray Train worker group that outlives a trial: started once, it trains one after the other.

Starting a worker group means four processes that import Ray and torch one after the other, 15 to
20 seconds on two cores: longer than many a trial is worth watching.
"""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass
from typing import Any

# The session's settings must be in the environment before Ray is imported.
from segan_ray.orchestration.cluster import session  # noqa: F401

from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError  # isort: skip
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError  # isort: skip
from ray.train.torch import TorchTrainer  # isort: skip

from segan_ray.errors import TrialError
from segan_ray.orchestration.cluster.engine_storage import engine_storage
from segan_ray.orchestration.train.reaper import beat, new_mark
from segan_ray.orchestration.train.rendezvous import Rendezvous
from segan_ray.orchestration.train.trial_channel import TrialChannelClient


@dataclass(frozen=True)
class WorkerGroupSpec:
    """What a worker group is made of; trials of one shape share a crew."""

    workers: int
    cpus_per_worker: float
    gpus_per_worker: float

    @classmethod
    def of(cls, experiment: dict[str, Any]) -> WorkerGroupSpec:
        """Return what a nested experiment asks for."""
        resources = experiment["resources"]
        return cls(resources["workers"], resources["cpus_per_worker"], resources["gpus_per_worker"])


class WorkerGroup:
    """A worker group at work, watched by a thread of this process."""

    def __init__(self, shape: WorkerGroupSpec, channel: str, storage: str) -> None:
        self.shape = shape
        self.lane = uuid.uuid4().hex[:12]
        self._failure: BaseException | None = None
        mark = new_mark()
        gpus = {"GPU": shape.gpus_per_worker} if shape.gpus_per_worker else {}
        self._trainer = TorchTrainer(
            train_worker,
            train_loop_config={"mailbox": channel, "lane": self.lane},
            torch_config=Rendezvous(),
            scaling_config=ScalingConfig(
                num_workers=shape.workers,
                use_gpu=shape.gpus_per_worker > 0,
                resources_per_worker={"CPU": shape.cpus_per_worker, **gpus, "memory": mark},
            ),
            run_config=RunConfig(
                name=self.lane,
                **engine_storage(storage),
                # A crew that lost a worker is not mended: its trial begins with a new one at
                # its last checkpoint, and retries are counted there, by trial.
                failure_config=FailureConfig(max_failures=0),
            ),
        )
        over = self._over = threading.Event()
        sign = threading.Thread(
            target=beat, args=(TrialChannelClient(channel), mark, over), daemon=True
        )
        sign.start()
        self._thread = threading.Thread(target=self._work, name=f"crew-{self.lane}", daemon=True)
        self._thread.start()

    @property
    def at_work(self) -> bool:
        """Whether the worker group is there, or about to be."""
        return self._thread.is_alive()

    def check(self) -> None:
        """Make sure that the crew is at work.

        Raises:
            TrialError: saying what ended it.
        """
        if not self.at_work:
            raise TrialError(cause(self._failure))

    def wait(self, timeout_s: float) -> None:
        """Wait until the crew has gone home."""
        self._thread.join(timeout_s)

    def _work(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:
            self._failure = error
        finally:
            self._over.set()


def train_worker(config: dict[str, str]) -> None:
    """Train a lane's tasks in a worker; a lane needs nothing of what that imports."""
    from segan_ray.orchestration.train import worker

    worker.train_worker(config)


def cause(error: BaseException | None) -> str:
    """Return what went wrong in one line: what a worker raised, not where Ray saw it."""
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        # Of several workers the one that failed first takes the others with it; its own words
        # say more than "a peer closed the connection".
        failures = [error.worker_failures[rank] for rank in sorted(error.worker_failures)]
        told = [failure for failure in failures if not isinstance(failure, RayActorError)]
        return cause((told or failures)[0])
    if isinstance(error, OutOfMemoryError):
        return "out of memory: Ray ended a training process because its node had no memory left."
    if isinstance(error, RayTaskError):
        return cause(error.cause)
    if isinstance(error, RayActorError):
        return "a training process died (killed, out of memory, or its node was lost)."
    if isinstance(error, MemoryError):
        return "out of memory (MemoryError)."
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    kind = "" if error is None else f"{type(error).__name__}: "
    return f"{kind}{lines[-1] if lines else 'the training processes ended.'}"
