"""Collecting the content of a sweep's report from MLflow."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from segan_ray.documents import DocumentError, parse_json
from segan_ray.errors import SweepError
from segan_ray.evaluation.report import Promoted, SweepReport
from segan_ray.filesystem.locations import location_name
from segan_ray.home import Home
from segan_ray.search.results.ranking import SweepRecord
from segan_ray.tracking import tag_names
from segan_ray.tracking.client.connection import connect_to_read, version_tags
from segan_ray.tracking.reading.evaluations import Score, latest_evaluation
from segan_ray.tracking.reading.sweeps import (
    Note,
    histories,
    ignore_note,
    own_run,
    read_space,
    read_sweep,
    store_location,
)
from segan_ray.tracking.registry.model_versions import MODEL, aliases
from segan_ray.workflows.case_pictures import read_showcase


def collect_report(home: Home, sweep: str, on_note: Note = ignore_note) -> SweepReport:
    """Return the content of the report of ``sweep``, read from MLflow.

    ``on_note`` is told of each run that is left out, since it is not as segan-ray writes them.

    Raises:
        SweepError: if no sweep has that name.
    """
    record = read_sweep(home, sweep, on_note)
    client = connect_to_read(home)
    evaluation = latest_evaluation(home, sweep, on_note)
    showcase = {} if evaluation is None else _showcase(client, evaluation["run"])
    return SweepReport(
        sweep=record,
        space=recorded_space(home, sweep),
        histories=histories(home, record, record.metric),
        overlay_png=None if showcase else _overlay(client, record),
        evaluation=evaluation,
        provenance=_provenance(home, record),
        showcase=showcase,
        promoted=_promoted(client, sweep),
    )


def recorded_space(home: Home, sweep: str) -> str:
    """Return the text of the space file, empty while or where it is not recorded."""
    with contextlib.suppress(MlflowException, OSError, UnicodeDecodeError):
        return read_space(home, sweep)
    return ""


def _showcase(client: MlflowClient, run: str) -> dict[str, bytes]:
    with contextlib.suppress(MlflowException, OSError):
        return read_showcase(client, run)
    return {}


def _overlay(client: MlflowClient, record: SweepRecord) -> bytes | None:
    if record.best is None:
        return None
    with tempfile.TemporaryDirectory() as into, contextlib.suppress(MlflowException, OSError):
        uri = f"runs:/{record.best.mlflow_run}/overlays/validation.png"
        picture = mlflow.artifacts.download_artifacts(
            uri, dst_path=into, tracking_uri=client.tracking_uri
        )
        return Path(picture).read_bytes()
    return None


def _promoted(client: MlflowClient, sweep: str) -> tuple[Promoted, ...]:
    """Return the registered models of ``sweep``, newest first."""
    versions = [
        version
        for version in client.search_model_versions(f"name = '{MODEL}'")
        if version.tags.get(tag_names.SWEEP) == sweep
    ]
    held = aliases(client)
    ordered = sorted(versions, key=lambda version: int(version.version), reverse=True)
    return tuple(_read(version, held.get(str(version.version), ())) for version in ordered)


def _difference(text: str) -> dict[str, Any] | None:
    """Return the difference in the text of a tag; None if it has none or was edited."""
    with contextlib.suppress(DocumentError, ValidationError):
        difference = parse_json(text)
        Score.model_validate(difference)
        return dict(difference)
    return None


def _read(version: ModelVersion, held: tuple[str, ...]) -> Promoted:
    tags = version.tags
    return Promoted(
        version=str(version.version),
        aliases=held,
        trial=tags.get(tag_names.TRIAL, ""),
        verdict=tags.get("segan.verdict", "No verdict was recorded."),
        difference=_difference(tags.get("segan.difference", "null")),
        forced=tags.get("segan.forced") == "true",
        optimistic=tags.get("segan.optimistic") == "true",
    )


def _provenance(home: Home, record: SweepRecord) -> dict[str, str]:
    store = _store(home, record.sweep)
    tags = own_run(home, record.sweep).data.tags
    versions = {
        name.removeprefix("segan.version."): tags.get(name, now)
        for name, now in version_tags().items()
    }
    return {
        "Store": f"{store}, fingerprint {record.store}",
        "Versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "Git commit": tags.get("mlflow.source.git.commit", "not a git checkout"),
        "MLflow runs": (
            f"tag {tag_names.SWEEP} = {record.sweep} in the experiment {tag_names.EXPERIMENT}"
        ),
        "Commands to reproduce": _commands(record, store, tags.get("mlflow.source.git.commit")),
    }


def _store(home: Home, sweep: str) -> str:
    try:
        return location_name(store_location(home, sweep))
    except SweepError:
        return "STORE"


def _commands(record: SweepRecord, store: str, commit: str | None) -> str:
    """Return the commands that repeat the sweep, given the space file that the page shows."""
    name = f"{record.sweep}-again"
    searched = sum(trial.repeat_of is None for trial in record.trials)
    again = "".join(
        f" --repeat-top {len(record.repeats)} --seeds {max(len(g.scores) for g in record.repeats)}"
        for _ in record.repeats[:1]
    )
    lines = [
        f"git checkout {commit}" if commit else "",
        "# space.yaml is the space file above",
        f"segan-ray tune {store} --space space.yaml --name {name} --trials {searched}{again}",
        f"segan-ray promote {name}",
        f"segan-ray evaluate champion {store} --reference threshold",
        f"segan-ray report {name} report.html",
    ]
    return "\n".join(filter(None, lines))
