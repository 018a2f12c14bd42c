"""Reading many runs at once, from the home's own database or by MLflow's client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from segan_ray.home import Home
from segan_ray.tracking.reading.run_tags import LoggedPoint, TaggedRun
from segan_ray.tracking.reading.sqlite_reader import sqlite_reader


class Reader(Protocol):
    """Reads the runs of the project's experiment, without deleted ones."""

    def runs(self, tag: str | None = None, value: str = "") -> list[TaggedRun]:
        """Return the runs, or those whose ``tag`` has that value, the latest first."""

    def histories(self, runs: Sequence[str], metric: str) -> dict[str, list[LoggedPoint]]:
        """Return the points of one metric of each of ``runs``, in the order they were logged."""

    def registered(self) -> set[str]:
        """Return the runs of registered versions."""


def open_reader(home: Home) -> Reader:
    """Return the fastest reader of the home's records.

    Importing MLflow takes longer than reading thousands of trials without it.

    Raises:
        TrackingError: if the store cannot be reached.
    """
    return sqlite_reader(home) or _by_client(home)


def _by_client(home: Home) -> Reader:
    from segan_ray.tracking.client.connection import connect_to_read
    from segan_ray.tracking.reading.client_reader import ClientReader

    return ClientReader(connect_to_read(home))
