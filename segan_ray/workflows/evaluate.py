"""Evaluation: models and references on the test patients, as a document and MLflow runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from segan_ray.data.store.cache import local_store
from segan_ray.data.store.manifest import CaseRecord, Manifest
from segan_ray.data.store.opened_store import (
    PreparedCase,
    open_for_tuning,
    open_test,
    read_manifest,
)
from segan_ray.data.store.prepare import OnCase, ignore_case
from segan_ray.data.store.split_file import Placement, assign_tested, read_split_file
from segan_ray.errors import RegistryError, StoreError, TrackingError
from segan_ray.evaluation.figures.overlays import draw_overlay
from segan_ray.evaluation.inference.packaged_model import Model, load_model
from segan_ray.evaluation.metrics.scores import (
    CaseScores,
    case_table,
    evaluation_document,
    means_over_cases,
    summarise,
)
from segan_ray.evaluation.scoring.comparison import compare
from segan_ray.evaluation.scoring.leakage import cautions, refuse_seen
from segan_ray.evaluation.scoring.score_cases import (
    Predict,
    checkpoint_predictor,
    model_predictor,
    score_cases,
)
from segan_ray.evaluation.scoring.threshold import tuned_threshold
from segan_ray.home import Home
from segan_ray.models.build import downsampling_levels, fastest_device
from segan_ray.tracking.client.connection import connect
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.reading.evaluations import DOCUMENT
from segan_ray.tracking.recording.evaluation_run import Subject, evaluation_run
from segan_ray.tracking.registry.model_versions import FetchedModel, fetched
from segan_ray.training.checkpoints.checkpoint import load_segmentor
from segan_ray.workflows.case_pictures import log_showcase

THRESHOLD: Final = "threshold"


@dataclass(frozen=True)
class Evaluation:
    """The ``evaluate`` document, and the scores of every case and row as a table.

    The column ``model`` has the names of the rows: models, and references by what they are called.
    """

    document: dict[str, Any]
    cases: pd.DataFrame


@dataclass(frozen=True)
class _Test:
    """Who is scored: the cases, and what the store says of their patients."""

    place: str
    store: Path
    manifest: Manifest
    placement: Placement | None
    cases: tuple[PreparedCase, ...]

    @property
    def patients(self) -> set[str]:
        return {case.record.patient for case in self.cases}

    @property
    def records(self) -> tuple[CaseRecord, ...]:
        """Every scan of those patients, scored or not."""
        tested = self.patients
        return tuple(record for record in self.manifest.cases if record.patient in tested)


def evaluate(
    home: Home,
    model: str,
    store: str | Path,
    *,
    against: Sequence[str] = (),
    references: Mapping[str, str] | None = None,
    split_file: Path | None = None,
    lesion_wise: bool = False,
    on_case: OnCase = ignore_case,
    on_note: Callable[[str], None] = ignore_case,
) -> Evaluation:
    """Score ``model``, and the models ``against`` it, on the test patients of ``store``.

    ``references`` maps a row's name to another model, or to ``threshold`` for the FLAIR
    threshold tuned on the training patients; their summaries stand beside the model's. A
    ``split_file`` says who the test patients are. Every model but references gets a run of its
    own in MLflow. ``on_note`` hears what somebody who reads the scores should know.

    Where patients have unequally many cases the document has ``means_over_cases``, the mean of
    every score of each row over cases, as leaderboards have it: ``{row: {region: {metric}}}``.

    Raises:
        StoreError, RegistryError, CheckpointError: for what cannot be found or read.
        RegistryError: for a reference's row that is called like another model's.
        SplitError: for a split file that cannot be right, or patients that a model has seen.
    """
    references = references or {}
    compared = tuple(dict.fromkeys(name for name in against if name != model))
    _check_rows((model, *compared), references)
    test = _open(str(store), split_file)
    score = partial(score_cases, cases=test.cases, on_case=on_case, lesion_wise=lesion_wise)
    device = fastest_device()
    others = tuple(name for name in references.values() if name != THRESHOLD)
    with contextlib.ExitStack() as stack:
        found = {
            name: stack.enter_context(fetched(home, name))
            for name in dict.fromkeys((model, *compared, *others))
        }
        models = {name: load_model(one.folder) for name, one in found.items()}
        _admit(models, test, on_note)
        client = connect(home)  # before hours of scoring whose records would go nowhere
        predictors: dict[str, Predict] = {
            name: model_predictor(loaded, device) for name, loaded in models.items()
        }
        if THRESHOLD in references.values():
            predictors[THRESHOLD] = tuned_threshold(_unscored_training(test))
        scores = {name: score(predict) for name, predict in predictors.items()}
        documents = {name: _document(name, scores[name], test) for name in (*compared, model)}
        rows = {**{name: name for name in compared}, **references}
        table = {model: scores[model], **{name: scores[of] for name, of in rows.items()}}
        documents[model] |= _over_cases(table)
        documents[model] |= {
            "references": {name: summarise(scores[of]) for name, of in references.items()},
            "against": [documents[name] for name in compared],
            "comparisons": [
                compare(model, name, scores[model], scores[of]).document()
                for name, of in rows.items()
            ],
        }
        # The model's own run last: the newest evaluation of a sweep is what reports show.
        for name, document in documents.items():
            subject = _subject(found[name], models[name], test)
            _record(client, home, subject, document, scores[name], test.cases)
    return Evaluation(documents[model], _table(table))


def _check_rows(models: Sequence[str], references: Mapping[str, str]) -> None:
    """Make sure that a reference's row is not called like that of another model."""
    for name, of in references.items():
        if name in models and name != of:
            raise RegistryError(
                f"Two rows would be called '{name}': the model {name} and the reference {of}. "
                f"Call the reference something else: --reference NAME={of}"
            )


