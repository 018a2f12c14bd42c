"""Scoring a model, or any other way to segment a case, on prepared cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool

from segan_ray.brats import as_written
from segan_ray.data.store.opened_store import PreparedCase
from segan_ray.data.store.prepare import OnCase, ignore_case
from segan_ray.evaluation.inference.packaged_model import Model
from segan_ray.evaluation.inference.segment_volume import segment_case
from segan_ray.evaluation.metrics.lesions import score_case_lesions
from segan_ray.evaluation.metrics.region_metrics import score_case
from segan_ray.evaluation.metrics.scores import CaseScores

Predict = Callable[[PreparedCase], Bool[np.ndarray, "region slice height width"]]


def model_predictor(model: Model, device: torch.device | None = None) -> Predict:
    """Return how ``model`` segments the stored box of a case, postprocessing included."""
    return lambda case: segment_case(model, case, device)


def score_cases(
    predict: Predict,
    cases: Sequence[PreparedCase],
    on_case: OnCase = ignore_case,
    *,
    lesion_wise: bool = False,
) -> list[CaseScores]:
    """Score ``predict`` on each case, over the whole volume in its original grid.

    The regions are those that a label map of the prediction holds, as the challenge scores it.
    ``lesion_wise`` adds the scores of single lesions.
    """
    scores = []
    for case in cases:
        predicted, truth = as_written(case.restore(predict(case))), case.truth()
        spacing_mm = case.record.spacing_mm
        regions = score_case(predicted, truth, spacing_mm)
        lesions = score_case_lesions(predicted, truth, spacing_mm) if lesion_wise else None
        scores.append(CaseScores(case.record.case, case.record.patient, regions, lesions))
        on_case(case.record.case)
    return scores
