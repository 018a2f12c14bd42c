"""The header that every image format has: a grid of voxels, and its position in space."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float

SLACK_BYTES: Final = 1 << 20
MOST_VOXELS: Final = 1 << 28  # thirty times those of a BRATS scan; four such scans are 4 GiB
_DEFLATE_RATIO: Final = 1032  # 258 bytes of content for 2 bits are the most that deflate packs


class ImageError(Exception):
    """One file cannot be read; the message says why."""


@dataclass(frozen=True)
class ImageHeader:
    """The shape of an image, and the affine from its voxels to mm (axes right, front, head).

    A 4-D file's last axis counts channels. ``forms`` are all affines that the header itself
    states, ``affine`` is the first of them. ``forms`` is empty if the header states no affine,
    and ``affine`` is then a convention. ``scale`` is the slope and intercept that turn stored
    numbers into values.
    """

    shape: tuple[int, ...]
    affine: Float[np.ndarray, "4 4"]
    forms: tuple[Float[np.ndarray, "4 4"], ...] = ()
    scale: tuple[float, float] = (1.0, 0.0)

    @property
    def grid(self) -> tuple[int, ...]:
        """The shape without channels."""
        return self.shape[:3]


def checked_header(
    shape: Sequence[int], affine: Float[np.ndarray, "4 4"], *, channels: int
) -> ImageHeader:
    """Return the header of a 4-D image of ``channels`` channels, or of a 3-D image for 0.

    Raises:
        ImageError: if it has other axes, or a singular affine.
    """
    grid = tuple(shape)
    while len(grid) > 3 and grid[-1] == 1 and not channels:
        grid = grid[:-1]
    if channels and (len(grid) != 4 or grid[-1] != channels):
        raise ImageError(
            f"has {times(shape)} voxels; expected a 4-D file of {channels} "
            "channels, which are its last axis. Re-export it so."
        )
    if (not channels and len(grid) != 3) or min(grid) < 1:
        raise ImageError(f"has {times(shape)} voxels; expected a 3-D volume. Re-export it as one.")
    if not is_regular(affine):
        rows = "; ".join(" ".join(f"{value:g}" for value in row) for row in affine[:3])
        raise ImageError(
            f"says nothing of where its voxels lie (its affine is singular: {rows}). "
            "Mend its header or re-export the volume."
        )
    return ImageHeader(grid, affine, (affine,))


def is_regular(affine: Float[np.ndarray, "4 4"]) -> bool:
    """Tell whether ``affine`` maps different voxels to different positions."""
    return bool(np.isfinite(affine).all()) and abs(np.linalg.det(affine[:3, :3])) >= 1e-9


def times(shape: Sequence[int | str]) -> str:
    """Return ``shape`` as people write it, 240×240×155."""
    return "×".join(map(str, shape))


def truncated(expected_bytes: int) -> ImageError:
    """Return the error of a file that ends before its last voxel."""
    return ImageError(
        f"is truncated: its header promises {expected_bytes:,} bytes of image, the file ends "
        "before. Copy it again from the source."
    )


def overlong(found_bytes: int, expected_bytes: int) -> ImageError:
    """Return the error of a file that unpacks to far more than its voxels."""
    return ImageError(
        f"unpacks to over {found_bytes:,} bytes where its header promises {expected_bytes:,}. "
        "Re-export the volume."
    )


def deflated_to(packed_bytes: int) -> int:
    """Return the most bytes that zlib or gzip can have packed into ``packed_bytes``."""
    return packed_bytes * _DEFLATE_RATIO


def check_not_longer(held_bytes: int, promised_bytes: int) -> None:
    """Refuse a file far longer, packed or not, than its header promises.

    Raises:
        ImageError: if there are more bytes behind the voxels than padding and the voxels have.
    """
    if held_bytes > 2 * promised_bytes + SLACK_BYTES:
        raise ImageError(
            f"is {held_bytes:,} bytes long where its header promises {promised_bytes:,}. "
            "Re-export the volume."
        )


def check_one_fits(shape: Sequence[int]) -> None:
    """Refuse a grid far larger than that of any scan, before memory is taken for it.

    Raises:
        ImageError: if it has too many voxels.
    """
    if math.prod(shape[:3]) > MOST_VOXELS:
        raise ImageError(
            f"has {times(shape)} voxels; expected at most {MOST_VOXELS:,}, many times those of "
            "a scan. Crop or re-export the volume."
        )


@contextmanager
def blamed_on_file() -> Iterator[None]:
    """Turn an error of memory, numbers or depth in reading a file into an error of the file.

    Raises:
        ImageError: in place of a MemoryError, OverflowError or RecursionError.
    """
    try:
        yield
    except (MemoryError, OverflowError, RecursionError) as error:
        raise ImageError(
            f"cannot be read ({type(error).__name__}): it holds, or says that it holds, more than "
            "this machine can take. Copy it again from the source or exclude the case."
        ) from None
