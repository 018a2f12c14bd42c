"""How the workers of a crew find each other: in a file, where they are on one node on loopback.

PyTorch's own meeting point is a server that listens on every address of its machine and believes
whoever writes to it, and gloo listens wherever the machine's name leads. Machines that train
together need that; a cluster of our own, which is one node on loopback, does not.
"""

from __future__ import annotations

import os
from datetime import timedelta
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import torch.distributed as dist

# The session's settings must be in the environment before Ray is imported.
from segan_ray.orchestration.cluster import session  # noqa: F401

import ray  # isort: skip
from ray.train.torch import TorchConfig  # isort: skip


class Rendezvous(TorchConfig):
    """Ray Train's process group of PyTorch, which stays on loopback where its only node does."""

    @property
    def backend_cls(self) -> Any:
        """What sets the group up and takes it down."""
        return _Backend


class _Backend(TorchConfig().backend_cls):  # type: ignore[misc]
    _folder: TemporaryDirectory[str] | None = None

    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        workers = len(worker_group)
        (_, address), *more = set(worker_group.execute(_node))
        if more or not address.startswith("127."):
            super().on_start(worker_group, backend_config)
        elif workers > 1:
            gpus = worker_group.get_resources_per_worker().get("GPU", 0)
            # It is there for as long as the group, for NCCL looks into it again.
            self._folder = TemporaryDirectory(prefix="segan-ray-meeting-")
            place = f"file://{self._folder.name}/meeting"
            patience = timedelta(seconds=backend_config.timeout_s)
            joining = [
                worker_group.execute_single_async(
                    rank, _join, "nccl" if gpus else "gloo", place, rank, workers, patience
                )
                for rank in range(workers)
            ]
            ray.get(joining)

    def on_shutdown(self, worker_group: Any, backend_config: TorchConfig) -> None:
        super().on_shutdown(worker_group, backend_config)
        if self._folder is not None:
            self._folder.cleanup()


def _node() -> tuple[str, str]:
    """Return on which node this worker is, and the address of that."""
    return ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()


def _join(backend: str, place: str, rank: int, workers: int, patience: timedelta) -> None:
    """Join the group, listening on loopback whatever this machine's name leads to."""
    loopback = next(
        name
        for name, addresses in psutil.net_if_addrs().items()
        if any(one.address == "127.0.0.1" for one in addresses)
    )
    os.environ.update(GLOO_SOCKET_IFNAME=loopback, NCCL_SOCKET_IFNAME=f"={loopback}")
    dist.init_process_group(backend, place, patience, workers, rank)
