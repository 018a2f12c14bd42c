"""Collecting what a report shows of a sweep."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from segan_ray.data.places import place_name
from segan_ray.evaluation.report import SweepReport
from segan_ray.home import Home
from segan_ray.search.ranking import SweepRecord
from segan_ray.tracking.client import connect, version_tags
from segan_ray.tracking.evaluate import latest_evaluation
from segan_ray.tracking.sweeps import histories, read_space, read_sweep, store_place


def collect_report(home: Home, sweep: str) -> SweepReport:
    """Read everything a report of ``sweep`` shows out of MLflow.

    Raises:
        SweepError: if no sweep has that name.
    """
    record = read_sweep(home, sweep)
    return SweepReport(
        sweep=record,
        space=read_space(home, sweep),
        histories=histories(home, record, record.metric),
        overlay_png=_overlay(home, record),
        evaluation=latest_evaluation(home, sweep),
        provenance=_provenance(home, record),
    )


def _overlay(home: Home, record: SweepRecord) -> bytes | None:
    if record.best is None:
        return None
    mlflow.set_tracking_uri(home.tracking_uri)
    with tempfile.TemporaryDirectory() as into, contextlib.suppress(MlflowException, OSError):
        uri = f"runs:/{record.best.mlflow_run}/overlays/validation.png"
        return Path(mlflow.artifacts.download_artifacts(uri, dst_path=into)).read_bytes()
    return None


def _provenance(home: Home, record: SweepRecord) -> dict[str, str]:
    store = place_name(store_place(home, record.sweep))
    tags = {}
    if record.best is not None:
        tags = connect(home).get_run(record.best.mlflow_run).data.tags
    versions = {
        name.removeprefix("segan.version."): tags.get(name, now)
        for name, now in version_tags().items()
    }
    return {
        "Store": f"{store}, fingerprint {record.store}",
        "Versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "Commit": tags.get("mlflow.source.git.commit", "not a git checkout"),
        "To reproduce": f"segan-ray tune {store} --space space.yaml --trials {len(record.trials)}",
    }
