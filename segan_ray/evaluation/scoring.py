"""Scoring a model, or any other way of drawing regions, on prepared cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool

from segan_ray.data.prepare import OnCase, ignore_case
from segan_ray.data.store import PreparedCase
from segan_ray.evaluation.inference import predict_box
from segan_ray.evaluation.metrics import score_case
from segan_ray.evaluation.scores import CaseScores
from segan_ray.models.build import halvings
from segan_ray.training.checkpoint import load_segmentor

Predict = Callable[[PreparedCase], Bool[np.ndarray, "region slice height width"]]


def checkpoint_predictor(folder: Path, device: torch.device | None = None) -> Predict:
    """Return the prediction of a checkpoint's segmentor over a case's stored box.

    Raises:
        CheckpointError: if ``folder`` is no whole checkpoint.
    """
    segmentor, experiment = load_segmentor(folder)
    if device is not None:
        segmentor = segmentor.to(device)
    return lambda case: predict_box(
        segmentor,
        case,
        halvings=halvings(experiment),
        brain_mask=experiment.training.brain_mask,
        neighbours=experiment.data.neighbours,
        device=device,
    )


def score_cases(
    predict: Predict,
    cases: Sequence[PreparedCase],
    on_case: OnCase = ignore_case,
    *,
    lesion_wise: bool = False,
) -> list[CaseScores]:
    """Score ``predict`` on each case, over the whole volume in its original grid.

    ``lesion_wise`` adds the scores of single lesions.
    """
    scores = []
    for case in cases:
        predicted, truth = case.restore(predict(case)), case.truth()
        spacing_mm = case.record.spacing_mm
        regions = score_case(predicted, truth, spacing_mm)
        lesions = None
        if lesion_wise:
            from segan_ray.evaluation.lesions import score_case_lesions

            lesions = score_case_lesions(predicted, truth, spacing_mm)
        scores.append(CaseScores(case.record.case, case.record.patient, regions, lesions))
        on_case(case.record.case)
    return scores
