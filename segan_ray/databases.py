"""Databases by their URLs: making whole SQLite files, and listing the tables of a database."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from segan_ray.extras import not_installed
from segan_ray.filesystem.atomic_files import sync_path

CONNECT_S: Final = 5
SERVERS: Final = ("postgresql", "mysql")
LIBPQ: Final = ("psycopg", "psycopg2")
"""The drivers of PostgreSQL that the extra ``postgres`` brings."""


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite file, for SQLAlchemy and for MLflow."""
    if not set("%?#").intersection(str(path)):
        return f"sqlite:///{path}"
    from sqlalchemy import URL

    # Without the driver's name MLflow would make a folder of the URL, escapes and all.
    return URL.create("sqlite+pysqlite", database=str(path)).render_as_string()


def is_database(url: str) -> bool:
    """Tell whether ``url`` is of a database whose tables ``tables_at`` can list."""
    return url.startswith(("sqlite", *SERVERS))


def tables_at(url: str) -> frozenset[str]:
    """Return the tables of the database at ``url``, none if its file does not exist yet.

    This shows within seconds that a server does not answer; MLflow would try for minutes.

    Raises:
        NotInstalledError: if PostgreSQL's driver is missing.
        OSError, ImportError, sqlalchemy.exc.SQLAlchemyError: if the database cannot be used.
    """
    from sqlalchemy import create_engine, inspect, make_url

    address = make_url(url)
    server = address.get_backend_name() in SERVERS
    file = Path(address.database or "").absolute()
    if not server and not (address.database and file.is_file()):
        _check_can_be_made(file)
        return frozenset()
    options = {"connect_timeout": CONNECT_S} if server else {}
    try:
        engine = create_engine(address, connect_args=options)
    except ModuleNotFoundError as error:
        if error.name not in LIBPQ:
            raise
        raise not_installed("A PostgreSQL database", "postgres", error.name) from None
    try:
        return frozenset(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def are_one(url: str, other: str) -> bool:
    """Tell whether two URLs name the same database, by whichever user and driver."""
    from sqlalchemy import make_url

    first, second = (
        (address.get_backend_name(), address.host, address.port, address.database)
        for address in (make_url(url), make_url(other))
    )
    return first == second


def _check_can_be_made(file: Path) -> None:
    nearest = next(path for path in (file, *file.parents) if path.exists())
    if nearest != file and not os.access(nearest, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(nearest))


def make_sqlite(path: Path, make_tables: Callable[[Path], None]) -> None:
    """Make the SQLite file ``path`` whole or not at all, in WAL mode: readers never lock a writer.

    ``make_tables`` makes the tables in another file, and leaves no connection open. The caller
    keeps other processes from doing the same. A file that was at ``path`` is replaced.

    Raises:
        OSError, sqlite3.Error: if it cannot be made; and the errors of ``make_tables``.
    """
    # In place, an interruption would leave half of the tables, and SQLite would not wait for other
    # connections before it changes the mode of a shared file.
    own = path.with_name(f".{path.name}.new")
    _remove_sqlite(own)
    try:
        own.touch()  # SQLite's own mode ignores a umask by which the group may write
        _run_sqlite(own, "PRAGMA journal_mode = WAL")
        make_tables(own)
        _run_sqlite(own, "PRAGMA wal_checkpoint(TRUNCATE)")
        _remove_sqlite(path)
        os.replace(own, path)
        sync_path(path.parent)
    finally:
        _remove_sqlite(own)


def _run_sqlite(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(statement)


def _remove_sqlite(path: Path) -> None:
    """Remove a database and the files that SQLite keeps beside it."""
    for beside in ("-wal", "-shm", "-journal", ""):
        path.with_name(path.name + beside).unlink(missing_ok=True)
