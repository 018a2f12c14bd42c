"""A Ray Train worker group that outlives a trial: started once, it trains one after the other.

Starting a worker group takes 15 to 20 seconds on two cores, since four processes import Ray and
torch one after the other. Many a trial takes less.
"""

from __future__ import annotations

import threading
import uuid

from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer

from segan_ray.errors import TrialError
from segan_ray.orchestration.cluster.engine_storage import engine_storage
from segan_ray.orchestration.train.reaper import new_group_tag, send_heartbeats
from segan_ray.orchestration.train.rendezvous import Rendezvous
from segan_ray.orchestration.train.trial_channel import TrialChannelClient
from segan_ray.orchestration.train.worker_group_spec import WorkerGroupSpec


class WorkerGroup:
    """A running worker group; a thread of this process runs its Ray Train controller's ``fit``."""

    def __init__(self, spec: WorkerGroupSpec, channel: str, storage: str) -> None:
        self.spec = spec
        self.id = uuid.uuid4().hex[:12]
        self._failure: BaseException | None = None
        tag = new_group_tag()
        gpus = {"GPU": spec.gpus_per_worker} if spec.gpus_per_worker else {}
        self._trainer = TorchTrainer(
            train_worker,
            train_loop_config={"channel": channel, "group": self.id},
            torch_config=Rendezvous(),
            scaling_config=ScalingConfig(
                num_workers=spec.workers,
                use_gpu=spec.gpus_per_worker > 0,
                resources_per_worker={"CPU": spec.cpus_per_worker, **gpus, "memory": tag},
            ),
            run_config=RunConfig(
                name=self.id,
                **engine_storage(storage),
                # A group that lost a worker is not repaired: its trial begins again on another
                # group at its last checkpoint, and retries are counted by trial.
                failure_config=FailureConfig(max_failures=0),
            ),
        )
        self._over = threading.Event()
        heartbeats = (TrialChannelClient(channel), tag, self._over)
        threading.Thread(target=send_heartbeats, args=heartbeats, daemon=True).start()
        self._thread = threading.Thread(target=self._run, name=f"group-{self.id}", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the group is there, or is being started."""
        return self._thread.is_alive()

    def check(self) -> None:
        """Make sure that the group is running.

        Raises:
            TrialError: saying what ended it.
        """
        if not self.is_running:
            raise TrialError(cause(self._failure))

    @property
    def ran_out_of_memory(self) -> str | None:
        """In words that the group has ended for want of memory, or None if it has not."""
        ended = not self.is_running and any(map(_is_memory, _failures(self._failure)))
        return cause(self._failure) if ended else None

    def wait(self, timeout_s: float) -> None:
        """Wait until the group has ended."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            self._trainer.fit()
        except BaseException as error:
            self._failure = error
        finally:
            self._over.set()


def train_worker(config: dict[str, str]) -> None:
    """Train the tasks of a group in a worker; trainables do not need the imports in here."""
    from segan_ray.orchestration.train import worker

    worker.train_worker(config)


def cause(error: BaseException | None) -> str:
    """Return the error of a worker in one line, without Ray's own lines around it."""
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        # Of several workers the one that failed first takes the others with it; its own words
        # say more than "a peer closed the connection".
        failures = _failures(error)
        memory = [failure for failure in failures if _is_memory(failure)]
        told = [failure for failure in failures if not isinstance(failure, RayActorError)]
        return cause((memory or told or failures)[0])
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


def _failures(error: BaseException | None) -> list[BaseException]:
    """Return what each worker of a group failed with, by rank."""
    if not isinstance(error, WorkerGroupError):
        return [] if error is None else [error]
    return [error.worker_failures[rank] for rank in sorted(error.worker_failures)]


def _is_memory(error: BaseException) -> bool:
    inner = error.cause if isinstance(error, RayTaskError) else error
    return isinstance(inner, OutOfMemoryError | MemoryError)
