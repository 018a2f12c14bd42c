"""The database of Optuna's studies: the home's own SQLite file, or what OPTUNA_STORAGE names."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Final

import optuna
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy.exc import SQLAlchemyError

from segan_ray.databases import are_one, is_database, make_sqlite, sqlite_url, tables_at
from segan_ray.errors import SweepError, said
from segan_ray.filesystem import locks
from segan_ray.filesystem.atomic_files import writing
from segan_ray.home import OPTUNA_STORAGE, OTHER_HOME, TRACKING_URI, Home, mend_database
from segan_ray.redaction import mask
from segan_ray.search.storage.server_lock import named_connections

PAUSES_S: Final = (0.2, 1.0)
MLFLOW_TABLES: Final = frozenset({"experiments", "runs"})
OPTUNA_TABLES: Final = frozenset({"studies", "trials"})
Storage = BaseStorage
"""What ``open_storage`` returns, for packages that do not import Optuna."""
WAIT_S: Final = 120.0
"""How long to wait for another process that writes, or makes the tables."""


def studies_location(home: Home) -> str:
    """Return where all studies are, for people."""
    return mask(os.environ.get(OPTUNA_STORAGE) or str(home.studies))


def open_storage(home: Home) -> BaseStorage:
    """Return the storage of all studies, making the home's own if need be.

    Raises:
        SweepError: if it cannot be used, with the reason.
    """
    # Keep Optuna from printing its storage, and that multivariate TPE is experimental.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = os.environ.get(OPTUNA_STORAGE)
    try:
        return _shared(url) if url else _own(home)
    # Optuna raises RuntimeError for tables of another version.
    except (OSError, ImportError, RuntimeError, sqlite3.Error, SQLAlchemyError) as error:
        where = f"{OPTUNA_STORAGE}={mask(url)}" if url else str(home.studies)
        reason = mask(said(error))
        mend = f"Correct {OPTUNA_STORAGE}, or unset it to use the home's."
        raise SweepError(
            f"{where}: the studies of sweeps cannot be read ({reason}). "
            f"{mend if url else mend_database(reason)}"
        ) from None


def _shared(url: str) -> BaseStorage:
    """Return the storage at a URL, tried again, since only one process can make its tables."""
    if is_database(url):
        _refuse_mlflows(url)
        url = named_connections(url)
    for pause_s in PAUSES_S:
        try:
            return get_storage(url)
        except SQLAlchemyError:
            time.sleep(pause_s)
    return get_storage(url)


def _refuse_mlflows(url: str) -> None:
    """Make sure that the database is not MLflow's: both keep a table of the same name."""
    tracking = os.environ.get(TRACKING_URI, "")
    shared = is_database(tracking) and are_one(url, tracking)
    tables = tables_at(url)
    if shared or (tables >= MLFLOW_TABLES and OPTUNA_TABLES.isdisjoint(tables)):
        raise SweepError(
            f"{OPTUNA_STORAGE}={mask(url)} is MLflow's database. Optuna needs one of its own: make "
            "another on the same server, and name that."
        )


def _own(home: Home) -> BaseStorage:
    with writing(home.folder, OTHER_HOME):
        home.folder.mkdir(parents=True, exist_ok=True)
        # Of two processes that make the tables at once, each would fail on the other's.
        handle = _lock(home.folder / ".optuna.lock")
    try:
        if not home.studies.exists():
            make_sqlite(home.studies, _make_tables)
        wait = {"connect_args": {"timeout": WAIT_S}}
        return get_storage(RDBStorage(_url(home.studies), engine_kwargs=wait))
    finally:
        locks.release(handle)


def _make_tables(path: Path) -> None:
    RDBStorage(_url(path)).engine.dispose()


def _url(path: Path) -> str:
    # Optuna would replace text in braces.
    return sqlite_url(path).replace("{", "{{").replace("}", "}}")


def _lock(path: Path) -> int:
    handle = locks.acquire(path, wait_s=WAIT_S)
    if handle is None:
        raise SweepError(f"{path}: {locks.holder(path)} has been making the database for long.")
    return handle
