"""Making the records of a moved or copied home name its own files.

MLflow's database holds absolute addresses of artifacts. In a copy they lead to the original's
files, which would be deleted with the copy's records.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from segan_ray.filesystem.locks import is_held
from segan_ray.home import Home
from segan_ray.tracking.outbox import OUTBOX, lock_of

ADDRESSES: Final = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
WAIT_S: Final = 30.0


def is_anothers(home: Home, location: str) -> bool:
    """Tell whether ``location`` is the artifact folder of a home at another path than ``home``."""
    was_a_homes = location.startswith("file://") and location.endswith(f"/{home.artifacts.name}")
    return was_a_homes and location != home.artifacts.as_uri()


def follow_move(home: Home, experiment: str) -> None:
    """Make the home's own database name the artifacts beside it and the stores within it.

    ``experiment`` is the name of the project's experiment. Nothing is changed while a sweep is
    recorded: the home may only look moved through another machine's mount.

    Raises:
        sqlite3.Error: if the database cannot be written.
    """
    here = home.artifacts.as_uri()
    with contextlib.closing(sqlite3.connect(home.tracking_database, timeout=WAIT_S)) as database:
        row = database.execute(
            "SELECT artifact_location FROM experiments WHERE name = ?", (experiment,)
        ).fetchone()
        if row is None or not is_anothers(home, row[0]) or _is_recorded(home):
            return
        with database:
            for table, column in ADDRESSES:
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "  # noqa: S608
                    f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                    (here, len(row[0]) + 1, row[0], len(row[0]) + 1, f"{row[0]}/"),
                )
            _move_stores(database, Path(url2pathname(urlsplit(row[0]).path)).parent, home.folder)


def _move_stores(database: sqlite3.Connection, before: Path, now: Path) -> None:
    """Make the records of stores within the home name their present folders."""
    # tracking/description/facts.py writes such data sets; all others stay as they are.
    ours = "SELECT dataset_uuid, dataset_source FROM datasets WHERE dataset_source_type = 'local'"
    for dataset, source in database.execute(ours).fetchall():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            store = Path(json.loads(source)["uri"]).relative_to(before)
            database.execute(
                "UPDATE datasets SET dataset_source = ? WHERE dataset_uuid = ?",
                (json.dumps({"uri": str(now / store)}), dataset),
            )


def _is_recorded(home: Home) -> bool:
    locks = (lock_of(path) for path in home.sweeps.glob(f"*/{OUTBOX}"))
    # A recorder follows no link to its lock, so a link is held by none.
    return any(is_held(lock) for lock in locks if not lock.is_symlink())
