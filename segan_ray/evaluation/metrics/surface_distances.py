"""How far one surface lies from another: the robust Hausdorff distance of BraTS 2023.

Surfaces lie on a grid, and predictions mostly lie a few voxels from the truth. So the grid is
looked through nearby first, one axis after the other; what is left is asked from a tree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from scipy.spatial import KDTree

from segan_ray.evaluation.metrics.surfaces import Surface

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int64, Real

_SHARE: Final = 0.95
_ROUNDING: Final = 1e-9
"""What sums of areas, as a share of all, and distances, in mm, may be off by."""
_NEAR: Final = (4, 8)
"""How far to look on the grid of corners, in mean voxels, before a tree looks everywhere."""
_FAR: Final = 2**14
"""Squared distance, in voxels, of what is not near: more than any radius, and no sum overflows."""
_VOXELS_PER_ELEMENT: Final = 100
"""From how many voxels for each element on asking a tree beats going through the grid."""
_BLOCK_SIDES: Final = (4, 2)


def robust_distance(start: Surface, target: Surface) -> float:
    """Return the distance in mm within which 95% of ``start``'s area has ``target``."""
    enough_mm2 = (_SHARE - _ROUNDING) * float(start.areas_mm2.sum())
    for voxels in _NEAR:
        radius_mm = voxels * float(np.prod(start.spacing_mm)) ** (1 / 3)
        distances_mm = _distances_within(radius_mm, start, target)
        if distances_mm is None:
            break
        within = distances_mm <= radius_mm
        near_mm2 = float(start.areas_mm2[within].sum())
        if near_mm2 >= enough_mm2:
            return _reach(distances_mm[within], start.areas_mm2[within], enough_mm2)
        start, enough_mm2 = start.only(~within), enough_mm2 - near_mm2
    # A tree's cost follows the surfaces, not the box around both, which one stray voxel can make
    # huge. Without balancing it is quicker to build, and to ask as well for points on a grid.
    tree = KDTree(target.points_mm(), leafsize=64, balanced_tree=False, compact_nodes=False)
    for side in _BLOCK_SIDES:
        start, nearer_mm2 = _undecided(start, tree, side, enough_mm2)
        enough_mm2 -= nearer_mm2
    return _reach(_distances(tree, start.points_mm()), start.areas_mm2, enough_mm2)


def _distances_within(
    radius_mm: float, start: Surface, target: Surface
) -> Float64[np.ndarray, " element"] | None:
    """Return how far each element is, and for those beyond ``radius_mm`` something larger.

    None where there is far more grid than surface to go through.
    """
    radii = np.floor(radius_mm / np.asarray(start.spacing_mm) + _ROUNDING).astype(np.int64)
    # No element further from the target's box than the radius is near enough.
    low = np.maximum(start.corners.min(axis=1), target.corners.min(axis=1) - radii)
    shape = np.minimum(start.corners.max(axis=1), target.corners.max(axis=1) + radii) - low + 1
    distances_mm = np.full(len(start.areas_mm2), np.inf)
    if (shape <= 0).any():
        return distances_mm
    if np.prod(shape + 2 * radii) > _VOXELS_PER_ELEMENT * len(distances_mm):
        return None
    unit_mm, squares = _squared_steps(start.spacing_mm, radii)
    grid = _squared_distances(target.corners, low - radii, shape, squares)
    inside, index = _places(start.corners, low, shape)
    distances_mm[inside] = unit_mm * np.sqrt(grid.ravel()[index], dtype=np.float64)
    return distances_mm


def _places(
    corners: Int64[np.ndarray, "3 element"],
    low: Int64[np.ndarray, "3"],
    shape: Int64[np.ndarray, "3"],
) -> tuple[Bool[np.ndarray, " element"], Int64[np.ndarray, " inside"]]:
    """Return which corners lie in the grid at ``low``, and where in it, flattened, those do."""
    inside = np.ones(corners.shape[1], dtype=np.bool_)
    for along, first, length in zip(corners, low, shape, strict=True):
        inside &= (along >= first) & (along < first + length)
    x, y, z = corners[:, inside] - low[:, None]
    return inside, (x * shape[1] + y) * shape[2] + z


