"""Gathering facts on a node of the cluster; the probe is light, since the node may be busy.

Nothing is judged here; ``findings`` judges the facts of all nodes together.
"""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from segan_ray.filesystem.locations import is_url

PACKAGES: Final = ("segan-ray", "ray", "torch", "optuna", "mlflow", "numpy")
CONNECT_S: Final = 5.0


@dataclass(frozen=True)
class ProbeRequest:
    """What a node is asked; ``token`` is the content of the probe file in ``storage``.

    ``closely`` adds facts that take seconds, such as whether the node can connect to the host and
    port of each of ``servers``.
    """

    store: str | None
    storage: str
    token: str
    closely: bool
    servers: Mapping[str, tuple[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class NodeFacts:
    """The answer of a node. A problem is empty if there is none; disks are in bytes."""

    node: str
    host: str
    versions: Mapping[str, str] = field(default_factory=dict)
    ray_gpus: float = 0
    torch_gpus: int | None = None
    store: str | None = None
    store_problem: str = ""
    reads_storage: bool = False
    storage_problem: str = ""
    free_bytes: Mapping[str, int] = field(default_factory=dict)
    reached: Mapping[str, bool] = field(default_factory=dict)
    silent: str = ""
    """Why the node did not answer at all."""
    compile_obstacle: str | None = None
    """Why steps cannot be compiled for the node's GPUs, if so."""


def look(node: str, host: str, ray_gpus: float, question: ProbeRequest) -> NodeFacts:
    """Answer ``question`` for the node of this process."""
    store, store_problem = _store(question.store)
    reads, storage_problem = _storage(question, node)
    return NodeFacts(
        node,
        host,
        versions(),
        ray_gpus,
        _torch_gpus() if question.closely else None,
        store,
        store_problem,
        reads,
        storage_problem,
        _free_bytes() if question.closely else {},
        {name: _connects(*server) for name, server in question.servers.items()},
        compile_obstacle=_compile_obstacle() if question.closely else None,
    )


def versions() -> dict[str, str]:
    """Return the versions of Python and of a sweep's packages, "none" for a missing package."""
    by_package = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            by_package[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            by_package[package] = "none"
    # A job may carry the code along, uninstalled.
    if by_package["segan-ray"] == "none":
        from segan_ray import __version__

        by_package["segan-ray"] = __version__
    return by_package


def probe_file(storage: str, token: str, node: str = "") -> str:
    """Return the location of the mark file of the driver, or of a node, in the sweeps' storage."""
    return f"{storage}/.probe-{token}{'-' if node else ''}{node}"


def write_mark(location: str, content: str) -> None:
    """Write a mark file and make its folder."""
    if not is_url(location):
        Path(location).parent.mkdir(parents=True, exist_ok=True)
        Path(location).write_text(content, encoding="utf-8")
        return
    from segan_ray.data.store.remote_manifest import open_location

    system, path = open_location(location)
    system.makedirs(path.rpartition("/")[0], exist_ok=True)
    system.pipe_file(path, content.encode())


def read_mark(location: str) -> str:
    """Return the content of a mark file."""
    if not is_url(location):
        return Path(location).read_text(encoding="utf-8")
    from segan_ray.data.store.remote_manifest import open_location

    system, path = open_location(location)
    system.invalidate_cache()
    return bytes(system.cat_file(path)).decode()


def remove_mark(location: str) -> None:
    """Remove a mark file, if it is there."""
    if not is_url(location):
        Path(location).unlink(missing_ok=True)
        return
    from segan_ray.data.store.remote_manifest import open_location

    system, path = open_location(location)
    system.invalidate_cache()
    if system.exists(path):
        system.rm_file(path)


def now() -> float:
    """Return the time of this node's clock, in seconds since 1970."""
    return time.time()


def _store(location: str | None) -> tuple[str | None, str]:
    """Return the fingerprint of the store as this node reads it, and the problem, if any."""
    if location is None:
        return None, ""
    from segan_ray.data.store.remote_manifest import manifest_at
    from segan_ray.errors import SeganRayError

    try:
        return manifest_at(location).fingerprint, ""
    except SeganRayError as error:
        return None, str(error).splitlines()[0]


def _storage(question: ProbeRequest, node: str) -> tuple[bool, str]:
    """Tell whether this node reads the driver's mark file; return its problem here, if any."""
    from segan_ray.errors import named

    try:
        if read_mark(probe_file(question.storage, question.token)) != question.token:
            return False, ""
    except FileNotFoundError:
        # A mark file in a folder of this node alone would prove nothing.
        return False, ""
    except Exception as error:  # every file system has errors of its own
        return False, named(error)
    mine = probe_file(question.storage, question.token, node)
    try:
        write_mark(mine, question.token)
        remove_mark(mine)
    except Exception as error:  # every file system has errors of its own
        return True, named(error)
    return True, ""


def _connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except OSError:
        return False
    return True


def _torch_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _compile_obstacle() -> str | None:
    import torch

    if not torch.cuda.is_available():
        return None
    from segan_ray.training.compiling import obstacle

    return obstacle(torch.device("cuda"))


def _free_bytes() -> dict[str, int]:
    """Return the free bytes where Ray spills objects and where stores are cached."""
    from segan_ray.data.store.cache import cache_root
    from segan_ray.orchestration.cluster.cluster_folder import parent_folder

    free = {}
    for what, path in (("Ray's files", parent_folder()), ("stores", cache_root())):
        existing = next(each for each in (path, *path.parents) if each.exists())
        free[f"{what} ({path})"] = shutil.disk_usage(existing).free
    return free
