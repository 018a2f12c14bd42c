"""Reading and writing images of every format: ``.mha`` is MetaImage, any other name NIfTI."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Real, UInt8

from segan_ray.data.io import nifti
from segan_ray.data.io.headers import ImageHeader


def read_header(path: Path, *, channels: int = 0) -> ImageHeader:
    """Read the header of ``path`` and compare the file's length with it.

    ``channels`` is how many a 4-D file must have, 0 for a 3-D file.

    Raises:
        ImageError: saying what the file is instead, or that it is truncated.
    """
    if path.suffix.lower() == ".mha":
        from segan_ray.data.io import metaimage

        return metaimage.read_header(path, channels=channels)
    return nifti.read_header(path, channels=channels)


def read_geometry(path: Path, *, channels: int = 0) -> ImageHeader:
    """Read the header of ``path`` as ``read_header`` does, without checking the file's length."""
    if path.suffix.lower() == ".mha":
        from segan_ray.data.io import metaimage

        return metaimage.read_geometry(path, channels=channels)
    return nifti.read_geometry(path, channels=channels)


def carried_checksum(path: Path) -> str | None:
    """Return the checksum of the whole content of ``path``, if the file ends with it."""
    return None if path.suffix.lower() == ".mha" else nifti.carried_checksum(path)


def read_image(
    path: Path, *, channels: int = 0
) -> tuple[Real[np.ndarray, "x y z *channel"], Float[np.ndarray, "4 4"]]:
    """Read the voxels of ``path`` as stored, and the affine from them to mm, as NIfTI has it.

    Raises:
        ImageError: the file is damaged, or not what ``read_header`` expects.
    """
    if path.suffix.lower() == ".mha":
        from segan_ray.data.io import metaimage

        return metaimage.read_image(path, channels=channels)
    return nifti.read_image(path, channels=channels)


def encode_label(path: Path, voxels: UInt8[np.ndarray, "x y z"]) -> bytes:
    """Return a file of labels in the format of ``path``, on exactly the same grid."""
    if path.suffix.lower() == ".mha":
        from segan_ray.data.io import metaimage

        return metaimage.encode_like(path, voxels)
    return nifti.encode_like(path, voxels, "segan-ray: label map")


def encode_maps(path: Path, voxels: Float32[np.ndarray, "x y z map"], description: str) -> bytes:
    """Return a 4-D NIfTI file of maps on the grid of ``path``, which may have any format."""
    if path.suffix.lower() == ".mha":
        from segan_ray.data.io import metaimage

        return nifti.encode(voxels, metaimage.read_header(path).affine, description)
    return nifti.encode_like(path, voxels, description)
