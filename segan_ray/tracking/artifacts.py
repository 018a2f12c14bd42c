"""Deleting what was logged with a run: MLflow's client can only add."""

from __future__ import annotations

import contextlib
from typing import Any

from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository


def delete_artifacts(client: MlflowClient, run: str, folder: str | None = None) -> None:
    """Delete ``folder`` among the artifacts of ``run``, or all, if the store lets anybody."""
    if not client.list_artifacts(run, folder):
        return
    # The folder belongs to the address, not to the call: not every store deletes a part.
    delete_below(client, "/".join(filter(None, (client.get_run(run).info.artifact_uri, folder))))


def delete_below(client: MlflowClient, uri: str) -> None:
    """Delete every artifact at ``uri``, if the store lets anybody."""
    with contextlib.suppress(NotImplementedError):
        repository: Any = get_artifact_repository(uri, tracking_uri=client.tracking_uri)
        repository.delete_artifacts()
