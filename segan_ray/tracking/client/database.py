"""The home's own MLflow database: made whole, whatever interrupts that."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import quote

from segan_ray.databases import make_sqlite, sqlite_url
from segan_ray.home import Home

RECORDS: Final = ("runs", "registered_models")
LOCK: Final = ".mlflow.lock"
"""What a process holds while it makes the database."""


def is_writable(home: Home) -> bool:
    """Tell whether this process may write all that connecting to the home's database writes."""
    needed = (home.folder, home.tracking_database, home.folder / LOCK)
    return all(os.access(path, os.W_OK) for path in needed if os.path.lexists(path))


def read_only(database: Path) -> str:
    """Return the URI by which SQLite reads a file beside which nothing can be written."""
    # Without a log of what was written last, SQLite need not share memory with its writer,
    # which takes a file beside the database. With one, that file is there too.
    log = database.with_name(f"{database.name}-wal")
    way = "mode=ro" if log.is_file() and log.stat().st_size else "mode=ro&immutable=1"
    return f"file:{quote(str(database))}?{way}"


def make_database(home: Home) -> None:
    """Make the database if it is not there, or if an interruption left half of an empty one.

    Who calls keeps others from doing the same.

    Raises:
        OSError, sqlite3.Error, SQLAlchemyError, MlflowException: if it cannot be made.
    """
    database = home.tracking_database
    if not database.exists() or _is_cut_off(database):
        make_sqlite(database, lambda path: _make_tables(path, home.artifacts))


def _make_tables(path: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # MLflow makes them one by one, and takes what it finds of them for another version's.
    SqlAlchemyStore(sqlite_url(path), artifacts.as_uri()).engine.dispose()


def _is_cut_off(database: Path) -> bool:
    """Tell whether tables are missing, and what there is holds no record."""
    with contextlib.closing(
        sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)
    ) as reader:
        rows = reader.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        there = {name for (name,) in rows}
        return not there >= _tables() and not any(
            reader.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()  # noqa: S608
            for table in there.intersection(RECORDS)
        )


def _tables() -> set[str]:
    import mlflow.store.db.utils  # noqa: F401 - tells MLflow's Base of every table
    from mlflow.store.db.base_sql_model import Base

    return set(Base.metadata.tables)
