"""Evaluation: models and references on the test patients, as a document and an MLflow run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from segan_ray.data.cache import local_store
from segan_ray.data.prepare import OnCase, ignore_case
from segan_ray.data.store import PreparedCase, open_for_tuning, open_test, read_manifest
from segan_ray.evaluation.overlays import draw_overlay
from segan_ray.evaluation.scores import CaseScores, case_table, evaluation_document, summarise
from segan_ray.evaluation.scoring import checkpoint_predictor, score_cases
from segan_ray.evaluation.threshold import tuned_threshold
from segan_ray.home import Home
from segan_ray.models.build import halvings
from segan_ray.tracking import client as names
from segan_ray.tracking.client import connect, experiment_id, version_tags
from segan_ray.tracking.registry import FetchedModel, fetched
from segan_ray.tracking.showcase import log_showcase
from segan_ray.training.checkpoint import load_segmentor

THRESHOLD: Final = "threshold"
DOCUMENT: Final = "evaluation.json"


def evaluate(
    home: Home,
    model: str,
    store: str | Path,
    *,
    references: Mapping[str, str],
    on_case: OnCase = ignore_case,
) -> dict[str, Any]:
    """Score ``model`` on the test patients of ``store`` and return the ``evaluate`` document.

    ``references`` maps a row's name to another model, or to ``threshold`` for the FLAIR
    threshold tuned on the training patients; their summaries stand beside the model's.

    Raises:
        StoreError, RegistryError, CheckpointError: for what cannot be found or read.
    """
    folder = local_store(str(store))
    cases = open_test(folder)
    manifest = read_manifest(folder)
    with fetched(home, model) as found:
        scores = score_cases(checkpoint_predictor(found.folder), cases, on_case)
        document = evaluation_document(model, "test", scores)
        document["store"] = manifest.fingerprint
        document["references"] = {
            name: summarise(_score_reference(home, reference, folder, cases, on_case))
            for name, reference in references.items()
        }
        _record(home, found, manifest.fingerprint, document, scores, cases)
    return document


def _score_reference(
    home: Home, reference: str, store: Path, cases: tuple[PreparedCase, ...], on_case: OnCase
) -> list[CaseScores]:
    if reference == THRESHOLD:
        return score_cases(tuned_threshold(open_for_tuning(store).train), cases, on_case)
    with fetched(home, reference) as found:
        return score_cases(checkpoint_predictor(found.folder), cases, on_case)


def _record(
    home: Home,
    model: FetchedModel,
    store: str,
    document: dict[str, Any],
    scores: list[CaseScores],
    cases: tuple[PreparedCase, ...],
) -> None:
    """Log the evaluation as a run: means as metrics, all else as artifacts."""
    client = connect(home)
    known = {names.SWEEP: model.sweep, "segan.model_version": model.version, "segan.run": model.run}
    tags = {
        names.KIND: "evaluation",
        names.STORE: store,
        **version_tags(),
        **{name: value for name, value in known.items() if value is not None},
    }
    run = client.create_run(
        experiment_id(client, home), run_name=f"evaluation-{model.name}", tags=tags
    ).info.run_id
    for region, summary in document["summary"].items():
        for metric, value in summary.items():
            client.log_metric(run, f"test/{metric}_{region}", value["mean"])
    client.log_text(run, json.dumps(document, indent=1), DOCUMENT)
    client.log_text(run, case_table(scores).to_csv(index=False), "cases.csv")
    client.log_image(run, _picture(model.folder, cases), artifact_file="overlays/test.png")
    log_showcase(client, run, checkpoint_predictor(model.folder), cases, scores)
    client.set_terminated(run)


def _picture(folder: Path, cases: tuple[PreparedCase, ...]) -> Any:
    segmentor, experiment = load_segmentor(folder)
    return draw_overlay(
        segmentor,
        cases,
        halvings=halvings(experiment),
        brain_mask=experiment.training.brain_mask,
        neighbours=experiment.data.neighbours,
        device=torch.device("cpu"),
    )


def latest_evaluation(home: Home, sweep: str) -> dict[str, Any] | None:
    """Return the newest evaluation of a model from ``sweep`` with its ``run``, or None."""
    import mlflow

    client = connect(home)
    runs = client.search_runs(
        [experiment_id(client, home)],
        f"tags.`{names.KIND}` = 'evaluation' and tags.`{names.SWEEP}` = '{sweep}'",
        order_by=["attributes.start_time DESC"],
        max_results=1,
    )
    if not runs:
        return None
    text = mlflow.artifacts.load_text(f"{runs[0].info.artifact_uri}/{DOCUMENT}")
    return {**json.loads(text), "run": runs[0].info.run_id}
