"""Databases by their URLs: SQLite files made whole, and what is in those of others."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from segan_ray.filesystem.atomic_files import sync_folder

CONNECT_S: Final = 5
SERVERS: Final = ("postgresql", "mysql")


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite file, for SQLAlchemy and for MLflow."""
    if not set("%?#").intersection(str(path)):
        return f"sqlite:///{path}"
    from sqlalchemy import URL

    # Of a URL without the driver's name MLflow would make a folder, escapes and all.
    return URL.create("sqlite+pysqlite", database=str(path)).render_as_string()


def is_database(url: str) -> bool:
    """Tell whether ``url`` is of a database that ``tables_at`` can ask."""
    return url.startswith(("sqlite", *SERVERS))


def tables_at(url: str) -> frozenset[str]:
    """Return the tables of the database at ``url``, none where a file is still to be made.

    To ask first shows at once who does not answer: MLflow would ask for minutes.

    Raises:
        OSError, ImportError, sqlalchemy.exc.SQLAlchemyError: if it does not, within seconds.
    """
    from sqlalchemy import create_engine, inspect, make_url

    address = make_url(url)
    server = address.get_backend_name() in SERVERS
    file = Path(address.database or "").absolute()
    if not server and not (address.database and file.is_file()):
        _check_can_be_made(file)
        return frozenset()
    options = {"connect_timeout": CONNECT_S} if server else {}
    engine = create_engine(address, connect_args=options)
    try:
        return frozenset(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def are_one(url: str, other: str) -> bool:
    """Tell whether two URLs name the same database, whoever asks it and by which driver."""
    from sqlalchemy import make_url

    one, two = (
        (address.get_backend_name(), address.host, address.port, address.database)
        for address in (make_url(url), make_url(other))
    )
    return one == two


def _check_can_be_made(file: Path) -> None:
    there = next(path for path in (file, *file.parents) if path.exists())
    if there != file and not os.access(there, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


def make_sqlite(path: Path, make_tables: Callable[[Path], None]) -> None:
    """Make the SQLite file ``path`` whole or not at all, so that readers never lock its writer.

    ``make_tables`` is given another file to make them in, and leaves no connection open. Who calls
    keeps others from doing the same; what was at ``path`` is replaced.

    Raises:
        OSError, sqlite3.Error: if it cannot be made; and whatever ``make_tables`` raises.
    """
    # An interruption would leave half of the tables in place. Nor does SQLite let anybody wait who
    # changes the mode of a shared file.
    own = path.with_name(f".{path.name}.new")
    _remove_sqlite(own)
    try:
        own.touch()  # SQLite would keep a umask's group from writing
        _run_sqlite(own, "PRAGMA journal_mode = WAL")
        make_tables(own)
        _run_sqlite(own, "PRAGMA wal_checkpoint(TRUNCATE)")
        _remove_sqlite(path)
        os.replace(own, path)
        sync_folder(path.parent)
    finally:
        _remove_sqlite(own)


def _run_sqlite(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(statement)


def _remove_sqlite(path: Path) -> None:
    """Remove a database and what SQLite keeps beside it."""
    for beside in ("-wal", "-shm", "-journal", ""):
        path.with_name(path.name + beside).unlink(missing_ok=True)
