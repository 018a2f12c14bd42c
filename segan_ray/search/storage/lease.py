"""The lease on a study, for processes that share its database but no disk.

The lock in a sweep's folder keeps processes of one home apart. Processes of several homes, such as
two drivers on a cluster, use a lease in the study, whose count the holder raises again and again.
Another process takes the holder for dead when the count has stood still for ``LEASE_S`` by its own
clock; clocks of two machines are never compared. Before a write, a holder checks its lease.
"""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

from optuna.storages import BaseStorage

from segan_ray.errors import SweepError, TakenOver, said
from segan_ray.home import Home
from segan_ray.search.storage.lease_record import STOP_WANTED, Lease, LeaseRecord, lease_in
from segan_ray.search.storage.server_lock import ServerLock
from segan_ray.search.storage.study_record import delete_study, is_half_made, study_exists

log = logging.getLogger(__name__)

LEASE_S: Final = 60.0
"""A living holder renews its lease within this time."""
RENEW_S: Final = 5.0
SURE: Final = 0.5
"""For this part of ``LEASE_S`` after a renewal, a holder may write without asking the database."""
UNKNOWN_HOLDER: Final = "another process"
FORMER_HOLDER: Final = "another process, which has ended or deleted it since"
Say = Callable[[str], Any]


def holder_of(home: Home) -> str:
    """Return this process's name as a holder: one per home, whose lock keeps others out."""
    return f"{socket.gethostname()}:{home.folder}"


def lease_of(sweep: str, storage: BaseStorage) -> Lease | None:
    """Return the current or last lease of a sweep; None after a clean end or without a study."""
    try:
        return lease_in(LeaseRecord(sweep, storage).read())
    except KeyError:
        return None


def ask_to_stop(sweep: str, storage: BaseStorage, holder: Lease) -> None:
    """Ask the holder of a sweep to end it; a later holder, with another token, ignores this."""
    study = storage.get_study_id_from_name(sweep)
    storage.set_study_user_attr(study, STOP_WANTED, holder.token)


@contextmanager
def leased(
    sweep: str,
    storage: BaseStorage,
    by: str,
    say: Say,
    *,
    new: bool = False,
    dead: str | None = None,
    on_stop: Callable[[], Any] = lambda: None,
) -> Iterator[HeldLease]:
    """Hold the lease of a sweep in the block, after waiting for a holder that may have died.

    The caller holds the lock of its home, and made a ``new`` study itself. ``dead`` is an earlier
    result of ``dead_lease``. ``on_stop`` is called when another home asks the sweep to end.

    Raises:
        SweepError: if another process runs the sweep.
    """
    record = LeaseRecord(sweep, storage)
    with ServerLock(record.engine, sweep) as lock:
        before = None if new else dead_lease(sweep, storage, by, say, dead=dead)
        last = lease_in(before)
        dead_ones = None if last is None else last.connections
        if not lock.take(dead_ones, lambda: record.read() == before):
            raise running(sweep, record, before)
        holding = HeldLease(record, by, lock)
        if not holding.take(before):
            raise running(sweep, record, before)
        with _renewed(holding, on_stop):
            yield holding


