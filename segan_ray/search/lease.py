"""Whose a study is, for processes that share a database and no disk.

The lock in a sweep's folder keeps processes of one home apart. Those of two homes, as two drivers
on a cluster have, meet in the study: who runs the sweep says so there, again and again.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import optuna
from optuna.storages import BaseStorage

from segan_ray.errors import SweepError, said
from segan_ray.home import Home

log = logging.getLogger(__name__)

HELD: Final = "held"
LEASE_S: Final = 60.0
"""How long after its last word a process is taken for dead."""
RENEW_S: Final = 15.0
SETTLE_S: Final = 1.0
"""Two processes that take over at once both look again after this: the later one has it."""


@dataclass(frozen=True)
class Lease:
    """Who runs a sweep, and until when (s since 1970) unless it says so again."""

    by: str
    until: float


def holder_of(home: Home) -> str:
    """Return what this process calls itself; the lock of its home keeps others of it out."""
    return f"{socket.gethostname()}:{home.folder}"


@contextmanager
def leased(sweep: str, storage: BaseStorage, by: str, say: Callable[[str], Any]) -> Iterator[None]:
    """Hold the study of a sweep while the block lasts, waiting for one whose process may have died.

    Raises:
        SweepError: if another process runs the sweep.
    """
    study = optuna.load_study(study_name=sweep, storage=storage)
    _take(study, by, say)
    over = threading.Event()
    thread = threading.Thread(target=_renew, args=(study, by, over), name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(Exception):  # it runs out by itself
            study.set_user_attr(HELD, None)


def lease_of(study: optuna.Study) -> Lease | None:
    """Return who holds a study, or held it last; None after a clean end."""
    held = study.user_attrs.get(HELD)
    return None if held is None else Lease(held["by"], held["until"])


def _take(study: optuna.Study, by: str, say: Callable[[str], Any]) -> None:
    other = _other(study, by)
    if other is not None:
        _outwait(study, other, say)
        _write(study, by)
        time.sleep(SETTLE_S)
        other = _other(study, by)
        if other is not None:
            raise SweepError(_running(study, other))
    _write(study, by)


def _outwait(study: optuna.Study, other: Lease, say: Callable[[str], Any]) -> None:
    left = other.until - time.time()
    say(
        f"'{study.study_name}' was run by {other.by} until now: waiting {left:.0f} s to see "
        "whether it still is."
    )
    while time.time() < other.until:
        time.sleep(min(1.0, RENEW_S / 4))
        now = lease_of(study)
        if now is not None and now.until > other.until:
            raise SweepError(_running(study, now))
        if now is None:
            return


def _running(study: optuna.Study, other: Lease) -> str:
    return (
        f"'{study.study_name}' is running now, by {other.by}. End it there, or choose another "
        "--name."
    )


def _other(study: optuna.Study, by: str) -> Lease | None:
    held = lease_of(study)
    return held if held is not None and held.by != by and held.until > time.time() else None


def _write(study: optuna.Study, by: str) -> None:
    study.set_user_attr(HELD, {"by": by, "until": time.time() + LEASE_S})


def _renew(study: optuna.Study, by: str, over: threading.Event) -> None:
    while not over.wait(RENEW_S):
        try:
            _write(study, by)
        except Exception as error:  # every database has errors of its own
            log.warning("The study's database does not answer: %s", said(error))
