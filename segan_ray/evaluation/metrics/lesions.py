"""Lesion-wise Dice and HD95, as BraTS 2023 scores glioma (dilation factor 3, 50 mm³).

Follows the challenge's public evaluation, github.com/rachitsaluja/BraTS-2023-Metrics:

- True voxels whose dilations touch are one lesion: the truth is dilated three times with 18
  neighbours, the result labelled with 26. A lesion's own voxels are the undilated ones.
- The prediction's components (26 neighbours) that meet a lesion's dilation are joined and scored
  against the lesion. One that meets two lesions counts, whole, for both.
- Lesions of at most 50 mm³ are dropped, found or not; components that meet only such ones are
  neither hits nor false positives.
- A missed lesion and a false positive score Dice 0, HD95 374 mm. A lesion whose dilation is met
  but not itself is found, at Dice 0 and the HD95 measured.
- The mean is over lesions kept and false positives; Dice 1 and HD95 0 where there are neither.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage  # type: ignore[import-untyped, unused-ignore]

from segan_ray.brats import REGIONS
from segan_ray.data.io.background import bounding_box
from segan_ray.evaluation.metrics.region_metrics import (
    HD95_ONE_EMPTY_MM,
    check_grid,
    check_pair,
    hausdorff95,
    overlap,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Int32, Int64

    from segan_ray.brats import Region

    Box = tuple[slice, ...]  # one slice for each of three axes
    Labels = Int32[np.ndarray, "x y z"]

SMALLEST_LESION_MM3: Final = 50.0
"""True lesions of this volume or less are dropped."""

_DILATIONS: Final = 3
_NEIGHBOURS_18: Final = ndimage.generate_binary_structure(3, 2)
_NEIGHBOURS_26: Final = ndimage.generate_binary_structure(3, 3)


@dataclass(frozen=True)
class LesionScores:
    """The lesion-wise scores of one region of one case; all finite, ``hd95`` in mm.

    ``dice`` and ``hd95`` are means over ``lesions + false_positives``. ``lesions`` counts the true
    ones that are large enough, ``missed`` those of them that no predicted component meets.
    """

    dice: float
    hd95: float
    lesions: int
    missed: int
    false_positives: int


def score_case_lesions(
    prediction: Bool[np.ndarray, "region x y z"],
    truth: Bool[np.ndarray, "region x y z"],
    spacing_mm: tuple[float, float, float],
) -> dict[Region, LesionScores]:
    """Return the scores of each region, whose maps are stacked in the order of ``REGIONS``."""
    check_pair(prediction, truth)
    pairs = zip(REGIONS, prediction, truth, strict=True)
    return {region: score_lesions(found, true, spacing_mm) for region, found, true in pairs}


def score_lesions(
    prediction: Bool[np.ndarray, "x y z"],
    truth: Bool[np.ndarray, "x y z"],
    spacing_mm: tuple[float, float, float],
) -> LesionScores:
    """Return the lesion-wise scores of one region over one whole volume.

    Raises ValueError for masks of two grids or of other than 3 axes and for a spacing that is
    not three positive lengths, TypeError for masks that are not boolean.
    """
    check_pair(prediction, truth)
    check_grid(prediction.shape, spacing_mm)
    if not (prediction.any() or truth.any()):
        return LesionScores(dice=1.0, hd95=0.0, lesions=0, missed=0, false_positives=0)
    # Dilations reach no further; at the array's border they are cut off, there as here.
    box = _widened(bounding_box(prediction | truth), truth.shape)
    prediction, truth = prediction[box], truth[box]
    components, lesions = _label(prediction), _label_lesions(truth)
    lesion, component = _meetings(lesions, components)
    false_positives = len(components.boxes) - len(np.unique(component))

    voxels = np.bincount(lesions.numbers[truth], minlength=1)
    # Multiplied in the challenge's order, so that rounding decides alike at the threshold.
    volumes_mm3 = voxels * spacing_mm[0] * spacing_mm[1] * spacing_mm[2]
    kept = [int(each) for each in np.flatnonzero(volumes_mm3 > SMALLEST_LESION_MM3)]
    scores = [(0.0, HD95_ONE_EMPTY_MM)] * false_positives
    for each in kept:
        own, joined = _pair(truth, lesions, each, components, component[lesion == each])
        scores.append(_score_pair(own, joined, spacing_mm))
    dice, hd95 = zip(*scores, strict=True) if scores else ((1.0,), (0.0,))
    return LesionScores(
        dice=math.fsum(dice) / len(dice),
        hd95=math.fsum(hd95) / len(hd95),
        lesions=len(kept),
        missed=len(set(kept).difference(lesion.tolist())),
        false_positives=false_positives,
    )


@dataclass(frozen=True, eq=False)
class _Objects:
    """The numbered objects of a mask, from 1 on; object ``n`` lies within ``boxes[n - 1]``."""

    numbers: Labels
    boxes: Sequence[Box]


def _label(mask: Bool[np.ndarray, "x y z"]) -> _Objects:
    """Number the components of a mask."""
    numbers = np.zeros(mask.shape, dtype=np.int32)
    ndimage.label(mask, _NEIGHBOURS_26, output=numbers)
    return _Objects(numbers, ndimage.find_objects(numbers))


def _label_lesions(truth: Bool[np.ndarray, "x y z"]) -> _Objects:
    """Number the components of the dilated truth."""
    if not truth.any():
        return _label(truth)
    box = _widened(bounding_box(truth), truth.shape)
    dilated = np.zeros_like(truth)
    ndimage.binary_dilation(truth[box], _NEIGHBOURS_18, _DILATIONS, output=dilated[box])
    return _label(dilated)


def _meetings(
    lesions: _Objects, components: _Objects
) -> tuple[Int64[np.ndarray, " meeting"], Int64[np.ndarray, " meeting"]]:
    """Return which lesions' dilations share voxels with which components."""
    pairs = lesions.numbers * np.int64(len(components.boxes) + 1) + components.numbers
    both = (lesions.numbers > 0) & (components.numbers > 0)
    lesion, component = np.divmod(np.unique(pairs[both]), len(components.boxes) + 1)
    return lesion, component


def _pair(
    truth: Bool[np.ndarray, "x y z"],
    lesions: _Objects,
    lesion: int,
    components: _Objects,
    met: Int64[np.ndarray, " meeting"],
) -> tuple[Bool[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]]:
    """Return a lesion's own voxels and those of the components it met, in a box around both."""
    box = _joint_box([lesions.boxes[lesion - 1], *(components.boxes[each - 1] for each in met)])
    own = truth[box] & (lesions.numbers[box] == lesion)
    chosen = np.zeros(len(components.boxes) + 1, dtype=np.bool_)
    chosen[met] = True
    return own, chosen[components.numbers[box]]


def _score_pair(
    own: Bool[np.ndarray, "x y z"],
    joined: Bool[np.ndarray, "x y z"],
    spacing_mm: tuple[float, float, float],
) -> tuple[float, float]:
    """Return Dice and HD95 in mm of a lesion's own voxels against those of its components."""
    if not joined.any():
        return 0.0, HD95_ONE_EMPTY_MM
    return overlap(joined, own).dice, hausdorff95(joined, own, spacing_mm)


def _joint_box(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that holds all of ``boxes``."""
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*boxes, strict=True)
    )


def _widened(box: Box, shape: tuple[int, ...]) -> Box:
    """Return ``box`` with room for the dilations on every side, as far as the array goes."""
    return tuple(
        slice(max(side.start - _DILATIONS, 0), min(side.stop + _DILATIONS, length))
        for side, length in zip(box, shape, strict=True)
    )
