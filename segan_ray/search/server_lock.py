"""An advisory lock of PostgreSQL beside a lease: held by a connection, which the server can end.

The lease decides. The lock shows who is still connected, and lets a process that takes over cut
off one that stands still, so that nothing of it is under way afterwards. Other databases have no
such locks, nor does every server that speaks PostgreSQL's language.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from segan_ray.databases import CONNECT_S
from segan_ray.errors import SweepError, said

log = logging.getLogger(__name__)

ENDING_S: Final = 10.0
"""How long the server may take to end a connection."""
LIBPQ: Final = ("psycopg", "psycopg2")
# A connection of which nothing is heard is given up by both sides within about a minute.
KEEPALIVES: Final = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10}
TRY: Final = text("SELECT pg_try_advisory_lock(:key)")
ASK: Final = text("SELECT 1")
END: Final = text("SELECT pg_terminate_backend(:pid)")
HOLDERS: Final = text(
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND classid = CAST(:high AS bigint)::oid AND objid = CAST(:low AS bigint)::oid"
)


class ServerLock:
    """The lock of one sweep's study, or nothing where the database has none."""

    def __init__(self, engine: Engine, sweep: str) -> None:
        self._sweep = sweep
        self._key = int.from_bytes(hashlib.sha256(sweep.encode()).digest()[:8], signed=True)
        self._connection: Connection | None = None
        self._engine = _own_engine(engine) if engine.dialect.name == "postgresql" else None
        self._before: frozenset[int] = frozenset()

    def __enter__(self) -> ServerLock:
        """Connect, and note who holds the lock: of these one may have died."""
        if self._engine is not None:
            try:
                self._connection = self._engine.connect()
                self._before = self._holders()
            except SQLAlchemyError as error:
                self._do_without(error)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def take(self, may_end_others: Callable[[], bool]) -> bool:
        """Lock, ending connections that held the lock at first; tell whether that succeeded.

        ``may_end_others`` tells whether it is still sure that their process is dead.

        Raises:
            SweepError: if such a connection cannot be ended.
        """
        try:
            if self._connection is None or self._try():
                return True
            if self._holders() - self._before or not may_end_others():
                return False
            for pid in self._before:
                self._end(pid)
            return self._wait()
        except SQLAlchemyError as error:
            self._do_without(error)
            return True

    def keep(self) -> None:
        """See that the connection is there, and lock again by another where it was cut."""
        if self._engine is None:
            return
        try:
            if self._connection is not None:
                self._connection.execute(ASK)
                return
            self._connection = self._engine.connect()
            self._try()
        except SQLAlchemyError as error:
            log.info("The lock on the study of '%s' was cut: %s", self._sweep, said(error))
            self._close()

    def _try(self) -> bool:
        assert self._connection is not None
        return bool(self._connection.execute(TRY, {"key": self._key}).scalar())

    def _holders(self) -> frozenset[int]:
        assert self._connection is not None
        unsigned = self._key % 2**64
        parts = {"high": unsigned >> 32, "low": unsigned % 2**32}
        return frozenset(self._connection.execute(HOLDERS, parts).scalars())

    def _end(self, pid: int) -> None:
        assert self._connection is not None
        try:
            self._connection.execute(END, {"pid": pid})
        except DBAPIError as error:
            raise SweepError(
                f"'{self._sweep}' has not been heard of, but its process is still connected to "
                f"the database, and you may not end that ({said(error)}). Have the owner of the "
                f"database do it: SELECT pg_terminate_backend({pid})"
            ) from None

    def _wait(self) -> bool:
        deadline = time.monotonic() + ENDING_S
        while not self._try():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        return True

    def _do_without(self, error: SQLAlchemyError) -> None:
        log.info("No lock beside the lease of '%s': %s", self._sweep, said(error))
        self._close()
        self._engine = None

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except SQLAlchemyError as error:
                log.info("The lock on the study of '%s': %s", self._sweep, said(error))


def _own_engine(engine: Engine) -> Engine:
    """Return an engine for one connection, which stays open and in no transaction."""
    options: dict[str, Any] = {}
    if engine.dialect.driver in LIBPQ:
        options = {"connect_timeout": CONNECT_S, **KEEPALIVES}
    return create_engine(
        engine.url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=options
    )
