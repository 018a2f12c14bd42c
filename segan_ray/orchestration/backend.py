"""How the workers of a crew are joined to a PyTorch process group, with PyTorch in them alone.

Ray's ``TorchTrainer`` does the same, but brings PyTorch into the lane and the controller too,
one after the other before the first worker is started. Neither computes anything: without it, a
first trial begins sooner and each of them is smaller by what PyTorch takes.
"""

from __future__ import annotations

import contextlib
import os
import socket
from datetime import timedelta
from typing import Any, Final

# The session's settings must be in the environment before Ray is imported.
from segan_ray.orchestration import session  # noqa: F401

import ray  # isort: skip
from ray.train.backend import Backend, BackendConfig  # isort: skip

WAIT: Final = timedelta(minutes=30)
"""How long workers wait for each other in an operation of the group; Ray's own choice."""
PART_S: Final = 5.0


class ProcessGroup(Backend):
    """Joins workers by NCCL if they have GPUs, else by gloo."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Join the workers; each has imported all it trains with when this returns."""
        host, port = worker_group.execute_single(0, _meeting_place)
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        workers = len(worker_group)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank, _join, host, port, rank, workers, "nccl" if gpus else "gloo"
                )
                for rank in range(workers)
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Let the workers part."""
        # A worker that hangs or is gone is ended all the same.
        with contextlib.suppress(ray.exceptions.GetTimeoutError):
            ray.get(worker_group.execute_async(_part), timeout=PART_S)


class ProcessGroupConfig(BackendConfig):
    """Ray Train asks a trainer's configuration for the class of its backend."""

    @property
    def backend_cls(self) -> type[Backend]:
        """Return the backend."""
        return ProcessGroup


def _meeting_place() -> tuple[str, int]:
    """Return the address of this worker, the first, and a port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
    return ray.util.get_node_ip_address(), port


def _join(host: str, port: int, rank: int, workers: int, backend: str) -> None:
    import torch.distributed as dist

    import segan_ray.orchestration.worker  # noqa: F401

    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = host, str(port)
    dist.init_process_group(backend, rank=rank, world_size=workers, timeout=WAIT)


def _part() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
