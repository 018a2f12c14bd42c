"""Validation: overlap scores over whole volumes, averaged over cases.

Cases are shared out among the workers of a group; each scores its own, and every worker
returns the mean over all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from segan_ray.brats import REGIONS
from segan_ray.data.store.opened_store import BRAIN_BIT, PreparedCase
from segan_ray.evaluation.inference.slicewise import predict_box
from segan_ray.evaluation.metrics.region_metrics import overlap
from segan_ray.training.validation_scores import SCORE, Validation

Gather = Callable[[Any], list[Any]]
"""Collects one object from every worker of a group, in order of rank."""


class _Case(NamedTuple):
    """One case's scores, how many voxels each map fills, and how many it might."""

    scores: dict[str, float]
    filled: tuple[int, ...]
    voxels: int


def validate(
    segmentor: nn.Module,
    cases: Sequence[PreparedCase],
    *,
    downsampling_levels: int,
    brain_mask: bool,
    device: torch.device,
    context_slices: int = 0,
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
        predicted = predict_box(
            segmentor,
            case,
            downsampling_levels=downsampling_levels,
            brain_mask=brain_mask,
            context_slices=context_slices,
            device=device,
        )
        mine.append(_score(predicted, case, brain_mask))
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
        found = overlap(map_, mask & (1 << bit) != 0)
        scores[f"val/dice_{region}"] = found.dice
        scores[f"val/precision_{region}"] = found.precision
        scores[f"val/sensitivity_{region}"] = found.sensitivity
    scores[SCORE] = float(np.mean([scores[f"val/dice_{name}"] for name in REGIONS]))
    return _Case(
        scores,
        tuple(int(map_.sum()) for map_ in predicted),
        int(np.count_nonzero(mask & BRAIN_BIT)) if brain_mask else mask.size,
    )
