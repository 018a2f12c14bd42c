"""Deleting the records of a sweep, but never the run of a registered model."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run

from segan_ray.errors import SweepError, TrackingError, said
from segan_ray.filesystem.locations import is_url
from segan_ray.home import Home, check_name
from segan_ray.tracking import tag_names
from segan_ray.tracking.client.artifacts import delete_artifacts
from segan_ray.tracking.client.connection import connect, search
from segan_ray.tracking.client.retries import said_in_words
from segan_ray.tracking.outbox import OUTBOX, refuse_if_recording
from segan_ray.tracking.registry.model_versions import aliases, versions_of
from segan_ray.tracking.registry.package import delete_packages
from segan_ray.training.checkpoints.remote_folder import remove_all


@dataclass(frozen=True)
class KeptRun:
    """A run that stays because a registered ``version`` comes from it."""

    trial: str
    run: str
    version: str
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class Deleted:
    """The deleted parts of a sweep: how many runs, whether its folder; and the runs that stay."""

    sweep: str
    runs: int
    folder: bool
    kept: tuple[KeptRun, ...]


def delete_sweep(home: Home, name: str) -> Deleted:
    """Delete the MLflow runs of the sweep or run ``name``, their artifacts, and its folder.

    Until ``mlflow gc`` deleted runs can be restored, without their artifacts. Runs that registered
    versions come from stay whole. The Optuna study stays.

    Raises:
        SweepError: if nothing of that name is recorded.
        TrackingError: if a process still records it, MLflow cannot be reached, or the folder
            cannot be deleted.
        CheckpointError: if checkpoints at a URL cannot be deleted.
    """
    client = connect(home)
    folder = home.sweeps / check_name(name)
    refuse_if_recording(folder / OUTBOX)
    with said_in_words(client):
        runs = [run for run in _runs(client, name) if run.info.lifecycle_stage == "active"]
        if not runs and not folder.exists():
            raise SweepError(f"No sweep is called '{name}'. segan-ray sweeps lists them.")
        kept = tuple(held for run in runs for held in _held(client, run))
        stays = {each.run for each in kept}
        deleted = [run for run in runs if run.info.run_id not in stays]
        for run in deleted:
            _refuse_outside(home, run)
            delete_packages(client, run.info.run_id)
            delete_artifacts(client, run.info.run_id)
            client.delete_run(run.info.run_id)
    if is_url(home.storage):
        # Before the folder: a sweep whose deletion was interrupted must still be found.
        remove_all(home.storage_of(name))
    elif home.storage_setting is not None:
        shutil.rmtree(home.storage_of(name), ignore_errors=True)
    exists = folder.exists()
    try:
        if exists:
            shutil.rmtree(folder)
    except OSError as error:
        raise TrackingError(f"{folder}: cannot be deleted ({said(error)}).") from None
    return Deleted(name, len(deleted), exists, kept)


def _refuse_outside(home: Home, run: Run) -> None:
    """Make sure that the artifacts of ``run`` are in this home, for its record may be changed."""
    uri = str(run.info.artifact_uri)
    if home.tracks_itself and not uri.startswith(f"{home.artifacts.as_uri()}/"):
        raise TrackingError(
            f"{home.folder}: its record of the run {run.info.run_id} says that artifacts are at "
            f"{uri}, outside this home. Nothing of them was deleted. If the home was moved while a "
            "sweep ran, end that first; else delete the run with MLflow's own tools."
        )


def _runs(client: MlflowClient, name: str) -> list[Run]:
    """Return the sweep's runs, its own last: an interrupted deletion must find the rest again."""
    kinds = ("trial", "sweep")
    runs = search(client, f"tags.`{tag_names.SWEEP}` = '{name}'")
    own = [run for run in runs if run.data.tags.get(tag_names.KIND) in kinds]
    return sorted(own, key=lambda run: kinds.index(run.data.tags[tag_names.KIND]))


def _held(client: MlflowClient, run: Run) -> list[KeptRun]:
    versions = versions_of(client, run.info.run_id)
    held = aliases(client) if versions else {}
    trial = run.data.tags.get(tag_names.TRIAL, "")
    return [
        KeptRun(trial, run.info.run_id, str(each.version), held.get(str(each.version), ()))
        for each in versions
    ]
