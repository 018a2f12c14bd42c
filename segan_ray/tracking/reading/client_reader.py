"""Reading many runs by MLflow's client, from servers and from databases of any schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from mlflow import MlflowClient

from segan_ray.tracking.client.connection import search
from segan_ray.tracking.client.retries import said_in_words
from segan_ray.tracking.reading.run_tags import LoggedPoint, TaggedRun, tagged

AT_ONCE: Final = 500
"""Runs of one query; databases take a limited number of values."""
MOST_POINTS: Final = 10**9
REQUESTS: Final = 8
"""Requests to a server at the same time."""


@dataclass(frozen=True)
class ClientReader:
    """Reads runs with one search, and metrics with one query for many runs where MLflow has one."""

    client: MlflowClient

    def runs(self, tag: str | None = None, value: str = "") -> list[TaggedRun]:
        """Return the runs, or those whose ``tag`` has that value, the latest first.

        Raises:
            TrackingError: if MLflow cannot be read.
        """
        with said_in_words(self.client):
            query = "" if tag is None else f"tags.`{tag}` = '{value}'"
            return [tagged(run) for run in search(self.client, query)]

    def histories(self, runs: Sequence[str], metric: str) -> dict[str, list[LoggedPoint]]:
        """Return the points of one metric of each of ``runs``, in the order they were logged.

        Raises:
            TrackingError: if MLflow cannot be read.
        """
        histories: dict[str, list[LoggedPoint]] = {run: [] for run in runs}
        with said_in_words(self.client):
            for run, point in self._points(runs, metric):
                histories[run].append(LoggedPoint(point.step, point.value, point.timestamp))
        return histories

    def registered(self) -> set[str]:
        """Return the runs of registered versions.

        Raises:
            TrackingError: if MLflow cannot be read.
        """
        runs: set[str] = set()
        token: str | None = None
        with said_in_words(self.client):
            while True:
                page = self.client.search_model_versions(page_token=token)
                runs |= {str(version.run_id) for version in page}
                token = page.token
                if not token:
                    return runs

    def _points(self, runs: Sequence[str], metric: str) -> Iterator[tuple[str, Any]]:
        # The public client reads the metrics of one run per call.
        store = self.client._tracking_client.store  # noqa: SLF001
        if hasattr(store, "get_metric_history_bulk"):
            for start in range(0, len(runs), AT_ONCE):
                some = list(runs[start : start + AT_ONCE])
                for point in store.get_metric_history_bulk(some, metric, MOST_POINTS):
                    yield point.run_id, point
            return
        # A server takes one run per request.
        with ThreadPoolExecutor(REQUESTS) as requests:
            each = requests.map(lambda run: self.client.get_metric_history(run, metric), runs)
            for run, points in zip(runs, each, strict=True):
                for point in points:
                    yield run, point
