"""Best, median and worst case of an evaluation, as pictures beside its scores."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from mlflow import MlflowClient

from segan_ray.evaluation.figures.showcase import PLACES, draw_showcase

if TYPE_CHECKING:
    from segan_ray.data.store.opened_store import PreparedCase
    from segan_ray.evaluation.metrics.scores import CaseScores
    from segan_ray.evaluation.scoring.score_cases import Predict

FOLDER = "overlays"


def log_showcase(
    client: MlflowClient,
    run: str,
    predict: Predict,
    cases: Sequence[PreparedCase],
    scores: Sequence[CaseScores],
) -> None:
    """Log ``overlays/best.png``, ``median.png`` and ``worst.png`` to the run of an evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        for place, picture in draw_showcase(predict, cases, scores):
            file = Path(folder) / f"{place}.png"
            picture.save(file, optimize=True)
            client.log_artifact(run, str(file), FOLDER)


def read_showcase(client: MlflowClient, run: str) -> dict[str, bytes]:
    """Return ``{place: PNG}`` of an evaluation, nothing of one that was made without."""
    wanted = {f"{FOLDER}/{place}.png": place for place in PLACES}
    held = {one.path for one in client.list_artifacts(run, FOLDER)}
    with tempfile.TemporaryDirectory() as into:
        return {
            place: Path(
                mlflow.artifacts.download_artifacts(
                    run_id=run, artifact_path=path, dst_path=into, tracking_uri=client.tracking_uri
                )
            ).read_bytes()
            for path, place in wanted.items()
            if path in held
        }