@contextmanager
def _renewed(holding: HeldLease, on_stop: Callable[[], Any]) -> Iterator[None]:
    over = threading.Event()
    told = (over, on_stop)
    thread = threading.Thread(target=holding.keep, args=told, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(Exception):  # the lease runs out by itself
            holding.give_back()


def dead_lease(
    sweep: str, storage: BaseStorage, by: str, say: Say, *, dead: str | None = None
) -> str | None:
    """Return the lease of a dead holder as text, once its death is sure; None without a holder.

    A holder of this home is dead, for the caller has its lock; so is the holder of ``dead``.

    Raises:
        SweepError: if another process runs the sweep, or makes it.
    """
    watch = LeaseWatch(sweep, storage)
    seen, lease = watch.seen, lease_in(watch.seen)
    ended = lease is None and study_exists(sweep, storage)
    if ended or (lease is not None and (lease.by == by or seen == dead)):
        return seen
    before = "is being made or was left half made" if lease is None else f"was run by {lease.by}"
    say(f"'{sweep}' {before} until now: waiting {LEASE_S:.0f} s to see whether it still is.")
    while watch.may_live():
        if watch.moved:
            raise running(sweep, watch.record)
        time.sleep(min(1.0, RENEW_S / 4))
    return watch.dead


class LeaseWatch:
    """Watches whether the holder of a study lives, by this process's clock alone."""

    def __init__(self, sweep: str, storage: BaseStorage) -> None:
        self.record = LeaseRecord(sweep, storage)
        self.seen = self.record.read()
        self.dead: str | None = None
        """The lease of a holder that has died, as text."""
        self.moved = False
        """Whether the lease was renewed or taken over since the watch began."""
        self._is_whole = partial(study_exists, sweep, storage)
        self._since = time.monotonic()

    def may_live(self) -> bool:
        """Read the lease; tell whether it has neither ended nor stood still for ``LEASE_S``."""
        # Read after the clock, since this process itself may have stood still.
        late = time.monotonic() - self._since >= LEASE_S
        now = self.record.read()
        if now is None and (self.seen is not None or self._is_whole()):
            return False
        if now != self.seen:
            self.seen, self.moved, self._since = now, True, time.monotonic()
            return True
        self.dead = now if late else None
        return not late


def forget_half_made(sweep: str, storage: BaseStorage, by: str, say: Say) -> None:
    """Remove a half-made study of a sweep, once the process that made it is dead.

    Raises:
        SweepError: if another process makes it now.
    """
    if is_half_made(sweep, storage):
        with leased(sweep, storage, by, say):
            if is_half_made(sweep, storage):
                delete_study(sweep, storage)


def running(sweep: str, record: LeaseRecord, before: str | None = None) -> SweepError:
    """Return the error that another process runs a sweep, unnamed while the lease is ``before``."""
    there = record.read()
    lease = lease_in(there)
    by = UNKNOWN_HOLDER if lease is None or there == before else lease.by
    return SweepError(f"'{sweep}' is running now, by {by}. End it first: segan-ray stop {sweep}")


class HeldLease:
    """The lease of this process on a study. Any thread may call the methods."""

    def __init__(self, record: LeaseRecord, by: str, lock: ServerLock) -> None:
        self._record = record
        self._lease = Lease(by, secrets.token_hex(16), connections=lock.name)
        self._text: str | None = None
        self._lock = lock
        self._renewing = threading.Lock()
        self._sure = _clocks()
        self._lost_to: str | None = None

    def take(self, before: str | None) -> bool:
        """Become the holder if the lease is still ``before``; tell whether that succeeded."""
        began = _clocks()
        taken = self._record.change(before, self._lease.text)
        self._text, self._sure = self._lease.text, began
        # The change may have been made, and its answer lost with the connection.
        return taken or self._record.read() == self._text

    def check(self) -> None:
        """Make sure that this process is still the holder, so that it may write.

        Soon after a renewal it must be, since others wait longer; later it asks the database.

        Raises:
            TakenOver: if it is not.
            sqlalchemy.exc.SQLAlchemyError: if the database does not answer.
        """
        if self._lost_to is None and _passed(self._sure) < LEASE_S * SURE:
            return
        self.renew()

    def renew(self) -> None:
        """Renew the lease.

        Raises:
            TakenOver, sqlalchemy.exc.SQLAlchemyError: as ``check``.
        """
        with self._renewing:
            # Twice, since the first change may have been made and its answer lost.
            if self._lost_to is not None or not (self._count() or self._count()):
                raise TakenOver(self._record.sweep, self._lost_to or UNKNOWN_HOLDER)

    def keep(self, over: threading.Event, on_stop: Callable[[], Any]) -> None:
        """Renew until ``over``; call ``on_stop`` if another home asks the sweep to end."""
        silent = False
        while not over.wait(RENEW_S):
            try:
                self.renew()
                if self._record.stop_wanted_of() == self._lease.token:
                    on_stop()
                silent = False
            except TakenOver:
                return
            except Exception as error:  # every database has errors of its own
                if not silent:
                    log.warning("The study's database does not answer: %s", said(error))
                silent = True

    def give_back(self) -> None:
        """Release the lease, unless another process holds it by now."""
        with self._renewing:
            self._record.change(self._text, None)

    def _count(self) -> bool:
        began = _clocks()
        more = replace(self._lease, renewals=self._lease.renewals + 1)
        if self._record.change(self._text, more.text):
            self._lease, self._text, self._sure = more, more.text, began
            self._lock.keep()
            return True
        there = self._record.read()
        lease = lease_in(there)
        if lease is not None and lease.token == self._lease.token:
            self._lease, self._text = lease, there
        else:
            self._lost_to = FORMER_HOLDER if lease is None else lease.by
        return False


def _clocks() -> tuple[float, ...]:
    """Return the times of three clocks of this machine, in seconds.

    The first stands still while the machine sleeps, the second does not, and the third is corrected
    after a virtual machine was paused.
    """
    sleeping = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.monotonic(), time.clock_gettime(sleeping), time.time()


def _passed(since: tuple[float, ...]) -> float:
    """Return the seconds that passed by the clock that shows most: to ask too often is safe."""
    return max(now - before for now, before in zip(_clocks(), since, strict=True))
