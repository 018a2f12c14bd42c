"""The home's own MLflow database: made as a whole, even after an interruption."""

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
"""The lock file of a process that makes the database."""


def is_writable(home: Home) -> bool:
    """Tell whether this process may write all files that ``connect`` writes in the home."""
    needed = (home.folder, home.tracking_database, home.folder / LOCK)
    return all(os.access(path, os.W_OK) for path in needed if os.path.lexists(path))


def read_only(database: Path) -> str:
    """Return the URI by which SQLite reads a file in a folder that cannot be written."""
    # SQLite shares memory with a writer through a file beside the database. With a write-ahead
    # log that file exists; without a log, "immutable" says that it is not needed.
    log = database.with_name(f"{database.name}-wal")
    way = "mode=ro" if log.is_file() and log.stat().st_size else "mode=ro&immutable=1"
    return f"file:{quote(str(database))}?{way}"


def make_database(home: Home) -> None:
    """Make the database if it is not there, or if an interruption left half of an empty one.

    The caller keeps other processes from doing the same.

    Raises:
        OSError, sqlite3.Error, SQLAlchemyError, MlflowException: if it cannot be made.
    """
    database = home.tracking_database
    if not database.exists() or _is_cut_off(database):
        make_sqlite(database, lambda path: _make_tables(path, home.artifacts))


def _make_tables(path: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    # MLflow makes its tables one by one, and takes half of them for another version's.
    SqlAlchemyStore(sqlite_url(path), artifacts.as_uri()).engine.dispose()


def _is_cut_off(database: Path) -> bool:
    """Tell whether tables are missing and the others hold no record."""
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
