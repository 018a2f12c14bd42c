"""What every image format says before its voxels are read: a grid, and where it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


class ImageError(Exception):
    """Why one file cannot be read, in words."""


@dataclass(frozen=True)
class ImageHeader:
    """The shape of an image, and the affine from its voxels to mm (axes right, front, head).

    A 4-D file's last axis counts channels.
    """

    shape: tuple[int, ...]
    affine: Float[np.ndarray, "4 4"]

    @property
    def grid(self) -> tuple[int, ...]:
        """The shape without channels."""
        return self.shape[:3]


def checked_header(
    shape: Sequence[int], affine: Float[np.ndarray, "4 4"], *, channels: int
) -> ImageHeader:
    """Return the header of a 3-D image, or of a 4-D one with as many ``channels``, unless 0.

    Raises:
        ImageError: it has other axes, or an affine that maps no volume.
    """
    grid = tuple(shape)
    while len(grid) > 3 and grid[-1] == 1 and not channels:
        grid = grid[:-1]
    if channels and (len(grid) != 4 or grid[-1] != channels):
        raise ImageError(f"has {times(shape)} voxels; expected a 4-D file of {channels} channels.")
    if (not channels and len(grid) != 3) or min(grid) < 1:
        raise ImageError(f"has {times(shape)} voxels; expected a 3-D volume.")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise ImageError("says nothing of where its voxels lie (its affine is singular).")
    return ImageHeader(grid, affine)


def times(shape: Sequence[int]) -> str:
    """Return ``shape`` as people write it, 240×240×155."""
    return "×".join(map(str, shape))


def truncated(expected_bytes: int) -> ImageError:
    """Return the error of a file that ends before its last voxel."""
    return ImageError(
        f"is truncated: its header promises {expected_bytes:,} bytes of image, the file ends "
        "before. Copy it again from the source."
    )
