"""An advisory lock of PostgreSQL beside a lease, held by a connection that the server can end.

The lease decides who is the holder. The lock shows that a holder is still connected. A process
that takes over can end the connections of a holder that stands still, with their transactions.
Other databases have no such locks, nor does every server that speaks PostgreSQL's protocol.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from sqlalchemy import Connection, Engine, NullPool, create_engine, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from segan_ray.databases import CONNECT_S, LIBPQ
from segan_ray.errors import SweepError, said

log = logging.getLogger(__name__)

ENDING_S: Final = 10.0
"""How long the server may take to end connections."""
OURS: Final = "segan-ray "
"""The prefix of our connections' names; all connections of a storage share one name."""
MOST_OF_A_NAME: Final = 63
"""PostgreSQL cuts longer names."""
# Both sides give up a silent connection within about a minute.
KEEPALIVES: Final = {"keepalives": 1, "keepalives_idle": 30, "keepalives_interval": 10}
TRY: Final = text("SELECT pg_try_advisory_lock(:key)")
ASK: Final = text("SELECT 1")
END: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = "
)
REFUSED: Final = "42501"
"""PostgreSQL's code of a missing right."""


def named_connections(url: str) -> str:
    """Return ``url`` with a name for its connections that no other process gives to its own."""
    address = make_url(url)
    if address.get_backend_name() != "postgresql" or address.get_driver_name() not in LIBPQ:
        return url
    given = address.query.get("application_name", "")
    name = f"{OURS}{secrets.token_hex(8)} {given}".strip()[:MOST_OF_A_NAME]
    named = address.update_query_dict({"application_name": name})
    return named.render_as_string(hide_password=False)


def name_of(engine: Engine) -> str | None:
    """Return the name of an engine's connections, or None if it is not one of ours."""
    name = engine.url.query.get("application_name")
    return name if isinstance(name, str) and name.startswith(OURS) else None


class ServerLock:
    """The lock of one sweep's study; it does nothing where the database has no such locks."""

    def __init__(self, engine: Engine, sweep: str) -> None:
        self._sweep = sweep
        self._key = int.from_bytes(hashlib.sha256(sweep.encode()).digest()[:8], signed=True)
        self._connection: Connection | None = None
        self._locked = False
        self.name = name_of(engine)
        """The name of all connections of its holder."""
        self._engine = None if self.name is None else _own_engine(engine)

    def __enter__(self) -> ServerLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def take(self, dead: str | None, is_free: Callable[[], bool]) -> bool:
        """Lock, ending the connections called ``dead`` if need be; tell whether that succeeded.

        ``is_free`` tells whether the lease may still be taken.

        Raises:
            SweepError: if those connections cannot be ended.
        """
        if self._engine is None:
            return True
        try:
            self._connection = self._engine.connect()
            if self._try():
                return True
            if dead is not None and is_free():
                self._end(dead)
            return self._wait(is_free)
        except SQLAlchemyError as error:
            log.info("No lock beside the lease of '%s': %s", self._sweep, said(error))
            self._close()
            return True

    def keep(self) -> None:
        """Check the connection; if it was cut, connect and lock again."""
        if self._engine is None:
            return
        try:
            if self._connection is None:
                self._connection = self._engine.connect()
            # A connection that was cut may still hold the lock for a moment.
            if self._locked:
                self._connection.execute(ASK)
            else:
                self._try()
        except SQLAlchemyError as error:
            log.info("The lock on the study of '%s' was cut: %s", self._sweep, said(error))
            self._close()

    def _try(self) -> bool:
        assert self._connection is not None
        self._locked = bool(self._connection.execute(TRY, {"key": self._key}).scalar())
        return self._locked

    def _end(self, name: str) -> None:
        assert self._connection is not None
        try:
            self._connection.execute(text(f"{END}:name"), {"name": name})
        except DBAPIError as error:
            # The two drivers name this attribute differently.
            codes = (getattr(error.orig, each, None) for each in ("pgcode", "sqlstate"))
            if REFUSED not in codes:
                raise
            raise SweepError(
                f"'{self._sweep}' has not been heard of, but its process is still connected to "
                f"the database, and you may not end that ({said(error)}). Have the owner of the "
                f"database do it: {END}'{name}'"
            ) from None

    def _wait(self, is_free: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + ENDING_S
        while not self._try():
            if time.monotonic() >= deadline or not is_free():
                return False
            time.sleep(0.05)
        return True

    def _close(self) -> None:
        connection, self._connection, self._locked = self._connection, None, False
        if connection is not None:
            try:
                connection.close()
            except SQLAlchemyError as error:
                log.info("The lock on the study of '%s': %s", self._sweep, said(error))


def _own_engine(engine: Engine) -> Engine:
    """Return an engine for one connection, which stays open and in no transaction."""
    options: dict[str, Any] = {"connect_timeout": CONNECT_S, **KEEPALIVES}
    return create_engine(
        engine.url, poolclass=NullPool, isolation_level="AUTOCOMMIT", connect_args=options
    )
