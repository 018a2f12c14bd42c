"""The MLflow run of an evaluation: linked to the model, the store, and the model's version."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModelInput, Metric
from mlflow.exceptions import MlflowException

from segan_ray.evaluation.scoring.case_files import ENDINGS, encode_table
from segan_ray.filesystem.locations import absolute, location_name
from segan_ray.home import Home
from segan_ray.tracking import tag_names
from segan_ray.tracking.client.connection import experiment_id, version_tags
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.description.facts import dataset_input
from segan_ray.tracking.registry.model_versions import MODEL, FetchedModel

MODEL_VERSION: Final = "segan.model_version"
MODEL_RUN: Final = "segan.run"
SPLIT_FILE: Final = "segan.split_file"
EVALUATION: Final = "segan.evaluation"
LOGGED_MODEL: Final = "models:/m-"

Summary = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Subject:
    """The model and the store of an evaluation.

    ``split_file`` is the digest of the file that names the test patients, if there is one. ``own``
    says that these are the test patients of the store that the model was trained on.
    """

    model: FetchedModel
    store: StoreCard
    split_file: str | None
    own: bool


@dataclass(frozen=True)
class EvaluationRun:
    """The open MLflow run of an evaluation."""

    id: str
    client: MlflowClient
    subject: Subject
    model_id: str | None

    def log_summary(self, summary: Summary) -> None:
        """Log the means over patients, as metrics of the run and of the model."""
        now = int(time.time() * 1000)
        where = location_name(absolute(self.subject.store.path))
        metrics = [
            Metric(name, value, now, 0, self.model_id, where, self.subject.store.fingerprint)
            for name, value in summary_means(summary).items()
        ]
        self.client.log_batch(self.id, metrics=metrics)

    def log_cases(self, table: pd.DataFrame) -> None:
        """Log the scores of every case, as one table for people and one for programs."""
        with tempfile.TemporaryDirectory() as folder:
            for ending in ENDINGS:
                path = Path(folder) / f"cases{ending}"
                path.write_bytes(encode_table(table, ending))
                self.client.log_artifact(self.id, str(path))

    def link_version(self, summary: Summary) -> None:
        """Tag the registered version with the store and the scores of this evaluation.

        Test patients of its own store and those of other stores have different tags, so that
        neither score hides the other.
        """
        subject = self.subject
        if subject.model.version is None:
            return
        kind = "test" if subject.own else "external"
        tags = {
            f"{EVALUATION}.{kind}": self.id,
            f"{EVALUATION}.{kind}.store": subject.store.fingerprint,
            **{
                f"segan.{kind}/{name}": f"{value:.4f}"
                for name, value in summary_means(summary, prefix="").items()
                if name.startswith("dice_")
            },
        }
        for name, value in tags.items():
            self.client.set_model_version_tag(MODEL, subject.model.version, name, value)


@contextlib.contextmanager
def evaluation_run(client: MlflowClient, home: Home, subject: Subject) -> Iterator[EvaluationRun]:
    """Open the run of an evaluation; it ends FINISHED, or FAILED if the block raises.

    Its inputs are the store and, for a registered version, MLflow's logged model.
    """
    model = subject.model
    optional = {
        tag_names.SWEEP: model.sweep,
        MODEL_VERSION: model.version,
        MODEL_RUN: model.run,
        SPLIT_FILE: subject.split_file,
    }
    tags = {
        tag_names.KIND: "evaluation",
        tag_names.STORE: subject.store.fingerprint,
        **version_tags(),
        **{name: value for name, value in optional.items() if value is not None},
    }
    run = client.create_run(
        experiment_id(client, home), run_name=f"evaluation-{model.name}", tags=tags
    ).info.run_id
    try:
        model_id = _model_id(client, model)
        client.log_inputs(
            run,
            datasets=[dataset_input(subject.store, "testing")],
            models=[LoggedModelInput(model_id)] if model_id else None,
        )
        yield EvaluationRun(run, client, subject, model_id)
    except BaseException:
        with contextlib.suppress(MlflowException):
            client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run)


def _model_id(client: MlflowClient, model: FetchedModel) -> str | None:
    """Return the id of the logged model behind a registered version, or None."""
    if model.version is None:
        return None
    # MLflow's databases keep the id in the source alone.
    source = str(client.get_model_version(MODEL, model.version).source)
    return source.removeprefix("models:/") if source.startswith(LOGGED_MODEL) else None


def summary_means(summary: Summary, prefix: str = "test/") -> dict[str, float]:
    """Return the mean over patients of every score, and Dice over the regions."""
    means = {
        f"{prefix}{metric}_{region}": float(value["mean"])
        for region, scores in summary.items()
        for metric, value in scores.items()
    }
    dice = [float(scores["dice"]["mean"]) for scores in summary.values()]
    return means | {f"{prefix}dice_mean": sum(dice) / len(dice)}
