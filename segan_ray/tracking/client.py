"""Reaching MLflow: the client, the project's experiment, and the names of our tags."""

from __future__ import annotations

import logging
import os
import warnings
from importlib.metadata import version
from typing import Final

from segan_ray.errors import TrackingError
from segan_ray.home import Home

# MLflow reads these when it is imported: no progress bars among our lines, no phoning home.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

EXPERIMENT: Final = "segan-ray"
PARENT: Final = "mlflow.parentRunId"
KIND: Final = "segan.kind"
SWEEP: Final = "segan.sweep"
TRIAL: Final = "segan.trial"
STORE: Final = "segan.store"
STATUS: Final = "segan.status"
EPOCHS: Final = "segan.epochs"
SCORE: Final = "segan.score"
BEST_EPOCH: Final = "segan.best_epoch"
PARAMS: Final = "segan.params"
REASON: Final = "segan.reason"
METRIC: Final = "segan.metric"
MODE: Final = "segan.mode"


def connect(home: Home) -> MlflowClient:
    """Return a client of the configured tracking store, making the home's own if need be.

    Raises:
        TrackingError: if the store cannot be reached.
    """
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module="mlflow")
    try:
        home.folder.mkdir(parents=True, exist_ok=True)
        client = MlflowClient(home.tracking_uri, registry_uri=home.tracking_uri)
        client.get_experiment_by_name(EXPERIMENT)
    except MlflowException as error:
        raise TrackingError(
            f"MLflow at {home.tracking_uri} cannot be used: {error.message}\n"
            "Is MLFLOW_TRACKING_URI right and the server up?"
        ) from None
    except (OSError, SQLAlchemyError) as error:
        reason = str(error).splitlines()[0]
        raise TrackingError(
            f"MLflow at {home.tracking_uri} cannot be used: {reason}\n"
            "Is --home a folder, or MLFLOW_TRACKING_URI right?"
        ) from None
    return client


def experiment_id(client: MlflowClient, home: Home) -> str:
    """Return the id of the project's experiment, created at first use."""
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return str(found.experiment_id)
    # A server decides where its artifacts go; our own database keeps them beside itself.
    own = not os.environ.get("MLFLOW_TRACKING_URI")
    location = home.artifacts.as_uri() if own else None
    # The kind tells MLflow's UI to open on runs and their metrics, not on traces of chats.
    kind = {"mlflow.experimentKind": "custom_model_development"}
    return str(client.create_experiment(EXPERIMENT, artifact_location=location, tags=kind))


def search(client: MlflowClient, query: str) -> list[Run]:
    """Return every run of the project's experiment that ``query`` finds, page by page."""
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return []
    found: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs([experiment.experiment_id], query, page_token=token)
        found.extend(page)
        token = page.token
        if not token:
            return found


def version_tags() -> dict[str, str]:
    """Return the versions that made a run."""
    names = ("segan-ray", "torch", "ray", "optuna", "mlflow")
    return {f"segan.version.{name}": version(name) for name in names}
