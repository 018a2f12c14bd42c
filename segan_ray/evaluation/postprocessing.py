"""Fitting what becomes of a model's maps, on the patients it was validated on and no others."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32

from segan_ray.brats import REGIONS
from segan_ray.data.prepare import OnCase, ignore_case
from segan_ray.data.store import PreparedCase, TuningCases
from segan_ray.evaluation.components import pieces
from segan_ray.evaluation.model import Model, Postprocessing
from segan_ray.evaluation.segment import probabilities_of_box

__all__ = ["SMALLEST_MM3", "THRESHOLDS", "Postprocessing", "fit_postprocessing"]

THRESHOLDS: Final = (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8)
SMALLEST_MM3: Final = (0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0)
"""Both from the plainest on: where mean Dice is equal, the plainer setting is taken."""
SAME: Final = 1e-9


def fit_postprocessing(
    model: Model,
    cases: TuningCases,
    *,
    flips: bool = False,
    device: torch.device | None = None,
    on_case: OnCase = ignore_case,
) -> Postprocessing:
    """Return, for each region, the threshold and smallest piece with the best mean Dice.

    The mean is over the validation cases of ``cases``, of which one is in memory at a time.
    ``flips`` says whether maps are averaged over mirrored slices, here and later.
    """
    seen = replace(model, postprocessing=Postprocessing(flips=flips))
    total = np.zeros((len(REGIONS), len(THRESHOLDS), len(SMALLEST_MM3)))
    for case in cases.val:
        total += _dice(seen, case, device)
        on_case(case.record.case)
    chosen = {
        region: _plainest_best(dice / len(cases.val))
        for region, dice in zip(REGIONS, total, strict=True)
    }
    return Postprocessing(
        thresholds={region: threshold for region, (threshold, _) in chosen.items()},
        smallest_mm3={region: smallest for region, (_, smallest) in chosen.items()},
        flips=flips,
    )


def _dice(
    model: Model, case: PreparedCase, device: torch.device | None
) -> Float[np.ndarray, "region threshold smallest"]:
    mask = case.mask()
    probability = probabilities_of_box(model, case.image(), mask, device)
    smallest = np.array(SMALLEST_MM3) / float(np.prod(case.record.spacing_mm))
    return np.stack(
        [
            dice_by_setting(probability[bit], mask & (1 << bit) != 0, smallest)
            for bit in range(len(REGIONS))
        ]
    )


def dice_by_setting(
    probability: Float32[np.ndarray, "*grid"],
    truth: Bool[np.ndarray, "*grid"],
    smallest: Float[np.ndarray, " smallest"],
) -> Float[np.ndarray, "threshold smallest"]:
    """Return the Dice of a map for each of ``THRESHOLDS`` and each ``smallest`` piece in voxels.

    Pieces are found once a threshold, and each counted with its hits: dropping is a sum.
    """
    rows = []
    true = np.count_nonzero(truth)
    for threshold in THRESHOLDS:
        labels, sizes = pieces(probability > np.float32(threshold))
        hits = np.bincount(labels[truth], minlength=len(sizes) + 1)[1:]
        kept = sizes >= smallest[:, None]
        predicted = (kept * sizes).sum(axis=1)
        shared = (kept * hits).sum(axis=1)
        total = predicted + true
        rows.append(np.where(total > 0, 2 * shared / np.maximum(total, 1), 1.0))
    return np.stack(rows)


def _plainest_best(dice: Float[np.ndarray, "threshold smallest"]) -> tuple[float, float]:
    """Return the best threshold and smallest piece; dropping nothing is plainer than 0.5."""
    settings = product(range(len(SMALLEST_MM3)), range(len(THRESHOLDS)))
    smallest, threshold = next(
        (small, at) for small, at in settings if dice[at, small] >= dice.max() - SAME
    )
    return THRESHOLDS[threshold], SMALLEST_MM3[smallest]
