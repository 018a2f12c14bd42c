"""Reaching MLflow: the client, and the project's experiment."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any, Final, cast

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from segan_ray.databases import is_database, tables_at
from segan_ray.engine_settings import prepare_mlflow
from segan_ray.errors import TrackingError, said
from segan_ray.filesystem import locks
from segan_ray.filesystem.atomic_files import writing
from segan_ray.home import OTHER_HOME, TRACKING_URI, Home, mend_database
from segan_ray.redaction import mask
from segan_ray.tracking.client.database import LOCK, is_writable, make_database, read_only
from segan_ray.tracking.client.moved import follow_move, is_anothers
from segan_ray.tracking.tag_names import EXPERIMENT

PAGE: Final = 1000
"""Runs per request: a server sends the parameters and metrics of each."""
Check = Callable[[], None]
"""Raises once this process must not write, since another process has taken over its sweep."""
MAKING_S: Final = 120.0
"""How long to wait for another process that makes the database."""


def connect(home: Home) -> MlflowClient:
    """Return a client of the configured tracking store; make the home's own if need be.

    Raises:
        TrackingError: if the store cannot be reached.
        StoreError: if the home cannot be written.
    """
    _be_quiet()
    try:
        with writing(home.folder, OTHER_HOME):
            home.folder.mkdir(parents=True, exist_ok=True)
        with _own_database(home) if home.tracks_itself else contextlib.nullcontext():
            if not home.tracks_itself and is_database(home.tracking_uri):
                _refuse_optunas(home.tracking_uri)
            client = MlflowClient(home.tracking_uri, registry_uri=home.tracking_uri)
            client.get_experiment_by_name(EXPERIMENT)
    except (MlflowException, OSError, ImportError, sqlite3.Error, SQLAlchemyError) as error:
        where, reason = mask(home.tracking_uri), mask(said(error))
        raise TrackingError(
            f"MLflow at {where} cannot be used ({reason}).\n{_remedy(home, reason)}"
        ) from None
    return client


@contextlib.contextmanager
def _own_database(home: Home) -> Iterator[None]:
    """Make the home's database if need be, and lock it in the block."""
    with writing(home.folder, OTHER_HOME), _alone(home):
        make_database(home)
        follow_move(home, EXPERIMENT)
        yield


def _remedy(home: Home, reason: str) -> str:
    if "schema" in reason:
        return "If a newer MLflow made it, install that one."
    if home.tracks_itself:
        return mend_database(reason)
    return f"Is {TRACKING_URI} right, and its server up?"


def _refuse_optunas(uri: str) -> None:
    tables = tables_at(uri)
    if "studies" in tables and "experiments" not in tables:
        raise TrackingError(
            f"{TRACKING_URI}={mask(uri)} is Optuna's database. MLflow needs one of its own: make "
            "another on the same server, and name that."
        )


def always() -> None:
    """The check of a process whose sweep no other process can take over."""


class _Checked:
    """A client whose every request is preceded by ``check``."""

    def __init__(self, client: MlflowClient, check: Check) -> None:
        self._client = client
        self._check = check

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_"):
            self._check()
        return getattr(self._client, name)


def checked(client: MlflowClient, check: Check) -> MlflowClient:
    """Return ``client``, which sends nothing once ``check`` raises."""
    return client if check is always else cast("MlflowClient", _Checked(client, check))


def connect_to_read(home: Home) -> MlflowClient:
    """Return a client as ``connect`` does; for a read-only home, a client that only reads.

    Raises:
        TrackingError: if the store cannot be reached.
    """
    database = home.tracking_database
    if not home.tracks_itself or not database.is_file() or is_writable(home):
        return connect(home)
    _be_quiet()
    # MLflow would make the folder "file:" of a URI that names no driver.
    uri = f"sqlite+pysqlite:///{read_only(database)}&uri=true"
    try:
        client = MlflowClient(uri, registry_uri=uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
    except (MlflowException, OSError, sqlite3.Error, SQLAlchemyError) as error:
        reason = mask(said(error))
        raise TrackingError(
            f"{database}: cannot be read where it cannot be written ({reason}). Use a copy of "
            "the home, or the folder of a checkpoint in place of a name."
        ) from None
    if experiment is not None and is_anothers(home, experiment.artifact_location):
        raise TrackingError(
            f"{home.folder}: was moved or copied, and its records still name files at "
            f"{experiment.artifact_location}. They follow as soon as somebody who may write there "
            f"uses it: segan-ray sweeps --home {home.folder}"
        )
    return client


def _be_quiet() -> None:
    prepare_mlflow()
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module="mlflow")


@contextlib.contextmanager
def pointing_at(uri: str) -> Iterator[None]:
    """Point MLflow as a whole at ``uri`` while the context lasts.

    A few calls of MLflow take no address. MLflow also writes the address to
    ``MLFLOW_TRACKING_URI``, where every later ``Home`` of this process would read it.
    """
    before = os.environ.get(TRACKING_URI)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]  # as in MLflow's tests
        if before is not None:
            os.environ[TRACKING_URI] = before


@contextlib.contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Lock the home's database against other processes while its tables may be made."""
    path = home.folder / LOCK
    handle = locks.acquire(path, wait_s=MAKING_S)
    if handle is None:
        raise TrackingError(
            f"{home.tracking_database}: {locks.holder(path)} has been making it for "
            f"{MAKING_S:.0f} s. End that process and try again."
        )
    try:
        yield
    finally:
        locks.release(handle)


def experiment_id(client: MlflowClient, home: Home) -> str:
    """Return the id of the project's experiment, created at first use.

    Raises:
        TrackingError: if it was deleted.
    """
    experiment = _experiment(client) or _create_experiment(client, home)
    return str(experiment.experiment_id)


def _experiment(client: MlflowClient) -> Experiment | None:
    """Return the project's experiment, or None if there never was one.

    Raises:
        TrackingError: if it was deleted, since its runs would look as if they never existed.
    """
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None and experiment.lifecycle_stage != "active":
        raise TrackingError(
            f"The MLflow experiment '{EXPERIMENT}' was deleted, and with it every sweep. Bring "
            f"them back: {TRACKING_URI}={shlex.quote(mask(client.tracking_uri))} mlflow "
            f"experiments restore --experiment-id {experiment.experiment_id}"
        )
    return experiment


def _create_experiment(client: MlflowClient, home: Home) -> Experiment:
    # A server decides where its artifacts go; our own database keeps them beside itself.
    location = home.artifacts.as_uri() if home.tracks_itself else None
    # The kind tells MLflow's UI to open on runs and their metrics, not on traces of chats.
    kind = {"mlflow.experimentKind": "custom_model_development"}
    try:
        made = client.create_experiment(EXPERIMENT, artifact_location=location, tags=kind)
    except MlflowException as error:
        there = client.get_experiment_by_name(EXPERIMENT)
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or there is None:
            raise
        return there
    return client.get_experiment(made)


def search(client: MlflowClient, query: str) -> list[Run]:
    """Return every run of the project's experiment that matches ``query``.

    Raises:
        TrackingError: if the experiment was deleted.
    """
    experiment = _experiment(client)
    if experiment is None:
        return []
    runs: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs(
            [experiment.experiment_id], query, max_results=PAGE, page_token=token
        )
        runs.extend(page)
        token = page.token
        if not token:
            return runs


def version_tags() -> dict[str, str]:
    """Return the versions of the packages that make a run, as tags."""
    names = ("segan-ray", "torch", "ray", "optuna", "mlflow")
    return {f"segan.version.{name}": version(name) for name in names}
