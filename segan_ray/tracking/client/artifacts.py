"""Deleting artifacts of runs and models, which MLflow's client cannot do."""

from __future__ import annotations

import contextlib
import shutil
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from segan_ray.errors import TrackingError
from segan_ray.redaction import mask


def delete_artifacts(client: MlflowClient, run: str, folder: str | None = None) -> None:
    """Delete ``folder`` among the artifacts of ``run``, or all, if the store can delete.

    Raises:
        TrackingError: as ``delete_below``.
    """
    if not client.list_artifacts(run, folder):
        return
    delete_below(client, str(client.get_run(run).info.artifact_uri), run, folder)


def delete_below(client: MlflowClient, uri: str, owner: str, folder: str | None = None) -> None:
    """Delete ``folder`` below ``uri``, or all below it, if the store can delete.

    Raises:
        TrackingError: if ``uri`` is no place that MLflow makes for ``owner``, a run or a model.
    """
    # A tampered record may name any folder.
    if uri.partition("?")[0].rstrip("/").split("/")[-2:] != [owner, "artifacts"]:
        raise TrackingError(
            f"MLflow's record of {owner} says that its artifacts are at {mask(uri)}; expected a "
            f"place that ends in {owner}/artifacts. Nothing was deleted there: find out who "
            "changed the record, and delete it with MLflow's own tools."
        )
    # The folder goes into the address: not every store takes it as an argument of the call.
    place = "/".join(filter(None, (uri.rstrip("/"), folder)))
    if uri.startswith("file:"):
        # MLflow's own deletion decodes "%" in a path twice.
        shutil.rmtree(url2pathname(urlsplit(place).path), ignore_errors=True)
        return
    with contextlib.suppress(NotImplementedError):
        repository: Any = get_artifact_repository(place, tracking_uri=client.tracking_uri)
        repository.delete_artifacts()
