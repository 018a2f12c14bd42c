"""Reading NIfTI files, plain and gzipped, and noticing when one is not whole."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Float, Float32, UInt8
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from segan_ray.data.headers import ImageError, ImageHeader, checked_header, truncated


def read_header(path: Path, *, channels: int = 0) -> ImageHeader:
    """Read the header of ``path`` and compare the file's length with it.

    ``channels`` is how many a 4-D file must have, 0 for a 3-D file.

    Raises:
        ImageError: saying what the file is instead, or that it is truncated.
    """
    image, header = _open(path, channels)
    _check_length(path, image)
    return header


def read_image(
    path: Path, *, channels: int = 0
) -> tuple[Float32[np.ndarray, "x y z *channel"], Float[np.ndarray, "4 4"]]:
    """Read the voxels of ``path`` as stored, and their affine.

    Raises:
        ImageError: the file is damaged, or not what ``read_header`` expects.
    """
    image, header = _open(path, channels)
    try:
        if path.suffix == ".gz":
            # nibabel stops at the last voxel and so never sees gzip's checksum behind it.
            image = type(image).from_bytes(gzip.decompress(path.read_bytes()))
        voxels = np.asarray(image.dataobj, dtype=np.float32).reshape(header.shape)
    except (OSError, EOFError, zlib.error, ValueError, HeaderDataError) as error:
        raise ImageError(
            f"is truncated or damaged ({error}). Copy it again from the source."
        ) from None
    return voxels, header.affine


def encode_like(
    path: Path,
    voxels: UInt8[np.ndarray, "x y z"] | Float32[np.ndarray, "x y z map"],
    description: str,
) -> bytes:
    """Return a ``.nii.gz`` file of ``voxels``, which lie exactly where those of ``path`` do.

    Its header is that of ``path``: qform and sform with their codes, voxel sizes and units stay
    to the bit. What speaks of intensities goes. Equal in, equal bytes.
    """
    source: Any = nib.load(path)
    header = source.header.copy()
    header.extensions.clear()  # they tell of the scan, some of them whose it is
    header.set_data_dtype(voxels.dtype)
    header.set_intent("none")
    header["cal_min"] = header["cal_max"] = 0
    header["aux_file"] = b""
    return _packed(type(source)(voxels, source.affine, header), description)


def encode(
    voxels: Float32[np.ndarray, "x y z map"], affine: Float[np.ndarray, "4 4"], description: str
) -> bytes:
    """Return a ``.nii.gz`` file of ``voxels``, which ``affine`` maps to mm."""
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    return _packed(image, description)


def _packed(image: nib.Nifti1Image, description: str) -> bytes:
    image.header["descrip"] = description.encode("ascii")[:79]
    # Probabilities are many bytes that hardly shrink, label maps few that do at any level.
    return gzip.compress(image.to_bytes(), compresslevel=1 if image.ndim == 4 else 6, mtime=0)


def _open(path: Path, channels: int) -> tuple[nib.Nifti1Image, ImageHeader]:
    if path.stat().st_size == 0:
        raise ImageError("the file is empty. Copy it again from the source.")
    try:
        loaded = nib.load(path)
    except (OSError, EOFError, zlib.error) as error:
        raise ImageError(f"cannot be read ({error}). Copy it again from the source.") from None
    except (ImageFileError, HeaderDataError, ValueError):
        raise ImageError("is not a NIfTI image. Copy it again from the source.") from None
    if not isinstance(loaded, nib.Nifti1Image):
        raise ImageError(f"holds a {type(loaded).__name__}; expected NIfTI.")
    image: nib.Nifti1Image = loaded
    header = checked_header(image.shape, image.affine, channels=channels)
    if image.get_data_dtype().fields is not None or image.get_data_dtype().kind not in "iuf":
        raise ImageError(f"holds voxels of type {image.get_data_dtype()}; expected numbers.")
    return image, header


def _check_length(path: Path, image: nib.Nifti1Image) -> None:
    """Compare the file's length with its header's; gzip keeps the length in its last bytes."""
    on_disk: Any = image.dataobj  # nibabel sets the offset in the header to 0 as it loads
    expected = on_disk.offset + int(np.prod(image.shape)) * on_disk.dtype.itemsize
    if path.suffix == ".gz":
        with path.open("rb") as stream:
            stream.seek(-4, os.SEEK_END)
            found = int.from_bytes(stream.read(4), "little")
        # Longer is legal (padding, several gzip members), so let decompression decide.
        short = found < expected % 2**32 or (found != expected % 2**32 and not _whole(path))
    else:
        short = path.stat().st_size < expected
    if short:
        raise truncated(expected)


def _whole(path: Path) -> bool:
    try:
        with gzip.open(path) as stream:
            while stream.read(1 << 22):
                pass
    except (OSError, EOFError, zlib.error):
        return False
    return True
