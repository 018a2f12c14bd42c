"""Joining a Ray cluster, or starting one on this machine for the time of a command."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import ray
from ray._private import ray_constants, worker
from ray.exceptions import AuthenticationError

from segan_ray.engine_settings import ON_NODES, prepare_ray
from segan_ray.errors import SweepError, said
from segan_ray.orchestration.cluster.address import (
    check_cluster,
    check_reachable,
    no_answer,
    no_token,
)
from segan_ray.orchestration.cluster.cluster_folder import cluster_folder, parent_folder

log = logging.getLogger(__name__)

ON_LOOPBACK: Final = {
    # Every process of our own cluster listens on loopback alone. Ray has this switch for
    # desktop systems; without it, sockets are open to the network.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
LOCAL_SETTINGS: Final = {
    # When the driver is killed, its cluster ends at once instead of waiting for the driver.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    # Each watcher is a process, and this machine is not preempted.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
OBJECT_STORE_BYTES: Final = 256 * 2**20
"""Nothing large goes through Ray's object store: slices are memory-mapped, checkpoints files."""

TIMED_OUT: Final = "timed out during startup"
TOKEN: Final = secrets.token_hex(32)
"""The token of clusters that this process starts; Ray would write its own to a readable file."""


def joined() -> bool:
    """Tell whether this process uses a cluster that it did not start and that may grow."""
    return os.environ.get("RAY_ADDRESS", "") not in ("", "local")


@contextmanager
def ray_session() -> Iterator[None]:
    """Connect to ``RAY_ADDRESS``, or run a cluster of this machine's cores on loopback."""
    if ray.is_initialized():
        yield
        return
    prepare_ray()
    with ExitStack() as ends:
        ends.enter_context(_stdout_for_us_alone())
        if joined():
            ends.callback(ray.shutdown)
            _join_cluster()
        else:
            with _said_in_words():
                folder = ends.enter_context(cluster_folder())
                ends.enter_context(_on_loopback())
                ends.callback(ray.shutdown)
                _start_own_cluster(folder)
        yield


@contextmanager
def _stdout_for_us_alone() -> Iterator[None]:
    """Log the lines that Ray prints on stdout when a process of it dies; no setting does this."""

    def log_lines(data: dict[str, Any], *_: Any, **__: Any) -> None:
        log.debug("%s: %s", data.get("pid"), " ".join(data.get("lines", ())))

    with _replaced(worker, "print_to_stdstream", log_lines):
        yield


@contextmanager
def _on_loopback() -> Iterator[None]:
    """Keep our own cluster and its processes on loopback while the block runs.

    Ray has read these switches from the environment when it was imported.
    """
    before = {name: os.environ.get(name) for name in LOCAL_SETTINGS}
    settings = {name: before[name] or value for name, value in LOCAL_SETTINGS.items()}
    with (
        _environment({**settings, **ON_LOOPBACK}),
        _replaced(ray_constants, "ENABLE_RAY_CLUSTER", False),
        _replaced(ray_constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", False),
    ):
        yield


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables of the environment while the block runs; None unsets a variable."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _said_in_words() -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise SweepError(
            f"Ray cannot be started on this machine ({said(error)}). Its files and sockets are "
            f"in {parent_folder()}: set RAY_TMPDIR to a short path that you can write, "
            "such as /tmp/me."
        ) from None
    except Exception as error:
        if TIMED_OUT not in str(error):
            raise
        raise SweepError(
            "Ray did not start: it gives its own processes 30 seconds, and this machine was too "
            "busy for that. Try again when less runs on it."
        ) from None


def _start_own_cluster(folder: Path) -> None:
    """Start a cluster of this machine's cores, even if another cluster runs here already.

    Its processes write to ``folder`` alone, so that nothing else stays when they are killed. They
    know its address: Ray Train's cleaner of placement groups looks for "the" cluster of the
    machine, and releases nothing where two run. They know its token, so Ray asks every caller for
    it, even if the user's environment has the token of another cluster.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = {
        "RAY_GCS_SERVER_PORT": str(port),
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_AUTH_MODE": None,
        "TMPDIR": str(folder),
    }
    with _environment(told):
        ray.init(
            address="local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            # A folder within ``folder``, since Ray lets every user write to this one.
            _temp_dir=str(folder / "r"),
        )


def _join_cluster() -> None:
    address = os.environ["RAY_ADDRESS"]
    check_reachable()
    if address != "auto":
        check_cluster(address)
    # The nodes' own environments may have other values.
    settings = {"env_vars": {name: os.environ[name] for name in ON_NODES}}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, runtime_env=settings)
    except ConnectionError:
        raise no_answer(address) from None
    except AuthenticationError as error:
        raise no_token(address, error) from None
