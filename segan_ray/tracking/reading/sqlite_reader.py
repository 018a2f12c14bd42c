"""Reading many runs from the home's own database, without MLflow.

MLflow takes seconds to be imported, and loads all parameters and metrics of each run that it lists.
This module reads the schemas in ``SCHEMAS`` and writes nothing. Any other database is MLflow's to
make, migrate or refuse.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from segan_ray.errors import TrackingError, said
from segan_ray.home import Home, mend_database
from segan_ray.tracking import tag_names
from segan_ray.tracking.client.database import is_writable, read_only
from segan_ray.tracking.client.moved import WAIT_S, is_anothers
from segan_ray.tracking.reading.run_tags import READ, LoggedPoint, TaggedRun

SCHEMAS: Final = frozenset({"dc11669786a5"})
"""The revisions of MLflow's schema, by Alembic's names, that the queries below fit."""
AT_ONCE: Final = 500
"""Runs of one query; SQLite takes a limited number of values."""
RUNS: Final = """
    SELECT runs.run_uuid, start_time, key, value FROM runs
    LEFT JOIN tags ON tags.run_uuid = runs.run_uuid AND key IN {read}
    WHERE experiment_id = ? AND lifecycle_stage = 'active' {only}
    ORDER BY start_time DESC, runs.run_uuid
"""
WITH_TAG: Final = "AND runs.run_uuid IN (SELECT run_uuid FROM tags WHERE key = ? AND value = ?)"
POINTS: Final = """
    SELECT run_uuid, step, value, is_nan, timestamp FROM metrics
    WHERE key = ? AND run_uuid IN {runs}
    ORDER BY run_uuid, timestamp, step, value
"""
REGISTERED: Final = """
    SELECT DISTINCT run_id FROM model_versions WHERE current_stage != 'Deleted_Internal'
"""


@dataclass(frozen=True)
class SqliteReader:
    """Reads the runs of one experiment from the database of a home."""

    home: Home
    uri: str
    experiment: int

    def runs(self, tag: str | None = None, value: str = "") -> list[TaggedRun]:
        """Return the runs, or those whose ``tag`` has that value, the latest first.

        Raises:
            TrackingError: if the database cannot be read.
        """
        only = () if tag is None else (tag, value)
        query = RUNS.format(read=_places(READ), only=WITH_TAG if only else "")
        runs: dict[str, TaggedRun] = {}
        tags: dict[str, dict[str, str]] = {}
        for run, start_ms, key, text in self._rows(query, (*READ, self.experiment, *only)):
            if run not in runs:
                runs[run] = TaggedRun(run, start_ms, tags.setdefault(run, {}))
            if text is not None:
                tags[run][key] = str(text)
        return list(runs.values())

    def histories(self, runs: Sequence[str], metric: str) -> dict[str, list[LoggedPoint]]:
        """Return the points of one metric of each of ``runs``, in the order they were logged.

        Raises:
            TrackingError: if the database cannot be read.
        """
        histories: dict[str, list[LoggedPoint]] = {run: [] for run in runs}
        for start in range(0, len(runs), AT_ONCE):
            some = runs[start : start + AT_ONCE]
            query = POINTS.format(runs=_places(some))
            for run, step, value, is_nan, at_ms in self._rows(query, (metric, *some)):
                histories[run].append(LoggedPoint(step, math.nan if is_nan else value, at_ms))
        return histories

    def registered(self) -> set[str]:
        """Return the runs of registered versions.

        Raises:
            TrackingError: if the database cannot be read.
        """
        return {str(run) for (run,) in self._rows(REGISTERED, ())}

    def _rows(self, query: str, values: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        try:
            with _opened(self.uri) as database:
                yield from database.execute(query, values)
        except sqlite3.Error as error:
            reason = said(error)
            raise TrackingError(
                f"MLflow at {self.home.tracking_database} cannot be used ({reason}).\n"
                f"{mend_database(reason)}"
            ) from None


def sqlite_reader(home: Home) -> SqliteReader | None:
    """Return a reader of the home's own database, or None where MLflow's client must read.

    That is so for records elsewhere, for a database or experiment that is not made yet, was deleted
    or came from a moved home, and for any other schema.
    """
    database = home.tracking_database
    if not home.tracks_itself or not database.is_file():
        return None
    uri = database.as_uri() if is_writable(home) else read_only(database)
    query = "SELECT experiment_id, artifact_location, lifecycle_stage FROM experiments WHERE name=?"
    with contextlib.suppress(sqlite3.Error), _opened(uri) as opened:
        schemas = {revision for (revision,) in opened.execute("SELECT * FROM alembic_version")}
        if len(schemas) == 1 and schemas <= SCHEMAS:
            rows = opened.execute(query, (tag_names.EXPERIMENT,)).fetchall()
            if len(rows) == 1 and rows[0][2] == "active" and not is_anothers(home, rows[0][1]):
                return SqliteReader(home, uri, rows[0][0])
    return None


@contextlib.contextmanager
def _opened(uri: str) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(uri, WAIT_S, uri=True)) as database:
        database.execute("PRAGMA query_only = ON")
        # The recorder writes text. A tag of other bytes must not fail the whole listing.
        database.text_factory = lambda content: content.decode(errors="replace")
        yield database


def _places(values: Sequence[str]) -> str:
    return f"({', '.join('?' * len(values))})"
