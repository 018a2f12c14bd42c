"""Validation: overlap scores over whole volumes, averaged over cases.

The workers of a group share the cases out. Each scores its own, and every worker returns the
mean over all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import nn

from segan_ray.brats import REGIONS
from segan_ray.config import Experiment
from segan_ray.data.store.opened_store import BRAIN_BIT, PreparedCase
from segan_ray.evaluation.inference.inference_settings import InferenceSettings
from segan_ray.evaluation.inference.predict_box import BoxArrays, predict_box
from segan_ray.evaluation.metrics.region_metrics import overlap
from segan_ray.training.validation_scores import SCORE, Validation

BATCH: Final = 32
"""Slices at once in validation, on every device.

The last digits of a network's maps depend on it, so scores compare only where it is the same.
"""
Gather = Callable[[Any], list[Any]]
"""Collects one object from every worker of a group, in order of rank."""


class _Case(NamedTuple):
    """The scores of one case, the voxels each region fills, and the voxels it could fill."""

    scores: dict[str, float]
    filled: tuple[int, ...]
    voxels: int


def validation_settings(experiment: Experiment, device: torch.device) -> InferenceSettings:
    """Return how segmentors of ``experiment`` are used in validation and its pictures.

    Thresholds are 0.5 and no piece is dropped: both are fitted after training.
    """
    return InferenceSettings.of((experiment,), device, batch_size=BATCH)


def validate(
    segmentor: nn.Module,
    cases: Sequence[PreparedCase],
    settings: InferenceSettings,
    *,
    rank: int = 0,
    workers: int = 1,
    gather: Gather = lambda mine: [mine],
) -> Validation:
    """Return ``val/{dice,precision,sensitivity}_<region>`` and ``val/dice_mean``.

    The stored box holds every voxel of tumour and brain, and overlap does not change with
    background, so these equal the scores in the original grid.
    """
    mine = []
    for case in cases[rank::workers]:
        predicted = predict_box(segmentor, BoxArrays.of_case(case), settings).regions
        mine.append(_score(predicted, case, settings.brain_mask))
    rows = [row for shared in gather(mine) for row in shared]
    voxels = sum(row.voxels for row in rows)
    return Validation(
        {name: float(np.mean([row.scores[name] for row in rows])) for name in rows[0].scores},
        {
            region: sum(row.filled[index] for row in rows) / voxels
            for index, region in enumerate(REGIONS)
        },
    )


def _score(predicted: np.ndarray, case: PreparedCase, brain_mask: bool) -> _Case:
    mask = case.mask()
    scores = {}
    for bit, (region, map_) in enumerate(zip(REGIONS, predicted, strict=True)):
        scored = overlap(map_, mask & (1 << bit) != 0)
        scores[f"val/dice_{region}"] = scored.dice
        scores[f"val/precision_{region}"] = scored.precision
        scores[f"val/sensitivity_{region}"] = scored.sensitivity
    scores[SCORE] = float(np.mean([scores[f"val/dice_{name}"] for name in REGIONS]))
    return _Case(
        scores,
        tuple(int(map_.sum()) for map_ in predicted),
        int(np.count_nonzero(mask & BRAIN_BIT)) if brain_mask else mask.size,
    )