def _open(store: str, split_file: Path | None) -> _Test:
    folder = local_store(store)
    manifest = read_manifest(folder)
    if split_file is None:
        return _Test(store, folder, manifest, None, open_test(folder))
    placement = assign_tested(read_split_file(split_file, needed=("test",)), manifest.cases)
    cases = open_test(folder, placement.patients("test"))
    return _Test(store, folder, manifest, placement, cases)


def _admit(models: Mapping[str, Model], test: _Test, on_note: Callable[[str], None]) -> None:
    for name, model in models.items():
        refuse_seen(name, model.origin, test.records)
    for name, model in models.items():
        for caution in cautions(name, model.origin, test.manifest.settings, test.records):
            on_note(caution)


def _unscored_training(test: _Test) -> tuple[PreparedCase, ...]:
    """Return the store's training cases without those a split file has put to the test."""
    scored = {record.voxels_sha256 for record in test.records}
    left = tuple(
        case
        for case in open_for_tuning(test.store).train
        if case.record.patient not in test.patients and case.record.voxels_sha256 not in scored
    )
    if not left:
        raise StoreError(
            f"The store {test.place} has no training patient left to tune the threshold on: the "
            "split file tests them all. Leave out --reference threshold."
        )
    return left


def _document(model: str, scores: list[CaseScores], test: _Test) -> dict[str, Any]:
    document = evaluation_document(model, "test", scores)
    document["store"] = test.manifest.fingerprint
    if test.placement is not None:
        document["split_file"] = test.placement.digest
    return document | _over_cases({model: scores}) | {"references": {}, "comparisons": []}


def _over_cases(rows: Mapping[str, Sequence[CaseScores]]) -> dict[str, Any]:
    """Return the means of each row over cases for a document, or nothing if they are no others."""
    means = {name: means_over_cases(scores) for name, scores in rows.items()}
    return {"means_over_cases": means} if all(means.values()) else {}


def _subject(found: FetchedModel, model: Model, test: _Test) -> Subject:
    fingerprint = test.manifest.fingerprint
    return Subject(
        found,
        StoreCard(test.place, fingerprint, {"test": len(test.patients)}),
        split_file=None if test.placement is None else test.placement.digest,
        own=test.placement is None and model.origin.store == fingerprint,
    )


def _table(scores: Mapping[str, Sequence[CaseScores]]) -> pd.DataFrame:
    tables = {name: case_table(of_model) for name, of_model in scores.items()}
    return pd.concat(tables, names=["model"]).reset_index("model").reset_index(drop=True)


def _record(
    client: MlflowClient,
    home: Home,
    subject: Subject,
    document: dict[str, Any],
    scores: list[CaseScores],
    cases: tuple[PreparedCase, ...],
) -> None:
    """Log the evaluation as a run: means as metrics, all else as artifacts."""
    try:
        with evaluation_run(client, home, subject) as run:
            run.log_summary(document["summary"])
            client.log_text(run.id, json.dumps(document, indent=1), DOCUMENT)
            run.log_cases(case_table(scores))
            picture = _picture(subject.model.folder, cases)
            client.log_image(run.id, picture, artifact_file="overlays/test.png")
            predict = checkpoint_predictor(subject.model.folder)
            log_showcase(client, run.id, predict, cases, scores)
            run.link_version(document["summary"])
    except MlflowException as error:
        raise TrackingError(
            f"The evaluation of '{subject.model.name}' cannot be recorded: {error.message}"
        ) from None


def _picture(folder: Path, cases: tuple[PreparedCase, ...]) -> Any:
    segmentor, experiment = load_segmentor(folder)
    return draw_overlay(
        segmentor,
        cases,
        downsampling_levels=downsampling_levels(experiment),
        brain_mask=experiment.training.brain_mask,
        context_slices=experiment.data.neighbours,
        device=torch.device("cpu"),
    )
