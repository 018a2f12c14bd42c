"""How well a predicted region matches the true one: overlap counts and the HD95 of BRATS.

``overlap`` is cheap enough for every epoch's validation; ``score_region`` and ``score_case`` add
the surface distance and are meant for whole volumes in the original grid.

HD95 follows BraTS 2023, which takes the robust Hausdorff distance of DeepMind's
``surface-distance`` (Nikolov et al. 2018, arXiv:1809.04430). Its surface lives on the corners
between voxels: a corner whose eight voxels are neither all inside nor all outside is a surface
element, weighted by the area that marching cubes gives to that arrangement of eight voxels
(Lorensen and Cline 1987).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
from scipy.spatial import KDTree

from segan_ray.brats import REGIONS

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, UInt8

    from segan_ray.brats import Region

    Corner = tuple[int, int, int]

Metric = Literal["dice", "precision", "sensitivity", "specificity", "hd95"]

METRICS: Final[tuple[Metric, ...]] = get_args(Metric)
HD95_ONE_EMPTY_MM: Final = 373.12866
"""HD95 where only one mask is empty: the diagonal of the 240x240x155 mm BRATS volume."""

_CORNERS: Final[tuple[Corner, ...]] = tuple(product((0, 1), (0, 1), (0, 1)))


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
    _check_pair(prediction, truth)
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
    _check_pair(prediction, truth)
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
    _check_pair(prediction, truth)
    if prediction.ndim != 3:
        raise ValueError(f"HD95 needs masks of 3 axes, got the shape {prediction.shape}.")
    if len(spacing_mm) != 3 or not all(math.isfinite(step) and step > 0 for step in spacing_mm):
        raise ValueError(f"The spacing must be three positive lengths in mm, got {spacing_mm}.")
    if not (prediction.any() and truth.any()):
        return HD95_ONE_EMPTY_MM if prediction.any() or truth.any() else 0.0
    box = _bounding_box(prediction | truth)
    found = _surface(prediction[box], spacing_mm)
    true = _surface(truth[box], spacing_mm)
    return max(_robust_distance(found, true), _robust_distance(true, found))


@lru_cache(maxsize=64)
def surface_areas(spacing_mm: tuple[float, float, float]) -> Float64[np.ndarray, "256"]:
    """Return the surface area in mm² at a corner for each code of the eight voxels around it.

    The voxel at offset (x, y, z) is bit 7 - (4x + 2y + z) of the code.
    """
    x_mm, y_mm, z_mm = spacing_mm
    face_mm2 = np.array([y_mm * z_mm, x_mm * z_mm, x_mm * y_mm])
    areas = np.zeros(256)
    for code in range(256):
        for piece in _pieces(_smaller_side(code)):
            areas[code] += np.linalg.norm(_normals(piece) * face_mm2, axis=-1).sum()
    areas.flags.writeable = False  # one array serves every caller
    return areas


@dataclass(frozen=True, eq=False)
class _Surface:
    """The surface elements of a mask: where they are and how much area each stands for."""

    points_mm: Float64[np.ndarray, "element 3"]
    areas_mm2: Float64[np.ndarray, " element"]


def _surface(mask: Bool[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]) -> _Surface:
    codes = _neighbour_codes(mask)
    elements = np.nonzero((codes != 0) & (codes != 255))
    return _Surface(
        points_mm=np.stack(elements, axis=-1) * np.asarray(spacing_mm, dtype=np.float64),
        areas_mm2=surface_areas(tuple(spacing_mm))[codes[elements]],
    )


def _neighbour_codes(mask: Bool[np.ndarray, "x y z"]) -> UInt8[np.ndarray, "x+1 y+1 z+1"]:
    """Return, for each corner of the voxel grid, which of its eight voxels are inside."""
    # Outside the array there is nothing, so a region cut by the border is closed there.
    padded = np.pad(mask, 1).view(np.uint8)
    nx, ny, nz = (length + 1 for length in mask.shape)
    codes = np.zeros((nx, ny, nz), dtype=np.uint8)
    for bit, (x, y, z) in zip(range(7, -1, -1), _CORNERS, strict=True):
        codes |= padded[x : x + nx, y : y + ny, z : z + nz] << np.uint8(bit)
    return codes


def _robust_distance(start: _Surface, target: _Surface) -> float:
    """Return the distance in mm within which 95% of ``start``'s area has ``target``."""
    # A tree instead of a distance transform of the grid: same distances, and its cost follows
    # the surfaces rather than the box around both, which one stray voxel can make huge.
    found, _ = KDTree(target.points_mm).query(start.points_mm)
    distances_mm = np.asarray(found, dtype=np.float64)
    order = np.lexsort((start.areas_mm2, distances_mm))
    share = np.cumsum(start.areas_mm2[order]) / start.areas_mm2.sum()
    # Rounding may leave the last share a little below 1.
    rank = min(int(np.searchsorted(share, 0.95)), len(order) - 1)
    return float(distances_mm[order[rank]])


