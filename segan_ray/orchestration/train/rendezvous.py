"""How the workers of a group find each other: through a file, if they are on one loopback node.

PyTorch's own rendezvous is a server that listens on every address of its machine and trusts every
client, and gloo listens at the address of the machine's name. Workers on several machines need
that. A cluster of our own, which is one node on loopback, does not.
"""

from __future__ import annotations

import os
from datetime import timedelta
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import ray
import torch
import torch.distributed as dist
from ray.train.torch import TorchConfig


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
            gpus = worker_group.get_resources_per_worker().get("GPU", 0) > 0
            # The file stays for as long as the group, since NCCL reads it again.
            self._folder = TemporaryDirectory(prefix="segan-ray-rendezvous-")
            url = f"file://{self._folder.name}/rendezvous"
            patience = timedelta(seconds=backend_config.timeout_s)
            joining = [
                worker_group.execute_single_async(rank, _join, gpus, url, rank, workers, patience)
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


def _join(gpus: bool, url: str, rank: int, workers: int, patience: timedelta) -> None:
    """Join the group, listening on loopback even if this machine's name has another address."""
    loopback = next(
        name
        for name, addresses in psutil.net_if_addrs().items()
        if any(one.address == "127.0.0.1" for one in addresses)
    )
    os.environ.update(GLOO_SOCKET_IFNAME=loopback, NCCL_SOCKET_IFNAME=f"={loopback}")
    # A torch without CUDA trains on the CPU, whatever Ray has given it.
    backend = "nccl" if gpus and torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, url, patience, workers, rank)