def _squared_steps(
    spacing_mm: tuple[float, float, float], radii: Int64[np.ndarray, "3"]
) -> tuple[float, list[np.ndarray]]:
    """Return a unit in mm and, for each axis, the squares of 0 to ``radius`` steps along it.

    With equal steps they are small whole numbers, which take a quarter of the time.
    """
    if len(set(spacing_mm)) == 1:
        return spacing_mm[0], [np.arange(radius + 1, dtype=np.uint16) ** 2 for radius in radii]
    steps_mm = zip(spacing_mm, radii, strict=True)
    return 1.0, [(step * np.arange(radius + 1)) ** 2 for step, radius in steps_mm]


def _squared_distances(
    corners: Int64[np.ndarray, "3 element"],
    low: Int64[np.ndarray, "3"],
    shape: Int64[np.ndarray, "3"],
    squares: list[np.ndarray],
) -> Real[np.ndarray, "x y z"]:
    """Return the squared distance to the nearest of ``corners``, if it is within the radii.

    ``low`` is where a margin of one radius around the grid begins.
    """
    x, y, z = (len(axis) - 1 for axis in squares)
    wide = shape + 2 * np.array([x, y, z])
    _, index = _places(corners, low, wide)
    kind = squares[2].dtype
    size = int(wide.prod())
    flat = np.full(size + 2 * z, np.inf if kind.kind == "f" else _FAR, dtype=kind)
    # The nearest last, over the others. What goes over a row's end lands in the margin.
    for step in range(z, -1, -1):
        flat[z + step :][index] = flat[z - step :][index] = squares[2][step]
    grid = flat[z : z + size].reshape(wide)[:, :, z : z + shape[2]]
    return _nearer_along(0, _nearer_along(1, np.ascontiguousarray(grid), squares[1]), squares[0])


def _nearer_along(axis: int, grid: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Return the smallest sum of a value and the square of its distance along ``axis``."""
    radius = len(squares) - 1
    length = grid.shape[axis] - 2 * radius

    def moved(step: int) -> np.ndarray:
        first = radius + step
        return grid[(slice(None),) * axis + (slice(first, first + length),)]

    nearest = moved(0).copy()
    sums = np.empty_like(nearest)
    for step in range(1, radius + 1):
        np.minimum(moved(step), moved(-step), out=sums)
        sums += squares[step]
        np.minimum(nearest, sums, out=nearest)
    return nearest


def _undecided(start: Surface, tree: KDTree, side: int, enough_mm2: float) -> tuple[Surface, float]:
    """Return the elements that may be where ``enough_mm2`` is reached, and the area of nearer ones.

    Distances change no faster than one moves, so all elements in a block of ``side`` corners a
    side are as far from the target as the block's centre, give or take its radius; hence so is
    the distance looked for, give or take the radius, from that found for the blocks.
    """
    blocks = start.corners // side
    shape = blocks.max(axis=1) + 1
    block = np.ravel_multi_index(tuple(blocks), tuple(shape))
    areas_mm2 = np.bincount(block, weights=start.areas_mm2)
    filled = np.flatnonzero(areas_mm2)
    centres = np.stack(np.unravel_index(filled, shape), axis=-1) * side + (side - 1) / 2
    distances_mm = _distances(tree, centres * start.spacing_mm)
    reach_mm = _reach(distances_mm, areas_mm2[filled], enough_mm2)
    apart_mm = (side - 1) * float(np.linalg.norm(start.spacing_mm)) + _ROUNDING
    possible = np.zeros(len(areas_mm2), dtype=np.bool_)
    possible[filled] = np.abs(distances_mm - reach_mm) <= apart_mm
    nearer = filled[distances_mm < reach_mm - apart_mm]
    return start.only(possible[block]), float(areas_mm2[nearer].sum())


def _distances(
    tree: KDTree, points_mm: Float64[np.ndarray, "point 3"]
) -> Float64[np.ndarray, " point"]:
    found, _ = tree.query(points_mm)
    return np.asarray(found, dtype=np.float64)


def _reach(
    distances_mm: Float64[np.ndarray, " element"],
    areas_mm2: Float64[np.ndarray, " element"],
    enough_mm2: float,
) -> float:
    """Return the smallest distance within which the areas make up ``enough_mm2``."""
    order = np.argsort(distances_mm)
    covered_mm2 = np.cumsum(areas_mm2[order])
    # Rounding may leave the last sum a little below.
    rank = min(int(np.searchsorted(covered_mm2, enough_mm2)), len(order) - 1)
    return float(distances_mm[order[rank]])
