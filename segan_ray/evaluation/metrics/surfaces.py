"""Surfaces of voxel masks, as BraTS 2023 measures them.

They are those of DeepMind's ``surface-distance`` (Nikolov et al. 2018, arXiv:1809.04430). A surface
lives on the corners between voxels: a corner whose eight voxels are neither all inside nor all
outside is a surface element, weighted by the area that marching cubes gives to that arrangement of
eight voxels (Lorensen and Cline 1987).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, product
from typing import TYPE_CHECKING, Final

import numpy as np

from segan_ray.data.io.background import bounding_box

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int64, UInt8

    Corner = tuple[int, int, int]

_CORNERS: Final[tuple[Corner, ...]] = tuple(product((0, 1), (0, 1), (0, 1)))


@dataclass(frozen=True, eq=False)
class Surface:
    """The surface elements of a mask: where they are and how much area each stands for.

    ``corners`` are counted in voxels; corner (x, y, z) lies before voxel (x, y, z).
    """

    corners: Int64[np.ndarray, "3 element"]
    areas_mm2: Float64[np.ndarray, " element"]
    spacing_mm: tuple[float, float, float]

    def points_mm(self) -> Float64[np.ndarray, "element 3"]:
        """Return where the elements are in mm."""
        return self.corners.T * np.asarray(self.spacing_mm, dtype=np.float64)

    def only(self, chosen: Bool[np.ndarray, " element"]) -> Surface:
        """Return the chosen elements."""
        return Surface(self.corners[:, chosen], self.areas_mm2[chosen], self.spacing_mm)


def surface_of(mask: Bool[np.ndarray, "x y z"], spacing_mm: tuple[float, float, float]) -> Surface:
    """Return the surface of a mask that is not empty; outside the array there is nothing."""
    box = bounding_box(mask)
    codes = _neighbour_codes(mask[box])
    elements = np.flatnonzero(codes + np.uint8(1) > 1)  # neither 0 nor 255, which wraps to 0
    corners = np.stack(np.unravel_index(elements, codes.shape))
    corners += np.array([[side.start] for side in box])
    return Surface(
        corners=corners,
        areas_mm2=surface_areas(spacing_mm)[codes.ravel()[elements]],
        spacing_mm=spacing_mm,
    )


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


def _neighbour_codes(mask: Bool[np.ndarray, "x y z"]) -> UInt8[np.ndarray, "x+1 y+1 z+1"]:
    """Return, for each corner of the voxel grid, which of its eight voxels are inside."""
    # Outside the array there is nothing, so a region cut by the border is closed there.
    codes = np.pad(mask, 1).view(np.uint8)
    for axis, bits in ((2, 1), (1, 2), (0, 4)):
        before, after = (np.moveaxis(codes, axis, 0)[part] for part in (slice(-1), slice(1, None)))
        codes = np.moveaxis(before << np.uint8(bits) | after, 0, axis)
    return codes


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
