"""Reading many runs at once, from the home's own database or by MLflow's client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from segan_ray.home import Home
from segan_ray.tracking.reading.run_tags import TaggedRun
from segan_ray.tracking.reading.sqlite_reader import sqlite_reader

Histories = dict[str, list[tuple[int, float]]]


class Reader(Protocol):
    """Reads the runs of the project's experiment, without deleted ones."""

    def runs(self, tag: str | None = None, value: str = "") -> list[TaggedRun]:
        """Return the runs, or those whose ``tag`` has that value, the latest first."""

    def histories(self, runs: Sequence[str], metric: str) -> Histories:
        """Return ``{run: [(step, value), …]}`` of one metric, in the order it was logged."""

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
