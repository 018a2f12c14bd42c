"""The model registry: versions of ``segan``, their aliases, and fetching their files."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from segan_ray.errors import CheckpointError, RegistryError, TrackingError, said
from segan_ray.evaluation.inference.checksums import compare_checksums, digest, has_checksums
from segan_ray.home import NAME, Home
from segan_ray.tracking.client.connection import connect_to_read, pointing_at, search
from segan_ray.tracking.description.notes import version_note
from segan_ray.tracking.tag_names import KIND, SWEEP

if TYPE_CHECKING:
    from segan_ray.tracking.registry.package import Package

MODEL: Final = "segan"
SHA256: Final = "segan.sha256"
"""The tag of a version with the digest of its files as packaged."""
ALIAS: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
VERSION_LIKE: Final = re.compile(r"[vV]?\d+")
NOT_FOUND: Final = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}


@dataclass(frozen=True)
class FetchedModel:
    """A checkpoint folder on this machine, and its origin as far as it is known."""

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


def register(
    client: MlflowClient, run: str, tags: Mapping[str, str], package: Package, card: str = ""
) -> str:
    """Register the model packaged from ``run`` as a new version and return its number.

    Its ``card`` stands in its description, below where it comes from.
    """
    with contextlib.suppress(MlflowException):
        client.create_registered_model(
            MODEL, description="SegAN segmentors, promoted from sweeps by segan-ray."
        )
    # The registry looks the logged model up in MLflow's global tracking store.
    with pointing_at(client.tracking_uri):
        made = client.create_model_version(
            MODEL,
            package.uri,
            run_id=run,
            tags={**tags, SHA256: package.sha256},
            description="\n\n".join(filter(None, (version_note(tags), card))),
            model_id=package.model_id,
        )
    versions = json.dumps([{"name": MODEL, "version": made.version}])
    client.set_logged_model_tags(package.model_id, {MLFLOW_MODEL_VERSIONS: versions})
    return str(made.version)


def retag(client: MlflowClient, version: str, tags: Mapping[str, str]) -> None:
    """Write ``tags`` to a version, and to where its description begins unless that was changed."""
    before = client.get_model_version(MODEL, version)
    for name, value in tags.items():
        client.set_model_version_tag(MODEL, version, name, value)
    note, description = version_note(before.tags), before.description or ""
    if description.startswith(note):
        now = version_note({**before.tags, **tags}) + description.removeprefix(note)
        client.update_model_version(MODEL, version, now)


def versions_of(client: MlflowClient, run: str) -> list[ModelVersion]:
    """Return the registered versions whose checkpoint is that of ``run``."""
    return list(client.search_model_versions(f"run_id = '{run}'"))


def aliases(client: MlflowClient) -> dict[str, tuple[str, ...]]:
    """Return ``{version: aliases}`` of the registered model; empty if there is none."""
    by_version: dict[str, tuple[str, ...]] = {}
    try:
        registered = client.get_registered_model(MODEL).aliases
    except MlflowException as error:
        if error.error_code in NOT_FOUND:
            return {}
        raise
    for alias, version in sorted(registered.items()):
        by_version[str(version)] = (*by_version.get(str(version), ()), alias)
    return by_version


@contextlib.contextmanager
def fetched(home: Home, model: str) -> Iterator[FetchedModel]:
    """Fetch a model's checkpoint to this machine for the time of the context.

    ``model`` is a folder, an alias of ``segan``, the name of a run of ``train``, or an MLflow
    URI (``models:/segan/3``, ``models:/segan@champion``, ``runs:/<run>/checkpoint``).

    Raises:
        RegistryError: if nothing of that name can be fetched.
        CheckpointError: if a folder holds no whole checkpoint, or a version's files were changed
            after it was registered.
    """
    if Path(model).is_dir():
        yield FetchedModel(model, _whole(Path(model)))
        return
    if home.tracks_itself and not home.tracking_database.is_file():
        raise RegistryError(
            f"'{model}' is no checkpoint folder, and nothing has been recorded in {home.folder} "
            "that could have that name. Give the folder of a checkpoint, or --home."
        )
    client = connect_to_read(home)
    version = _version(client, model)
    source = _run_uri(client, model) if version is None else _version_uri(client, version)
    with tempfile.TemporaryDirectory() as into:
        try:
            # MLflow looks up a run's logged model in its global tracking store too.
            with pointing_at(client.tracking_uri):
                local = mlflow.artifacts.download_artifacts(source, dst_path=into)
        except (MlflowException, OSError) as error:
            raise RegistryError(
                f"The files of '{model}' cannot be fetched: {said(error)}."
            ) from None
        if version is not None:
            _check_digest(Path(local), version)
        run = str(version.run_id) if version is not None else source.split("/")[1]
        yield FetchedModel(
            name=model,
            folder=_whole(Path(local)),
            version=None if version is None else str(version.version),
            run=run,
            sweep=_sweep_of(client, run),
        )


def _sweep_of(client: MlflowClient, run: str) -> str | None:
    """Return the sweep of a run, or None if the run has none or was deleted."""
    try:
        return client.get_run(run).data.tags.get(SWEEP)
    except MlflowException as error:
        if error.error_code in NOT_FOUND:
            return None
        raise TrackingError(f"MLflow's run {run} cannot be read: {said(error)}.") from None


def _version_uri(client: MlflowClient, version: ModelVersion) -> str:
    """Return the address of a version's files, not that of the model they were logged as."""
    return str(client.get_model_version_download_uri(MODEL, str(version.version)))


def _whole(folder: Path) -> Path:
    """Return the folder of the model's files in ``folder``, after a check of the files."""
    # Imported here, since reading the registry does not need PyTorch.
    from segan_ray.evaluation.inference.packaged_model import member_folders, model_folder
    from segan_ray.training.checkpoints.checkpoint import read_state

    inner = model_folder(folder)
    if has_checksums(inner):
        compare_checksums(inner)
    for folder_of_member in member_folders(inner):
        read_state(folder_of_member)
    return inner


def _check_digest(folder: Path, version: ModelVersion) -> None:
    expected = version.tags.get(SHA256)
    if expected is None:
        raise CheckpointError(
            f"Version {version.version} of {MODEL} was not packaged by segan-ray, or by an older "
            f"one: it has no tag {SHA256} to check its files against. Promote its sweep again."
        )
    if digest(folder) != expected:
        raise CheckpointError(
            f"Version {version.version} of {MODEL}: its files were changed after it was "
            f"registered (their digest is not the one of its tag {SHA256}). Promote it again."
        )


def _run_uri(client: MlflowClient, model: str) -> str:
    """Return the address of a run's checkpoint, given the run's URI or its name in ``train``."""
    if model.startswith("runs:/"):
        return model
    runs = NAME.fullmatch(model) and search(
        client, f"tags.`{KIND}` = 'trial' and tags.`{SWEEP}` = '{model}'"
    )
    # A run of train is a sweep of one trial; the name of a larger sweep is ambiguous.
    if not runs or len(runs) > 1:
        raise RegistryError(
            f"'{model}' is no checkpoint folder, no alias of the registered model '{MODEL}', no "
            "run of train, and no models:/ or runs:/ URI. Promote one: segan-ray promote SWEEP"
        )
    return f"runs:/{runs[0].info.run_id}/checkpoint"


def _version(client: MlflowClient, model: str) -> ModelVersion | None:
    name = model.removeprefix(f"models:/{MODEL}")
    with contextlib.suppress(MlflowException):
        if model != name and name.startswith("/"):
            return client.get_model_version(MODEL, name[1:])
        return client.get_model_version_by_alias(MODEL, name.removeprefix("@"))
    return None
