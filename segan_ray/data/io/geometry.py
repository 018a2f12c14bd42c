"""Whether two images share one grid of voxels, and how the grids differ if not.

A header may state two affines, state none, or count the same voxels along other axes. Two
headers agree if any affine of the first agrees with any affine of the second, with axes turned
and flipped as needed. A header without an affine cannot disagree: if shape and spacing are the
same, its voxels are taken to lie where the other header's voxels lie.
"""

from __future__ import annotations

from itertools import product
from typing import Final

import numpy as np
from jaxtyping import Float
from nibabel.orientations import (
    aff2axcodes,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from segan_ray.data.io.headers import ImageHeader

BRATS_AXES: Final = ("L", "P", "S")
AFFINE_TOLERANCE_MM: Final = 1e-2
_DIRECTION_TOLERANCE: Final = 1e-3

Affine = Float[np.ndarray, "4 4"]


def spacing_of(affine: Float[np.ndarray, "4 4"]) -> tuple[float, float, float]:
    """Return the voxel size along x, y and z in mm."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def turned_affine(affine: Affine, grid: tuple[int, ...]) -> Affine:
    """Return the affine of a grid once its axes are turned to ``BRATS_AXES``."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(BRATS_AXES))
    turned: Affine = affine @ inv_ornt_aff(turn, grid)
    return turned


def placed(header: ImageHeader, reference: ImageHeader) -> Affine | None:
    """Return the affine of ``header`` if ``reference.affine`` is right.

    It is None if the two do not share one grid.
    """
    if not (header.forms and reference.forms):
        same = header.grid == reference.grid and np.allclose(
            spacing_of(header.affine), spacing_of(reference.affine), atol=AFFINE_TOLERANCE_MM
        )
        return reference.affine if same else None
    for form, wanted in product(header.forms, reference.forms):
        step = np.rint(np.linalg.inv(wanted) @ form)
        if _is_turn(step, header.grid, reference.grid) and np.allclose(
            wanted @ step, form, atol=AFFINE_TOLERANCE_MM
        ):
            affine: Affine = reference.affine @ step
            return affine
    return None


def same_shape(header: ImageHeader, reference: ImageHeader) -> bool:
    """Tell whether two grids have one shape, once their axes are turned alike."""
    if header.forms and reference.forms:
        return _turned_shape(header) == _turned_shape(reference)
    return header.grid == reference.grid


def differences(header: ImageHeader, reference: ImageHeader) -> str:
    """Return how two grids of one shape differ, with the values of ``reference`` first.

    If the two have different axes, both are turned to ``BRATS_AXES`` before.
    """
    pair = [reference.affine, header.affine]
    stated = bool(header.forms and reference.forms)
    turn = stated and aff2axcodes(pair[0]) != aff2axcodes(pair[1])
    if turn:
        pair = [turned_affine(header.affine, header.grid) for header in (reference, header)]
    origins = [affine[:3, 3] for affine in pair]
    spacings = [np.array(spacing_of(affine)) for affine in pair]
    directions = [affine[:3, :3] / spacing for affine, spacing in zip(pair, spacings, strict=True)]
    parts = [
        ("origins {} and {} mm", origins, AFFINE_TOLERANCE_MM),
        ("spacings {} and {} mm", spacings, AFFINE_TOLERANCE_MM),
        ("directions {} and {}", directions, _DIRECTION_TOLERANCE),
    ]
    if not stated:
        parts = [part for part in parts if part[1] is spacings]
    differing = [
        (words, values)
        for words, values, tolerance in parts
        if not np.allclose(values[0], values[1], atol=tolerance)
    ] or [(words, values) for words, values, _ in parts]
    words = ", ".join(words.format(*map(_row, values)) for words, values in differing)
    return f"{words}, both turned to {''.join(BRATS_AXES)} axes" if turn else words


def _turned_shape(header: ImageHeader) -> tuple[int, ...]:
    order = np.argsort(io_orientation(header.affine)[:, 0])
    return tuple(header.grid[axis] for axis in order)


def _is_turn(step: Affine, grid: tuple[int, ...], reference: tuple[int, ...]) -> bool:
    """Tell whether ``step`` maps ``grid`` onto the whole of ``reference``, axis to axis."""
    turn = step[:3, :3]
    if not (np.array_equal(np.abs(turn).sum(axis=0), np.ones(3)) and abs(np.linalg.det(turn)) == 1):
        return False
    ends = step[:3, :3] @ (np.array(grid) - 1) + step[:3, 3], step[:3, 3]
    low, high = np.minimum(*ends), np.maximum(*ends)
    return bool((low == 0).all() and (high == np.array(reference) - 1).all())


def _row(values: np.ndarray) -> str:
    """Return numbers as people write them: (1, 0, -2.5), a matrix as its rows."""
    if values.ndim > 1:
        return " ".join(_row(row) for row in values)
    return f"({', '.join(f'{value:.6g}' for value in values + 0.0)})"
