"""The simplest reference: one FLAIR threshold a region, tuned on the training patients.

The more specific a region, the higher its threshold, since each lies within the one before. A
model that does not beat this reference is not worth its training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float64

from segan_ray.brats import MODALITIES, REGIONS
from segan_ray.data.store.opened_store import BRAIN_BIT, PreparedCase
from segan_ray.evaluation.scoring.score_cases import Predict

FLAIR: Final = MODALITIES.index("flair")
CANDIDATES: Final = np.arange(-1.0, 5.0, 0.05)
"""Thresholds tried, in standard deviations above the mean of the brain."""


def tuned_threshold(cases: Sequence[PreparedCase]) -> Predict:
    """Return the prediction of the thresholds with the best mean Dice on ``cases``."""
    dice = np.mean([_dice_by_threshold(case) for case in cases], axis=0)
    thresholds = CANDIDATES[list(_best_rising(dice))]

    def predict(case: PreparedCase) -> np.ndarray:
        flair, brain = _flair(case), case.mask() & BRAIN_BIT != 0
        return np.stack([brain & (flair > threshold) for threshold in thresholds])

    return predict


def _best_rising(dice: Float64[np.ndarray, "region threshold"]) -> tuple[int, ...]:
    """Return one threshold a region, none below the one before, with the highest sum of Dice."""
    total, chosen = dice[-1], np.arange(dice.shape[1])[:, None]
    for of_region in dice[-2::-1]:
        # For each threshold: the best of those from it on, for the next more specific region.
        after = [start + int(total[start:].argmax()) for start in range(len(total))]
        chosen = np.column_stack([np.arange(len(total)), chosen[after]])
        total = of_region + total[after]
    return tuple(chosen[int(total.argmax())].tolist())


def _dice_by_threshold(case: PreparedCase) -> Float64[np.ndarray, "region threshold"]:
    """Return the Dice of every candidate, by counting each voxel once in a histogram."""
    mask = case.mask()
    brain = mask & BRAIN_BIT != 0
    # A voxel in bin k lies above the first k candidates.
    bins = np.searchsorted(CANDIDATES, _flair(case)[brain], side="left")

    def above(voxels: np.ndarray) -> np.ndarray:
        counts = np.bincount(voxels, minlength=len(CANDIDATES) + 1)
        return counts[::-1].cumsum()[::-1][1:]

    predicted = above(bins)
    rows = []
    for bit in range(len(REGIONS)):
        truth = (mask & (1 << bit) != 0)[brain]
        total = predicted + truth.sum()
        shared = above(bins[truth])
        rows.append(np.where(total > 0, 2 * shared / np.maximum(total, 1), 1.0))
    return np.stack(rows)


def _flair(case: PreparedCase) -> np.ndarray:
    return case.image()[:, FLAIR].astype(np.float32)
