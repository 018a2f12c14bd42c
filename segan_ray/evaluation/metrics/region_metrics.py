"""How well a predicted region matches the true one: overlap counts and the HD95 of BRATS.

``overlap`` is cheap enough for every epoch's validation; ``score_region`` and ``score_case`` add
the surface distance and are meant for whole volumes in the original grid.

HD95 follows BraTS 2023: the robust Hausdorff distance over surface elements weighted by their
area, see ``surfaces`` and ``surface_distances``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np

from segan_ray.brats import REGIONS
from segan_ray.evaluation.metrics.surface_distances import robust_distance
from segan_ray.evaluation.metrics.surfaces import surface_of

if TYPE_CHECKING:
    from jaxtyping import Bool

    from segan_ray.brats import Region

Metric = Literal["dice", "precision", "sensitivity", "specificity", "hd95"]

METRICS: Final[tuple[Metric, ...]] = get_args(Metric)
HD95_ONE_EMPTY_MM: Final = 374.0
"""HD95 where only one mask is empty, as the code of BraTS 2023 counts it, lesion or volume.

The diagonal of the 240x240x155 mm BRATS volume is 373.13; that code puts 374 in its place.
"""


@dataclass(frozen=True)
class RegionScores:
    """The scores of one region of one case; all finite, ``hd95`` in mm."""

    dice: float
    precision: float
    sensitivity: float
    specificity: float
    hd95: float

    def as_dict(self) -> dict[Metric, float]:
        """Return the scores by name, in the order of ``METRICS``."""
        return {metric: getattr(self, metric) for metric in METRICS}


@dataclass(frozen=True)
class Overlap:
    """The scores that only count voxels, each in [0, 1]."""

    dice: float
    precision: float
    sensitivity: float
    specificity: float


def overlap(prediction: Bool[np.ndarray, "*grid"], truth: Bool[np.ndarray, "*grid"]) -> Overlap:
    """Return how far two masks share their voxels.

    0/0 counts 0, save that two empty masks agree perfectly: Dice, precision, sensitivity 1.
    """
    check_pair(prediction, truth)
    hits = int(np.count_nonzero(prediction & truth))
    predicted = int(np.count_nonzero(prediction))
    true = int(np.count_nonzero(truth))
    negatives = truth.size - true
    both_empty = predicted == true == 0
    return Overlap(
        dice=1.0 if both_empty else _ratio(2 * hits, predicted + true),
        precision=1.0 if both_empty else _ratio(hits, predicted),
        sensitivity=1.0 if both_empty else _ratio(hits, true),
        specificity=_ratio(negatives - (predicted - hits), negatives),
    )


def score_region(
    prediction: Bool[np.ndarray, "x y z"],
    truth: Bool[np.ndarray, "x y z"],
    spacing_mm: tuple[float, float, float],
) -> RegionScores:
    """Return all scores of one region over one whole volume."""
    ratios = overlap(prediction, truth)
    return RegionScores(
        dice=ratios.dice,
        precision=ratios.precision,
        sensitivity=ratios.sensitivity,
        specificity=ratios.specificity,
        hd95=hausdorff95(prediction, truth, spacing_mm),
    )


def score_case(
    prediction: Bool[np.ndarray, "region x y z"],
    truth: Bool[np.ndarray, "region x y z"],
    spacing_mm: tuple[float, float, float],
) -> dict[Region, RegionScores]:
    """Return the scores of each region, whose maps are stacked in the order of ``REGIONS``."""
    check_pair(prediction, truth)
    pairs = zip(REGIONS, prediction, truth, strict=True)
    return {region: score_region(found, true, spacing_mm) for region, found, true in pairs}


def hausdorff95(
    prediction: Bool[np.ndarray, "x y z"],
    truth: Bool[np.ndarray, "x y z"],
    spacing_mm: tuple[float, float, float],
) -> float:
    """Return the robust Hausdorff distance in mm at 95% of the surface, the larger direction.

    0 when both masks are empty, ``HD95_ONE_EMPTY_MM`` when one is.
    """
    check_pair(prediction, truth)
    check_grid(prediction.shape, spacing_mm)
    if not (prediction.any() and truth.any()):
        return HD95_ONE_EMPTY_MM if prediction.any() or truth.any() else 0.0
    found, true = surface_of(prediction, spacing_mm), surface_of(truth, spacing_mm)
    return max(robust_distance(found, true), robust_distance(true, found))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def check_grid(shape: tuple[int, ...], spacing_mm: tuple[float, float, float]) -> None:
    """Raise ValueError unless distances in mm can be measured on such a grid."""
    if len(shape) != 3:
        raise ValueError(f"HD95 needs masks of 3 axes, got the shape {shape}.")
    if len(spacing_mm) != 3 or not all(math.isfinite(step) and step > 0 for step in spacing_mm):
        raise ValueError(f"The spacing must be three positive lengths in mm, got {spacing_mm}.")


def check_pair(prediction: np.ndarray, truth: np.ndarray) -> None:
    """Raise ValueError unless both have one shape, TypeError unless both are boolean."""
    if prediction.shape != truth.shape:
        raise ValueError(
            f"Prediction and truth must share one grid, got {prediction.shape} and {truth.shape}."
        )
    if prediction.dtype != np.bool_ or truth.dtype != np.bool_:
        raise TypeError(
            f"Prediction and truth must be boolean, got {prediction.dtype} and {truth.dtype}."
        )
