"""Whose a study is, for processes that share a database and no disk.

The lock in a sweep's folder keeps processes of one home apart. Those of two homes, as two drivers
on a cluster have, meet in the study: its holder counts there, again and again. Another process
takes the holder for dead where the count has stood still for ``LEASE_S`` by its own clock; no
clock of another machine is looked at. Before a holder writes, it makes sure that it still is one.
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
"""How long the count of a living holder stands still at most."""
RENEW_S: Final = 5.0
SURE: Final = 0.5
"""For which part of ``LEASE_S`` after a renewal a holder need not ask whether it still is one."""
SOMEBODY: Final = "another process"
WAS: Final = "another process, which has ended or deleted it since"
Say = Callable[[str], Any]


def holder_of(home: Home) -> str:
    """Return what this process calls itself; the lock of its home keeps others of it out."""
    return f"{socket.gethostname()}:{home.folder}"


def lease_of(sweep: str, storage: BaseStorage) -> Lease | None:
    """Return who holds a sweep's study, or held it last; None after a clean end or without one."""
    try:
        return lease_in(LeaseRecord(sweep, storage).read())
    except KeyError:
        return None


def ask_to_stop(sweep: str, storage: BaseStorage, holder: Lease) -> None:
    """Ask the holder of a sweep to end it. A later holder does not take it as its own affair."""
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
) -> Iterator[Holding]:
    """Hold the study of a sweep while the block lasts, waiting for one whose process may have died.

    This process holds the lock of its home; a ``new`` study it has made right now. ``dead`` is what
    ``outlive`` has said before. ``on_stop`` is called when another home asks for the sweep to end.

    Raises:
        SweepError: if another process runs the sweep.
    """
    record = LeaseRecord(sweep, storage)
    with ServerLock(record.engine, sweep) as lock:
        before = None if new else outlive(sweep, storage, by, say, dead=dead)
        last = lease_in(before)
        dead_ones = None if last is None else last.connections
        if not lock.take(dead_ones, lambda: record.read() == before):
            raise running(sweep, record, before)
        holding = Holding(record, by, lock)
        if not holding.take(before):
            raise running(sweep, record, before)
        with _renewed(holding, on_stop):
            yield holding


@contextmanager
def _renewed(holding: Holding, on_stop: Callable[[], Any]) -> Iterator[None]:
    over = threading.Event()
    told = (over, on_stop)
    thread = threading.Thread(target=holding.keep, args=told, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(Exception):  # it runs out by itself
            holding.give_back()


def outlive(
    sweep: str, storage: BaseStorage, by: str, say: Say, *, dead: str | None = None
) -> str | None:
    """Return what a study says of a holder that is dead, or None, once that is sure.

    Of this home's own, whose lock the caller has, it is; of ``dead`` it was said before.

    Raises:
        SweepError: if another process runs the sweep, or makes it.
    """
    vigil = Vigil(sweep, storage)
    seen, lease = vigil.seen, lease_in(vigil.seen)
    ended = lease is None and study_exists(sweep, storage)
    if ended or (lease is not None and (lease.by == by or seen == dead)):
        return seen
    before = "is being made or was left half made" if lease is None else f"was run by {lease.by}"
    say(f"'{sweep}' {before} until now: waiting {LEASE_S:.0f} s to see whether it still is.")
    while vigil.may_live():
        if vigil.moved:
            raise running(sweep, vigil.record)
        time.sleep(min(1.0, RENEW_S / 4))
    return vigil.dead


class Vigil:
    """Looking whether the holder of a study lives, by this process's clock alone."""

    def __init__(self, sweep: str, storage: BaseStorage) -> None:
        self.record = LeaseRecord(sweep, storage)
        self.seen = self.record.read()
        self.dead: str | None = None
        """What the study says of a holder that has died."""
        self.moved = False
        """Whether it was renewed, or taken over, since this began."""
        self._is_whole = partial(study_exists, sweep, storage)
        self._since = time.monotonic()

    def may_live(self) -> bool:
        """Look again: has it neither ended nor been silent for ``LEASE_S``?"""
        # Looked at after the clock, for this process itself may have stood still.
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
    """Remove a sweep's study that was cut off while it was made, once its maker is dead.

    Raises:
        SweepError: if another process makes it now.
    """
    if is_half_made(sweep, storage):
        with leased(sweep, storage, by, say):
            if is_half_made(sweep, storage):
                delete_study(sweep, storage)


def running(sweep: str, record: LeaseRecord, before: str | None = None) -> SweepError:
    """Return that a sweep is another process's; while the study says ``before``, of no name yet."""
    there = record.read()
    lease = lease_in(there)
    by = SOMEBODY if lease is None or there == before else lease.by
    return SweepError(f"'{sweep}' is running now, by {by}. End it first: segan-ray stop {sweep}")


class Holding:
    """A study in the hands of this process, for as long as it is. Any thread may ask."""

    def __init__(self, record: LeaseRecord, by: str, lock: ServerLock) -> None:
        self._record = record
        self._lease = Lease(by, secrets.token_hex(16), connections=lock.name)
        self._text: str | None = None
        self._lock = lock
        self._renewing = threading.Lock()
        self._sure = _clocks()
        self._lost_to: str | None = None

    def take(self, before: str | None) -> bool:
        """Become the holder if the study still says ``before``; tell whether it did."""
        began = _clocks()
        taken = self._record.change(before, self._lease.text)
        self._text, self._sure = self._lease.text, began
        # Or the change was made, and the answer was lost with its connection.
        return taken or self._record.read() == self._text

    def check(self) -> None:
        """Make sure that this process is still the holder, so that it may write.

        Soon after a renewal it is, for others wait longer; else the database is asked first.

        Raises:
            TakenOver: if it is not.
            sqlalchemy.exc.SQLAlchemyError: if the database does not answer.
        """
        if self._lost_to is None and _passed(self._sure) < LEASE_S * SURE:
            return
        self.renew()

    def renew(self) -> None:
        """Count once more.

        Raises:
            TakenOver, sqlalchemy.exc.SQLAlchemyError: as ``check``.
        """
        with self._renewing:
            # Twice, for a change may have been made whose answer was lost with its connection.
            if self._lost_to is not None or not (self._count() or self._count()):
                raise TakenOver(self._record.sweep, self._lost_to or SOMEBODY)

    def keep(self, over: threading.Event, on_stop: Callable[[], Any]) -> None:
        """Count until ``over``, and hear whether another home asks for the sweep to end."""
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
        """Say that nobody holds the study, unless another process does by now."""
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
            self._lost_to = WAS if lease is None else lease.by
        return False


def _clocks() -> tuple[float, ...]:
    """Return what the clocks of this machine say, in seconds.

    One of them stands still while the machine sleeps, one does not, and the third is put right
    after a virtual machine has stood still.
    """
    sleeping = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.monotonic(), time.clock_gettime(sleeping), time.time()


def _passed(since: tuple[float, ...]) -> float:
    """Return how many seconds have passed by the clock that says most: asking more is safe."""
    return max(now - before for now, before in zip(_clocks(), since, strict=True))
