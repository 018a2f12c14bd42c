"""The model registry: versions of ``segan``, their aliases, and fetching what they name."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from segan_ray.errors import RegistryError, TrackingError
from segan_ray.home import NAME, Home
from segan_ray.tracking.client import KIND, SWEEP, connect, search
from segan_ray.tracking.notes import version_note
from segan_ray.training.checkpoint import read_state

MODEL: Final = "segan"
CHAMPION: Final = "champion"
PREVIOUS: Final = "previous"
ALIAS: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
VERSION_LIKE: Final = re.compile(r"[vV]?\d+")
NOT_FOUND: Final = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}


@dataclass(frozen=True)
class FetchedModel:
    """A checkpoint folder on this machine, and what is known of where it came from."""

    name: str
    folder: Path
    version: str | None = None
    run: str | None = None
    sweep: str | None = None


def find_alias(client: MlflowClient, alias: str) -> ModelVersion | None:
    """Return the version an alias points at, or None.

    Raises:
        TrackingError: if the registry does not answer, which is not the same as no version.
    """
    try:
        return client.get_model_version_by_alias(MODEL, alias)
    except MlflowException as error:
        if error.error_code in NOT_FOUND:
            return None
        raise TrackingError(f"The model registry cannot be read: {error.message}") from None


def check_alias(alias: str) -> str:
    """Return ``alias`` if MLflow takes it.

    Raises:
        RegistryError: saying what an alias may be.
    """
    if not ALIAS.fullmatch(alias) or VERSION_LIKE.fullmatch(alias) or alias == "latest":
        raise RegistryError(
            f"'{alias}' cannot be an alias. Use letters, digits, '-' and '_'; 'latest' and names "
            "like v2 are MLflow's own."
        )
    return alias


def register(client: MlflowClient, run: str, tags: Mapping[str, str]) -> str:
    """Register the checkpoint of ``run`` as a new version and return its number."""
    with contextlib.suppress(MlflowException):
        client.create_registered_model(
            MODEL, description="SegAN segmentors, promoted from sweeps by segan-ray."
        )
    source = f"{client.get_run(run).info.artifact_uri}/checkpoint"
    made = client.create_model_version(
        MODEL, source, run_id=run, tags=dict(tags), description=version_note(tags)
    )
    return str(made.version)


def move_alias(client: MlflowClient, alias: str, version: str) -> None:
    """Point ``alias`` at ``version``; the champion it had becomes the previous one."""
    held = find_alias(client, alias)
    if held is not None and alias == CHAMPION and str(held.version) != version:
        client.set_registered_model_alias(MODEL, PREVIOUS, str(held.version))
    client.set_registered_model_alias(MODEL, alias, version)


def versions_of(client: MlflowClient, run: str) -> list[ModelVersion]:
    """Return the registered versions whose checkpoint is that of ``run``."""
    return list(client.search_model_versions(f"run_id = '{run}'"))


def aliases(client: MlflowClient) -> dict[str, tuple[str, ...]]:
    """Return ``{version: aliases}`` of the registered model; nothing if there is none."""
    held: dict[str, tuple[str, ...]] = {}
    try:
        found = client.get_registered_model(MODEL).aliases
    except MlflowException as error:
        if error.error_code in NOT_FOUND:
            return {}
        raise
    for alias, version in sorted(found.items()):
        held[str(version)] = (*held.get(str(version), ()), alias)
    return held


@contextlib.contextmanager
def fetched(home: Home, model: str) -> Iterator[FetchedModel]:
    """Have a model's checkpoint on this machine while the context lasts.

    ``model`` is a folder, an alias of ``segan``, the name of a run of ``train``, or an MLflow
    URI (``models:/segan/3``, ``models:/segan@champion``, ``runs:/<run>/checkpoint``).

    Raises:
        RegistryError: if nothing of that name can be had.
        CheckpointError: if a folder holds no whole checkpoint.
    """
    folder = Path(model)
    if folder.is_dir():
        read_state(folder)
        yield FetchedModel(model, folder)
        return
    client = connect(home)
    version = _version(client, model)
    source = str(version.source) if version is not None else _run_uri(client, model)
    mlflow.set_tracking_uri(home.tracking_uri)
    with tempfile.TemporaryDirectory() as into:
        try:
            local = mlflow.artifacts.download_artifacts(source, dst_path=into)
        except (MlflowException, OSError) as error:
            raise RegistryError(f"The files of '{model}' cannot be fetched: {error}") from None
        run = str(version.run_id) if version is not None else source.split("/")[1]
        yield FetchedModel(
            name=model,
            folder=Path(local),
            version=None if version is None else str(version.version),
            run=run,
            sweep=client.get_run(run).data.tags.get(SWEEP),
        )


def _run_uri(client: MlflowClient, model: str) -> str:
    """Return where the checkpoint of a run is, given its URI or the name ``train`` gave it."""
    if model.startswith("runs:/"):
        return model
    named = NAME.fullmatch(model) and search(
        client, f"tags.`{KIND}` = 'train' and tags.`{SWEEP}` = '{model}'"
    )
    if not named:
        raise RegistryError(
            f"'{model}' is no checkpoint folder, no alias of the registered model '{MODEL}', no "
            "run of train, and no models:/ or runs:/ URI. Promote one: segan-ray promote SWEEP"
        )
    return f"runs:/{named[0].info.run_id}/checkpoint"


def _version(client: MlflowClient, model: str) -> ModelVersion | None:
    name = model.removeprefix(f"models:/{MODEL}")
    with contextlib.suppress(MlflowException):
        if model != name and name.startswith("/"):
            return client.get_model_version(MODEL, name[1:])
        return client.get_model_version_by_alias(MODEL, name.removeprefix("@"))
    return None