def _bounding_box(mask: Bool[np.ndarray, "x y z"]) -> tuple[slice, slice, slice]:
    """Return the smallest box that holds all of a mask that is not empty."""

    def extent(*others: int) -> slice:
        filled = np.flatnonzero(mask.any(axis=others))
        return slice(int(filled[0]), int(filled[-1]) + 1)

    return extent(1, 2), extent(0, 2), extent(0, 1)


def _smaller_side(code: int) -> list[Corner]:
    """Return the voxels inside, or those outside if fewer: both have the same surface."""
    inside = [corner for bit, corner in enumerate(reversed(_CORNERS)) if code >> bit & 1]
    return inside if len(inside) <= 4 else [corner for corner in _CORNERS if corner not in inside]


def _pieces(voxels: list[Corner]) -> list[list[Corner]]:
    """Split voxels into groups that share faces; each group has a surface of its own."""
    pieces: list[list[Corner]] = []
    for voxel in voxels:
        touching = [piece for piece in pieces if any(_face_axis(voxel, other) for other in piece)]
        pieces = [piece for piece in pieces if piece not in touching]
        pieces.append([voxel, *(other for piece in touching for other in piece)])
    return pieces


def _face_axis(one: Corner, other: Corner) -> Corner | None:
    """Return the unit vector along which two voxels share a face, if they do."""
    x, y, z = (abs(a - b) for a, b in zip(one, other, strict=True))
    return (x, y, z) if x + y + z == 1 else None


def _normals(piece: list[Corner]) -> Float64[np.ndarray, "triangle 3"]:
    """Return the triangles that cut ``piece``, at most four voxels, off the other voxels.

    They run through the middles of the links between a voxel inside and one outside. Each is
    given by its normal without signs, as long as its area, in units of voxel faces.
    """
    axes = [axis for pair in combinations(piece, 2) if (axis := _face_axis(*pair))]
    links = np.sum(axes, axis=0) if axes else np.zeros(3)
    corner_cut = np.full(3, 1 / 8)
    if len(piece) == 1:
        return corner_cut[None]
    if len(piece) == 2:  # a rectangle along the pair
        return np.stack([(1 - links) / 4] * 2)
    if len(piece) == 3:  # an L: a pentagon, bent between the L's plane and the inner edge
        return np.stack([(1 - links) / 2, 2 * corner_cut, corner_cut])
    if links.max() == 2:  # four in a plane: a flat face
        return np.stack([(links == 0) / 2] * 2)
    ends = _chain_ends(piece)
    if not ends:  # one voxel and its three neighbours: a flat hexagon
        return np.stack([2 * corner_cut, 2 * corner_cut, corner_cut, corner_cut])
    # A chain that turns twice: a bent hexagon.
    return np.stack([corner_cut, 3 * corner_cut, *((1 - np.array(end)) / 4 for end in ends)])


def _chain_ends(piece: list[Corner]) -> list[Corner]:
    """Return the axes of the first and last link of a chain of voxels; none if it branches."""
    links = {one: [axis for b in piece if (axis := _face_axis(one, b))] for one in piece}
    if any(len(axes) == 3 for axes in links.values()):
        return []
    return [axes[0] for axes in links.values() if len(axes) == 1]


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _check_pair(prediction: np.ndarray, truth: np.ndarray) -> None:
    if prediction.shape != truth.shape:
        raise ValueError(
            f"Prediction and truth must share one grid, got {prediction.shape} and {truth.shape}."
        )
    if prediction.dtype != np.bool_ or truth.dtype != np.bool_:
        raise TypeError(
            f"Prediction and truth must be boolean, got {prediction.dtype} and {truth.dtype}."
        )
