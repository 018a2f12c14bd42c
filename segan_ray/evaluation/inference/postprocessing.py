"""Fitting a model's postprocessing, on the patients that it was validated on and no others.

Regions are scored as a label map holds them, so a change of the core changes the whole too. Every
combination of the three regions' settings is therefore tried. That is affordable because voxels
that every setting treats alike need only be counted: a case has some hundreds of such kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64

from segan_ray.brats import REGIONS
from segan_ray.data.store.opened_store import PreparedCase
from segan_ray.data.store.prepare import OnCase, ignore_case
from segan_ray.evaluation.inference.components import pieces
from segan_ray.evaluation.inference.inference_settings import Postprocessing
from segan_ray.evaluation.inference.packaged_model import Model
from segan_ray.evaluation.inference.segment_volume import probabilities_of_case

THRESHOLDS: Final = (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8)
SMALLEST_MM3: Final = (0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0)
"""Both begin with the plainest: of settings with equal mean Dice the plainer is taken."""
SETTINGS: Final = tuple(product(SMALLEST_MM3, THRESHOLDS))
"""All settings of one region, the plainest first: those that drop no piece, of them that of 0.5."""
SAME: Final = 1e-9

_LEVEL_BITS: Final = 3
"""Bits that count how many of ``SMALLEST_MM3`` keep a voxel; an int64 holds 21 such counts."""


def fit_postprocessing(
    validated: Sequence[tuple[Model, Sequence[PreparedCase]]],
    *,
    flips: bool = False,
    device: torch.device | None = None,
    on_case: OnCase = ignore_case,
) -> Postprocessing:
    """Return the thresholds and smallest pieces with the best Dice over regions and cases.

    ``validated`` holds a model with its validation cases, or several that will be used as one:
    each predicts the cases that it was not trained on. One case is in memory at a time. ``flips``
    says whether maps are averaged over mirrored slices, here and later.
    """
    total = np.zeros((len(SETTINGS),) * len(REGIONS))
    for model, cases in validated:
        plain = replace(model, postprocessing=Postprocessing(flips=flips))
        for case in cases:
            total += _dice(plain, case, device)
            on_case(case.record.case)
    count = sum(len(cases) for _, cases in validated)
    chosen = [SETTINGS[index] for index in _plainest_best(total / count)]
    return Postprocessing(
        thresholds={region: at for region, (_, at) in zip(REGIONS, chosen, strict=True)},
        smallest_mm3={region: small for region, (small, _) in zip(REGIONS, chosen, strict=True)},
        flips=flips,
    )


def _dice(
    model: Model, case: PreparedCase, device: torch.device | None
) -> Float[np.ndarray, "whole core enhancing"]:
    mask = case.mask()
    probability = probabilities_of_case(model, case, device)
    truth = np.stack([mask & (1 << bit) != 0 for bit in range(len(REGIONS))])
    return mean_dice_by_settings(probability, truth, float(np.prod(case.record.spacing_mm)))


def mean_dice_by_settings(
    probability: Float32[np.ndarray, "region x y z"],
    truth: Bool[np.ndarray, "region x y z"],
    voxel_mm3: float,
) -> Float[np.ndarray, "whole core enhancing"]:
    """Return the mean Dice over regions for each of ``SETTINGS`` of each region."""
    kinds = _count_kinds(probability, truth, voxel_mm3)
    whole, core, enhancing = (_dropped(kinds.keys, index) for index in range(len(REGIONS)))
    total = np.empty((len(SETTINGS),) * len(REGIONS))
    for index, dropped in enumerate(core):
        # A voxel leaves a region if the maps of that region and of all more specific ones drop it.
        outside = dropped * enhancing
        total[:, index] = (
            kinds.dice(0, whole @ (outside * kinds.voxels).T, whole @ (outside * kinds.hits[0]).T)
            + kinds.dice(1, outside @ kinds.voxels, outside @ kinds.hits[1])
            + kinds.dice(2, enhancing @ kinds.voxels, enhancing @ kinds.hits[2])
        )
    return total / len(REGIONS)


@dataclass(frozen=True, eq=False)
class _Kinds:
    """The number of voxels of each kind, and how many of them lie in each true region.

    Voxels are of one kind if every setting treats them alike; such voxels have the same key.
    """

    keys: Int64[np.ndarray, " kind"]
    voxels: Float[np.ndarray, " kind"]
    hits: Float[np.ndarray, "region kind"]

    def dice(
        self,
        region: int,
        lost: Float[np.ndarray, "*setting"],
        missed: Float[np.ndarray, "*setting"],
    ) -> Float[np.ndarray, "*setting"]:
        """Return the Dice of a region that leaves out ``lost`` voxels, ``missed`` of them true."""
        true = self.hits[region].sum()
        total = self.voxels.sum() - lost + true
        return np.where(total > 0, 2 * (true - missed) / np.maximum(total, 1), 1.0)


def _count_kinds(
    probability: Float32[np.ndarray, "region x y z"],
    truth: Bool[np.ndarray, "region x y z"],
    voxel_mm3: float,
) -> _Kinds:
    keys = np.zeros(truth.shape[1:], dtype=np.int64)
    for map_, threshold in product(probability, THRESHOLDS):
        labels, sizes = pieces(map_ > np.float32(threshold))
        keepers = np.searchsorted(np.array(SMALLEST_MM3) / voxel_mm3, sizes, side="right")
        keys <<= _LEVEL_BITS
        keys |= np.concatenate([[0], keepers])[labels]
    counted = (keys > 0) | truth.any(axis=0)
    kinds, kind = np.unique(keys[counted], return_inverse=True)
    hits = [np.bincount(kind[true[counted]], minlength=len(kinds)) for true in truth]
    voxels = np.bincount(kind, minlength=len(kinds))
    return _Kinds(kinds, voxels.astype(float), np.array(hits, dtype=float))


def _dropped(keys: Int64[np.ndarray, " kind"], region: int) -> Float[np.ndarray, "setting kind"]:
    """Return 1 where a setting of ``region`` drops a kind of voxels, 0 where it keeps it."""
    last = len(REGIONS) * len(THRESHOLDS) - 1
    keepers = [
        keys >> _LEVEL_BITS * (last - region * len(THRESHOLDS) - index) & (1 << _LEVEL_BITS) - 1
        for index in range(len(THRESHOLDS))
    ]
    sizes = np.arange(len(SMALLEST_MM3))[:, None, None]
    return (np.stack(keepers) <= sizes).reshape(len(SETTINGS), len(keys)).astype(float)


def _plainest_best(dice: Float[np.ndarray, "whole core enhancing"]) -> tuple[int, ...]:
    """Return the setting of each region with the best mean Dice, the plainest of equals."""
    best = np.argwhere(dice >= dice.max() - SAME)
    return tuple(int(index) for index in best[best.sum(axis=1).argmin()])
