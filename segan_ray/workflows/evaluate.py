"""Evaluation: scores of models and references on the test patients, recorded in MLflow."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd
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
    model_predictor,
    score_cases,
)
from segan_ray.evaluation.scoring.threshold import tuned_threshold
from segan_ray.home import Home
from segan_ray.models.numerics import fastest_device
from segan_ray.tracking.client.connection import connect
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.reading.evaluations import DOCUMENT
from segan_ray.tracking.recording.evaluation_run import Subject, evaluation_run
from segan_ray.tracking.registry.model_versions import FetchedModel, fetched
from segan_ray.workflows.case_pictures import log_overlay, log_showcase

THRESHOLD: Final = "threshold"


@dataclass(frozen=True)
class Evaluation:
    """The ``evaluate`` document, and the scores of every case and row as a table."""

    document: dict[str, Any]
    """Scores of each case and their means, with intervals over patients."""
    cases: pd.DataFrame
    """A row for each model, case and region.

    Columns: model (or the name of a reference), case, patient, region, dice, precision,
    sensitivity, specificity, hd95; with ``lesion_wise`` also lesion_dice, lesion_hd95, lesions,
    missed_lesions, false_lesions.
    """


@dataclass(frozen=True)
class _TestCases:
    """The cases to score, and what the store says of their patients."""

    location: str
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


@dataclass(frozen=True)
class _Loaded:
    """A model in memory, and where it was fetched from."""

    source: FetchedModel
    model: Model


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
    own in MLflow. ``on_note`` is told each caution to a reader of the scores.

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
    others = [name for name in references.values() if name != THRESHOLD]
    loaded = _load(home, (model, *compared, *others))
    _admit({name: entry.model for name, entry in loaded.items()}, test, on_note)
    client = connect(home)  # before hours of scoring whose records would go nowhere
    score = partial(score_cases, cases=test.cases, on_case=on_case, lesion_wise=lesion_wise)
    predictors = _predictors(loaded, test, with_threshold=THRESHOLD in references.values())
    scores = {name: score(predict) for name, predict in predictors.items()}
    documents = {name: _document(name, scores[name], test) for name in (*compared, model)}
    rows = {**{name: name for name in compared}, **references}
    documents[model] |= _beside(model, rows, scores)
    documents[model] |= {
        "references": {name: summarise(scores[of]) for name, of in references.items()},
        "against": [documents[name] for name in compared],
    }
    # The model's own run last: the newest evaluation of a sweep is what reports show.
    for name, document in documents.items():
        _record(client, home, loaded[name], document, scores[name], test)
    table = {model: scores[model], **{name: scores[of] for name, of in rows.items()}}
    return Evaluation(documents[model], _table(table))


def _check_rows(models: Sequence[str], references: Mapping[str, str]) -> None:
    """Make sure that no reference has the name of another model's row."""
    for name, of in references.items():
        if name in models and name != of:
            raise RegistryError(
                f"Two rows would be called '{name}': the model {name} and the reference {of}. "
                f"Call the reference something else: --reference NAME={of}"
            )


def _open(store: str, split_file: Path | None) -> _TestCases:
    folder = local_store(store)
    manifest = read_manifest(folder)
    if split_file is None:
        return _TestCases(store, folder, manifest, None, open_test(folder))
    placement = assign_tested(read_split_file(split_file, needed=("test",)), manifest.cases)
    cases = open_test(folder, placement.patients("test"))
    return _TestCases(store, folder, manifest, placement, cases)


def _load(home: Home, names: Sequence[str]) -> dict[str, _Loaded]:
    """Return each model by its name; two names of one version, or of one folder, share it."""
    models: dict[str, Model] = {}
    loaded = {}
    for name in dict.fromkeys(names):
        with fetched(home, name) as source:
            identity = source.version or str(source.folder.resolve())
            if identity not in models:
                models[identity] = load_model(source.folder)
        loaded[name] = _Loaded(source, models[identity])
    return loaded


