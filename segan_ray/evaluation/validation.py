"""Validation: overlap scores over whole volumes, averaged over cases.

Cases are shared out among the workers of a group; each scores its own, and every worker
returns the mean over all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from segan_ray.brats import REGIONS
from segan_ray.data.store import PreparedCase
from segan_ray.evaluation.inference import predict_box
from segan_ray.evaluation.metrics import overlap

Gather = Callable[[Any], list[Any]]
"""Collects one object from every worker of a group, in order of rank."""


def validate(
    segmentor: nn.Module,
    cases: Sequence[PreparedCase],
    *,
    halvings: int,
    brain_mask: bool,
    device: torch.device,
    rank: int = 0,
    workers: int = 1,
    gather: Gather = lambda mine: [mine],
) -> dict[str, float]:
    """Return ``val/{dice,precision,sensitivity}_<region>`` and ``val/dice_mean``.

    The stored box holds every voxel of tumour and brain, and overlap does not change with
    background, so these equal the scores in the original grid.
    """
    mine = []
    for case in cases[rank::workers]:
        predicted = predict_box(
            segmentor, case, halvings=halvings, brain_mask=brain_mask, device=device
        )
        mine.append(_scores(predicted, case))
    return _mean(score for scores in gather(mine) for score in scores)


def _scores(predicted: np.ndarray, case: PreparedCase) -> dict[str, float]:
    mask = case.mask()
    scores = {}
    for bit, (region, map_) in enumerate(zip(REGIONS, predicted, strict=True)):
        found = overlap(map_, mask & (1 << bit) != 0)
        scores[f"val/dice_{region}"] = found.dice
        scores[f"val/precision_{region}"] = found.precision
        scores[f"val/sensitivity_{region}"] = found.sensitivity
    scores["val/dice_mean"] = float(np.mean([scores[f"val/dice_{name}"] for name in REGIONS]))
    return scores


def _mean(scores: Iterable[dict[str, float]]) -> dict[str, float]:
    rows = list(scores)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
