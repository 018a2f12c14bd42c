"""Reading and writing MetaImage files (``.mha``), the format of BRATS 2013 and 2015.

ITK measures positions along left, back and head. Affines here are NIfTI's, along right, front
and head, so x and y change sign in between. ITK only writes: it does not check that a file is
whole, and some headers corrupt its memory.
"""

from __future__ import annotations

import tempfile
import zlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import BinaryIO, Final

import numpy as np
from jaxtyping import Float, Real, UInt8

from segan_ray.data.io.contents import open_file, unreadable
from segan_ray.data.io.headers import (
    ImageError,
    ImageHeader,
    blamed_on_file,
    check_not_longer,
    check_one_fits,
    checked_header,
    deflated_to,
    overlong,
    truncated,
)
from segan_ray.data.io.metaimage_header import HEADER_BYTES, MetaHeader, parse, wrong
from segan_ray.extras import check_installed

_LPS_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
_PIECE_BYTES: Final = 1 << 22
_READ_BYTES: Final = 1 << 20


@blamed_on_file()
def read_geometry(path: Path, *, channels: int = 0) -> ImageHeader:
    """Read the header of ``path`` alone.

    ``channels`` is how many a 4-D file must have, 0 for a 3-D file.

    Raises:
        ImageError: saying what the file is instead.
    """
    return _checked(_parse(path), channels)


@blamed_on_file()
def read_header(path: Path, *, channels: int = 0) -> ImageHeader:
    """Read the header of ``path`` and compare the file's length with it.

    ``channels`` is how many a 4-D file must have, 0 for a 3-D file.

    Raises:
        ImageError: saying what the file is instead, or that it is truncated.
    """
    stored = _parse(path)
    header = _checked(stored, channels)
    _check_length(path, stored)
    return header


@blamed_on_file()
def read_image(
    path: Path, *, channels: int = 0
) -> tuple[Real[np.ndarray, "x y z *channel"], Float[np.ndarray, "4 4"]]:
    """Read the voxels of ``path`` as stored, of the file's own type, and their affine.

    Raises:
        ImageError: the file is damaged, or not what ``read_header`` expects.
    """
    stored = _parse(path)
    header = _checked(stored, channels)
    _check_length(path, stored)
    voxels = np.frombuffer(_content(path, stored), stored.dtype)
    native = voxels.astype(stored.dtype.newbyteorder("="), copy=False)
    return native.reshape(header.shape, order="F"), header.affine


def write_image(
    path: Path, voxels: np.ndarray, affine: Float[np.ndarray, "4 4"], *, compress: bool = True
) -> None:
    """Write a volume; ``affine`` maps its voxels to mm as NIfTI does. Equal input, equal bytes.

    Raises:
        NotInstalledError: if SimpleITK is missing.
    """
    sitk = _itk()
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    lps = _LPS_TO_RAS @ affine
    spacing_mm = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing_mm.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing_mm).ravel().tolist())
    sitk.WriteImage(image, str(path), useCompression=compress)


def encode_like(path: Path, voxels: UInt8[np.ndarray, "x y z"]) -> bytes:
    """Return an ``.mha`` file of ``voxels``, on exactly the grid of ``path``.

    Raises:
        NotInstalledError: if SimpleITK is missing.
    """
    sitk = _itk()
    source = _parse(path)
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    image.SetSpacing(source.spacing_mm.tolist())
    image.SetOrigin(source.origin_mm.tolist())
    image.SetDirection(source.direction.ravel().tolist())
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "label.mha"
        sitk.WriteImage(image, str(written), useCompression=True)
        return written.read_bytes()


def _itk() -> ModuleType:
    check_installed("Writing MetaImage files (.mha)", "itk", "SimpleITK")
    import SimpleITK

    return SimpleITK


def _parse(path: Path) -> MetaHeader:
    try:
        with open_file(path) as stream:
            return parse(stream.read(HEADER_BYTES))
    except OSError as error:
        raise unreadable(path, error) from None


def _checked(stored: MetaHeader, channels: int) -> ImageHeader:
    header = checked_header(stored.shape, _LPS_TO_RAS @ stored.affine, channels=channels)
    return header if stored.placed else replace(header, forms=())


def _check_length(path: Path, stored: MetaHeader) -> None:
    """Check the file's length against its header, and the header against what can be read."""
    held = path.stat().st_size - stored.offset
    promised = stored.size if stored.packed_size is None else stored.packed_size
    if stored.compressed:
        if held < (stored.packed_size or 0) or deflated_to(held) < stored.size:
            raise truncated(promised)
    elif held < stored.size:
        raise truncated(promised)
    elif held > stored.size:  # its shape or type is not that of its voxels
        raise wrong(f"it promises {stored.size:,} bytes of voxels, {held:,} are there")
    check_not_longer(held, stored.size)
    check_one_fits(stored.shape)


def _content(path: Path, stored: MetaHeader) -> bytearray:
    """Return the bytes of all voxels, unpacked; never more than the header promises."""
    try:
        with path.open("rb") as stream:
            stream.seek(stored.offset)
            if stored.compressed:
                return _unpacked(stream, stored)
            content = bytearray(stored.size)
            if stream.readinto(content) < stored.size:
                raise truncated(stored.size)
            return content
    except OSError as error:
        raise unreadable(path, error) from None
    except zlib.error as error:
        raise ImageError(
            f"is truncated or damaged ({error}). Copy it again from the source."
        ) from None


def _unpacked(stream: BinaryIO, stored: MetaHeader) -> bytearray:
    """Unpack voxels up to their checksum, counting bytes: a small file may hold gigabytes."""
    unpack = zlib.decompressobj()
    content, packed, read = bytearray(), b"", 0
    while not unpack.eof:
        if not packed:
            packed = stream.read(_READ_BYTES)
            read += len(packed)
        piece = unpack.decompress(packed, min(_PIECE_BYTES, stored.size - len(content) + 1))
        content += piece
        if len(content) > stored.size:
            raise overlong(stored.size, stored.size)
        if not (piece or packed):
            raise truncated(stored.size)
        packed = unpack.unconsumed_tail
    if len(content) < stored.size:
        raise truncated(stored.size)
    used = read - len(unpack.unused_data)
    if stored.packed_size not in {None, used}:
        raise wrong(f"CompressedDataSize is {stored.packed_size:,}, {used:,} bytes are there")
    return content
