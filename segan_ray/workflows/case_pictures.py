"""Cases of an evaluation as pictures beside its scores."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from mlflow import MlflowClient

from segan_ray.evaluation.figures.showcase import RANKS, draw_showcase

if TYPE_CHECKING:
    import torch

    from segan_ray.data.store.opened_store import PreparedCase
    from segan_ray.evaluation.inference.packaged_model import Model
    from segan_ray.evaluation.metrics.scores import CaseScores
    from segan_ray.evaluation.scoring.score_cases import Predict

FOLDER = "overlays"


def log_overlay(
    client: MlflowClient,
    run: str,
    model: Model,
    cases: Sequence[PreparedCase],
    device: torch.device,
) -> None:
    """Log ``overlays/test.png`` to the run of an evaluation: the regions that were scored."""
    # Reports read pictures alone, and need no PyTorch for that.
    from segan_ray.evaluation.figures.overlays import draw_overlay

    picture = draw_overlay(model.segmentor, cases, model.inference_settings(device))
    client.log_image(run, picture, artifact_file=f"{FOLDER}/test.png")


def log_showcase(
    client: MlflowClient,
    run: str,
    predict: Predict,
    cases: Sequence[PreparedCase],
    scores: Sequence[CaseScores],
) -> None:
    """Log ``overlays/best.png``, ``median.png`` and ``worst.png`` to the run of an evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        for rank, picture in draw_showcase(predict, cases, scores):
            file = Path(folder) / f"{rank}.png"
            picture.save(file, optimize=True)
            client.log_artifact(run, str(file), FOLDER)


def read_showcase(client: MlflowClient, run: str) -> dict[str, bytes]:
    """Return ``{rank: PNG}`` of an evaluation; empty if it has no pictures."""
    wanted = {f"{FOLDER}/{rank}.png": rank for rank in RANKS}
    logged = {file.path for file in client.list_artifacts(run, FOLDER)}
    with tempfile.TemporaryDirectory() as into:
        return {
            rank: Path(
                mlflow.artifacts.download_artifacts(
                    run_id=run, artifact_path=path, dst_path=into, tracking_uri=client.tracking_uri
                )
            ).read_bytes()
            for path, rank in wanted.items()
            if path in logged
        }