def _predictors(
    loaded: Mapping[str, _Loaded], test: _TestCases, *, with_threshold: bool
) -> dict[str, Predict]:
    """Return how each model segments a case, by its name; last the threshold, if asked for."""
    device = fastest_device()
    models = {name: model_predictor(entry.model, device) for name, entry in loaded.items()}
    if not with_threshold:
        return models
    return {**models, THRESHOLD: tuned_threshold(_unscored_training(test))}


def _admit(models: Mapping[str, Model], test: _TestCases, on_note: Callable[[str], None]) -> None:
    for name, model in models.items():
        refuse_seen(name, model.origin, test.records)
    for name, model in models.items():
        for caution in cautions(name, model.origin, test.manifest.settings, test.records):
            on_note(caution)


def _unscored_training(test: _TestCases) -> tuple[PreparedCase, ...]:
    """Return the store's training cases without the patients that a split file tests."""
    scored = {record.voxels_sha256 for record in test.records}
    left = tuple(
        case
        for case in open_for_tuning(test.store).train
        if case.record.patient not in test.patients and case.record.voxels_sha256 not in scored
    )
    if not left:
        raise StoreError(
            f"The store {test.location} has no training patient left to tune the threshold on: the "
            "split file tests them all. Leave out --reference threshold."
        )
    return left


def _document(model: str, scores: list[CaseScores], test: _TestCases) -> dict[str, Any]:
    document = evaluation_document(model, "test", scores)
    document["store"] = test.manifest.fingerprint
    if test.placement is not None:
        document["split_file"] = test.placement.digest
    return document | _over_cases({model: scores}) | {"references": {}, "comparisons": []}


def _over_cases(rows: Mapping[str, Sequence[CaseScores]]) -> dict[str, Any]:
    """Return the means of each row over cases, or nothing if those over patients are the same."""
    means = {name: means_over_cases(scores) for name, scores in rows.items()}
    return {"means_over_cases": means} if all(means.values()) else {}


def _beside(
    model: str, rows: Mapping[str, str], scores: Mapping[str, list[CaseScores]]
) -> dict[str, Any]:
    """Return what the document says of ``model`` beside the other rows: ``{row: scored name}``."""
    table = {model: scores[model], **{name: scores[of] for name, of in rows.items()}}
    comparisons = (compare(model, name, scores[model], scores[of]) for name, of in rows.items())
    return _over_cases(table) | {
        "comparisons": [comparison.document() for comparison in comparisons]
    }


def _subject(loaded: _Loaded, test: _TestCases) -> Subject:
    fingerprint = test.manifest.fingerprint
    return Subject(
        loaded.source,
        StoreCard(test.location, fingerprint, {"test": len(test.patients)}),
        split_file=None if test.placement is None else test.placement.digest,
        own=test.placement is None and loaded.model.origin.store == fingerprint,
    )


def _table(scores: Mapping[str, Sequence[CaseScores]]) -> pd.DataFrame:
    tables = {name: case_table(of_model) for name, of_model in scores.items()}
    return pd.concat(tables, names=["model"]).reset_index("model").reset_index(drop=True)


def _record(
    client: MlflowClient,
    home: Home,
    loaded: _Loaded,
    document: dict[str, Any],
    scores: list[CaseScores],
    test: _TestCases,
) -> None:
    """Log the evaluation as a run: means as metrics, all else as artifacts."""
    device = fastest_device()
    predict = model_predictor(loaded.model, device)
    try:
        with evaluation_run(client, home, _subject(loaded, test)) as run:
            run.log_summary(document["summary"])
            client.log_text(run.id, json.dumps(document, indent=1), DOCUMENT)
            run.log_cases(case_table(scores))
            log_overlay(client, run.id, loaded.model, test.cases, device)
            log_showcase(client, run.id, predict, test.cases, scores)
            run.link_version(document["summary"])
    except MlflowException as error:
        raise TrackingError(
            f"The evaluation of '{loaded.source.name}' cannot be recorded: {error.message}"
        ) from None
