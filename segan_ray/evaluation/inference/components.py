"""Connected pieces of a region, and dropping the small ones."""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Bool, Int, Int32
from scipy import ndimage

NEIGHBOURS: Final = np.ones((3, 3, 3), dtype=bool)
"""Voxels that touch by a face, an edge or a corner belong to one piece."""


def pieces(
    region: Bool[np.ndarray, "*grid"],
) -> tuple[Int32[np.ndarray, "*grid"], Int[np.ndarray, " piece"]]:
    """Return the number of each voxel's piece, and the voxels of each piece from piece 1 on.

    The number is 0 outside ``region``, which has three axes. Pieces connect by 26 neighbours.
    """
    labels = np.zeros(region.shape, dtype=np.int32)
    (box,) = ndimage.find_objects(region.view(np.uint8)) or (None,)
    if box is None:
        return labels, np.zeros(0, dtype=np.int64)
    count = ndimage.label(region[box], NEIGHBOURS, output=labels[box])
    return labels, np.bincount(labels[box].ravel(), minlength=count + 1)[1:]


def without_small(region: Bool[np.ndarray, "*grid"], smallest: float) -> Bool[np.ndarray, "*grid"]:
    """Return ``region`` without its pieces of fewer than ``smallest`` voxels."""
    if smallest <= 1:
        return region
    labels, sizes = pieces(region)
    kept: Bool[np.ndarray, " label"] = np.concatenate([[False], sizes >= smallest])
    cleaned: Bool[np.ndarray, "*grid"] = kept[labels]
    return cleaned
