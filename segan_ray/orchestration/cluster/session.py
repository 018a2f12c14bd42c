"""Joining a Ray cluster, or starting one on this machine for the time of a command."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

SETTINGS: Final = {
    # No anonymous statistics leave the machine.
    "RAY_USAGE_STATS_ENABLED": "0",
    # Newer behaviour that Ray otherwise warns of at every start.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Our tracking records trials; Ray's own CSV, JSON and TensorBoard files would double it.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # A sweep answers Ctrl-C itself: Tune would end its trials as if they were done.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # How many lanes may be on their way at once; with one, which is what Tune has for searchers, a
    # lane that becomes free is given to the trial that waits for its own, and that one is ended.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",
    # Ray would send the whole folder to its workers where the command was begun by "uv run".
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # How soon the controller sees a report or the end of training, in seconds.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}

ALWAYS: Final = {
    # What our trainables are made for, whatever somebody set for other programs of theirs.
    "RAY_TRAIN_V2_ENABLED": "1",
    # The newer of Tune's two printers ignores verbose=0; we print ourselves.
    "RAY_AIR_NEW_OUTPUT": "0",
}
ON_LOOPBACK: Final = {
    # Everything a cluster of our own starts listens on loopback alone (Ray has this switch for
    # desktop systems; without it, sockets are open to the network). It counts whatever somebody
    # set for clusters of theirs.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
LOCAL_SETTINGS: Final = {
    # When the process of a sweep is killed, its cluster goes, and nobody is to wait for its return.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    # Nobody takes this machine away with notice, and each watcher is a process of its own.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}
OBJECT_STORE_BYTES: Final = 256 * 2**20
"""Nothing large goes through Ray's object store: slices are memory-mapped, checkpoints files."""

TOKEN: Final = secrets.token_hex(32)
"""Of the clusters that this process starts; Ray would write one where others can read it."""

_local = os.environ.get("RAY_ADDRESS", "") in ("", "local")
for _name, _value in {**SETTINGS, **(LOCAL_SETTINGS if _local else {})}.items():
    os.environ.setdefault(_name, _value)
os.environ.update({**ALWAYS, **(ON_LOOPBACK if _local else {})})

import ray
from ray.exceptions import AuthenticationError

from segan_ray.errors import SweepError, said
from segan_ray.orchestration.cluster.address import (
    check_cluster,
    check_reachable,
    no_token,
    nobody_answers,
)
from segan_ray.orchestration.cluster.cluster_folder import cluster_folder, parent_folder

log = logging.getLogger(__name__)


def joined() -> bool:
    """Tell whether this process works on a cluster that others started, which may grow."""
    return not _local


@contextmanager
def ray_session() -> Iterator[None]:
    """Connect to ``RAY_ADDRESS``, or run a cluster of this machine's cores on loopback."""
    if ray.is_initialized():
        yield
        return
    with ExitStack() as ends:
        if _local:
            with _said_in_words():
                folder = ends.enter_context(cluster_folder())
                ends.callback(ray.shutdown)
                _start_own_cluster(folder)
        else:
            ends.callback(ray.shutdown)
            _join_cluster()
        _keep_stdout_ours()
        yield


def _keep_stdout_ours() -> None:
    """Log what Ray prints, on stdout of all places, when a process of its died.

    What became of the trial is told by us; Ray has no setting for this.
    """
    from ray._private import worker

    def log_lines(data: dict[str, Any], *_: Any, **__: Any) -> None:
        log.debug("%s: %s", data.get("pid"), " ".join(data.get("lines", ())))

    worker.print_to_stdstream = log_lines


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


def _start_own_cluster(folder: Path) -> None:
    """Start a cluster of this machine's cores, not one that happens to run here already.

    Whatever its processes write is in ``folder``, and so is what they leave when they are killed.
    They are told its address: Ray Train's cleaner of placement groups looks for "the" cluster of
    the machine, and where two run it finds neither and releases nothing. They are told its token
    too, by which Ray asks every caller for it, whatever somebody set for other clusters.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = {
        "RAY_GCS_SERVER_PORT": str(port),
        "RAY_ADDRESS": f"127.0.0.1:{port}",
        "RAY_AUTH_TOKEN": TOKEN,
        "TMPDIR": str(folder),
    }
    before = {name: os.environ.pop(name, None) for name in (*told, "RAY_AUTH_MODE")}
    os.environ.update(told)
    try:
        ray.init(
            address="local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES,
            # A folder within, for Ray lets everybody write to this one.
            _temp_dir=str(folder / "r"),
        )
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _join_cluster() -> None:
    address = os.environ["RAY_ADDRESS"]
    check_reachable()
    if address != "auto":
        check_cluster(address)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError:
        raise nobody_answers(address) from None
    except AuthenticationError as error:
        raise no_token(address, error) from None
