"""Reading evaluations back out of MLflow, for the report."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import mlflow
from mlflow.exceptions import MlflowException
from pydantic import BaseModel, FiniteFloat, ValidationError

from segan_ray.documents import DocumentError, parse_json
from segan_ray.errors import said
from segan_ray.home import Home
from segan_ray.tracking import tag_names
from segan_ray.tracking.client.connection import connect_to_read, search
from segan_ray.tracking.client.retries import said_in_words

DOCUMENT: Final = "evaluation.json"


class Score(BaseModel):
    """A mean over patients and its interval, which is None for too few patients."""

    mean: FiniteFloat
    ci95: tuple[FiniteFloat, FiniteFloat] | None


class _Scores(BaseModel):
    dice: Score
    hd95: Score
    precision: Score
    sensitivity: Score


class _Summary(BaseModel):
    whole: _Scores
    core: _Scores
    enhancing: _Scores


class _Difference(BaseModel):
    whole: Score
    core: Score
    enhancing: Score


class _Comparison(BaseModel):
    against: str
    difference: _Difference
    patients: int


class _CaseScores(BaseModel):
    dice: FiniteFloat = 0.0
    hd95: FiniteFloat = 0.0


class _RecordedCase(BaseModel):
    patient: str
    whole: _CaseScores = _CaseScores()
    core: _CaseScores = _CaseScores()
    enhancing: _CaseScores = _CaseScores()


class _CaseMeans(BaseModel):
    dice: FiniteFloat
    hd95: FiniteFloat


class _Means(BaseModel):
    whole: _CaseMeans
    core: _CaseMeans
    enhancing: _CaseMeans


class _Evaluation(BaseModel):
    """The fields of an ``evaluate`` document that the report reads."""

    model: str
    split: str
    cases: list[_RecordedCase]
    summary: _Summary
    references: dict[str, _Summary] = {}
    comparisons: list[_Comparison]
    means_over_cases: dict[str, _Means] = {}


def latest_evaluation(
    home: Home, sweep: str, on_note: Callable[[str], None] = lambda _: None
) -> dict[str, Any] | None:
    """Return the newest evaluation of a model from ``sweep`` with its ``run``, or None.

    An evaluation without a document, or with another program's, is left out; ``on_note`` gets a
    note of it.

    Raises:
        TrackingError: if MLflow cannot be read.
    """
    client = connect_to_read(home)
    query = f"tags.`{tag_names.KIND}` = 'evaluation' and tags.`{tag_names.SWEEP}` = '{sweep}'"
    with said_in_words(client):
        runs = search(client, query)
    for run in runs:
        try:
            return {**_document(str(run.info.artifact_uri)), "run": run.info.run_id}
        except ValidationError as error:
            location = ".".join(map(str, error.errors()[0]["loc"]))
            problem = f"its {DOCUMENT} is not one of segan-ray evaluate at '{location}'"
        except (MlflowException, DocumentError, OSError, UnicodeDecodeError) as error:
            problem = f"its {DOCUMENT} cannot be read ({said(error)})"
        on_note(
            f"Left out: the evaluation of MLflow's run {run.info.run_id}: {problem}. Evaluate "
            "again, or delete the run in MLflow's UI: segan-ray ui"
        )
    return None


def _document(artifacts: str) -> dict[str, Any]:
    text = mlflow.artifacts.load_text(f"{artifacts}/{DOCUMENT}")
    document = parse_json(text)
    _Evaluation.model_validate(document)
    return dict(document)
