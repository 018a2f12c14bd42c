"""Reading and writing MetaImage files (``.mha``), the format of BRATS 2013 and 2015.

ITK measures positions along left, back and head; everything here speaks NIfTI's right, front
and head, so x and y change sign on the way. ITK does not check that a file is whole: it may
print a warning and return what it found, so lengths and checksums are compared first.
"""

from __future__ import annotations

import re
import tempfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import SimpleITK as sitk  # noqa: N813
from jaxtyping import Float, Real, UInt8

from segan_ray.data.contents import not_expected, open_file, unreadable
from segan_ray.data.headers import (
    SLACK_BYTES,
    ImageError,
    ImageHeader,
    checked_header,
    overlong,
    times,
    truncated,
)

_LPS_TO_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
_HEADER_BYTES: Final = 1 << 16
_PLACE: Final = b"ElementDataFile"
_PLACES: Final = frozenset(
    {"Offset", "Origin", "Position", "TransformMatrix", "Rotation", "Orientation"}
)
_ITEM_BYTES: Final = {
    "MET_CHAR": 1,
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_LONG": 4,
    "MET_ULONG": 4,
    "MET_LONG_LONG": 8,
    "MET_ULONG_LONG": 8,
    "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}


def read_geometry(path: Path, *, channels: int = 0) -> ImageHeader:
    """Read the header of ``path`` alone.

    ``channels`` is how many a 4-D file must have, 0 for a 3-D file.

    Raises:
        ImageError: saying what the file is instead.
    """
    return _itk_header(path, _parse(path), channels)


def read_header(path: Path, *, channels: int = 0) -> ImageHeader:
    """Read the header of ``path`` and compare the file's length with it.

    ``channels`` is how many a 4-D file must have, 0 for a 3-D file.

    Raises:
        ImageError: saying what the file is instead, or that it is truncated.
    """
    layout = _parse(path)
    header = _itk_header(path, layout, channels)
    layout.check_length(path)
    return header


def read_image(
    path: Path, *, channels: int = 0
) -> tuple[Real[np.ndarray, "x y z *channel"], Float[np.ndarray, "4 4"]]:
    """Read the voxels of ``path`` as stored, of the file's own type, and their affine.

    Raises:
        ImageError: the file is damaged, or not what ``read_header`` expects.
    """
    layout = _parse(path)
    header = _itk_header(path, layout, channels)
    layout.check_length(path)
    layout.check_content(path)
    _refuse_second_place(path)
    try:
        image = sitk.ReadImage(str(path), imageIO="MetaImageIO")
    except RuntimeError as error:
        raise _damaged(str(error).strip().splitlines()[-1]) from None
    return sitk.GetArrayFromImage(image).T.reshape(header.shape), header.affine


def write_image(
    path: Path, voxels: np.ndarray, affine: Float[np.ndarray, "4 4"], *, compress: bool = True
) -> None:
    """Write a volume; ``affine`` maps its voxels to mm as NIfTI does. Equal in, equal bytes."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    lps = _LPS_TO_RAS @ affine
    spacing_mm = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing_mm.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing_mm).ravel().tolist())
    sitk.WriteImage(image, str(path), useCompression=compress)


def encode_like(path: Path, voxels: UInt8[np.ndarray, "x y z"]) -> bytes:
    """Return an ``.mha`` file of ``voxels``, which lie exactly where those of ``path`` do."""
    source = _information(path)
    axes = source.GetDimension()
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.T))
    image.SetSpacing(source.GetSpacing()[:3])
    image.SetOrigin(source.GetOrigin()[:3])
    image.SetDirection(np.reshape(source.GetDirection(), (axes, axes))[:3, :3].ravel().tolist())
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "label.mha"
        sitk.WriteImage(image, str(written), useCompression=True)
        return written.read_bytes()


@dataclass(frozen=True)
class _Stored:
    """How the voxels lie in a file: from byte ``offset`` on, ``size`` bytes once unpacked.

    ``placed`` tells whether the header says where they lie in space.
    """

    offset: int
    size: int
    compressed: bool
    compressed_size: int | None
    placed: bool

    def check_length(self, path: Path) -> None:
        """Compare the file's length with what its header promises."""
        promised = self.compressed_size if self.compressed else self.size
        if promised is not None and path.stat().st_size < self.offset + promised:
            raise truncated(promised)

    def check_content(self, path: Path) -> None:
        """Unpack compressed voxels once: ITK looks neither at their number nor the checksum."""
        if not self.compressed:
            return
        try:
            with path.open("rb") as stream:
                stream.seek(self.offset)
                whole = self._unpacks(stream)
        except OSError as error:
            raise unreadable(path, error) from None
        except zlib.error as error:
            raise _damaged(str(error)) from None
        if not whole:
            raise truncated(self.size)

    def _unpacks(self, stream: BinaryIO) -> bool:
        """Tell whether all voxels are there; a small file may hold gigabytes, so count as we go."""
        unpack = zlib.decompressobj()
        found, packed = 0, b""
        while not unpack.eof:
            packed = packed or stream.read(1 << 20)
            piece = unpack.decompress(packed, 1 << 22)
            found += len(piece)
            if found > 2 * self.size + SLACK_BYTES:
                raise overlong(found, self.size)
            if not (piece or packed):
                return False
            packed = unpack.unconsumed_tail
        return found >= self.size


def _damaged(reason: str) -> ImageError:
    return ImageError(f"is truncated or damaged ({reason}). Copy it again from the source.")


def _refuse_second_place(path: Path) -> None:
    """Make sure that ITK finds the voxels where we did: it takes some lines for others.

    After a list that is too short it passes over the line that says LOCAL, and a second one may
    name any file of this machine.
    """
    if _read_bytes(path).count(_PLACE) > 1:
        raise ImageError(
            f"says more than once where its voxels are ({_PLACE.decode()}); expected them within, "
            "said once. Re-export the volume."
        )


def _read_bytes(path: Path, size: int = -1) -> bytes:
    try:
        with open_file(path) as stream:
            return stream.read(size)
    except OSError as error:
        raise unreadable(path, error) from None


def _parse(path: Path) -> _Stored:
    """Read the lines of text in front of the voxels; ElementDataFile is the last of them."""
    start = _read_bytes(path, _HEADER_BYTES)
    last = re.search(rb"^%b[ \t]*=[ \t]*(\S+)[ \t]*\r?\n" % _PLACE, start, re.MULTILINE)
    if last is None:
        raise not_expected(start[:1024], "a MetaImage (.mha)")
    lines = start[: last.start()].decode("latin-1").splitlines()
    fields = dict(re.split(r"\s*=\s*", line.strip(), maxsplit=1) for line in lines if "=" in line)
    if last[1] != b"LOCAL":
        raise ImageError(
            f"keeps its voxels in another file ({last[1].decode('latin-1')}); expected them "
            "within. Re-export the volume."
        )
    item = _ITEM_BYTES.get(fields.get("ElementType", ""))
    if item is None or fields.get("ElementNumberOfChannels", "1") != "1":
        kind = fields.get("ElementType", "unknown")
        many = fields.get("ElementNumberOfChannels", "1")
        raise ImageError(f"holds {many} × {kind} in each voxel; expected one number.")
    try:
        shape = [int(size) for size in fields["DimSize"].split()]
        packed = fields.get("CompressedDataSize")
        if min(shape) < 1:
            raise ImageError(f"has {times(shape)} voxels; expected a 3-D volume.")
        return _Stored(
            offset=last.end(),
            size=int(np.prod(shape, dtype=np.int64)) * item,
            compressed=fields.get("CompressedData", "False").lower() in {"true", "1"},
            compressed_size=int(packed) if packed else None,
            placed=not _PLACES.isdisjoint(fields),
        )
    except (KeyError, ValueError):
        raise ImageError("is not a MetaImage (.mha). Copy it again from the source.") from None


def _information(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("MetaImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ImageError(f"cannot be read ({reason}). Copy it again from the source.") from None
    return reader


def _itk_header(path: Path, layout: _Stored, channels: int) -> ImageHeader:
    reader = _information(path)
    axes = reader.GetDimension()
    spacing_mm = np.array(reader.GetSpacing())
    direction = np.array(reader.GetDirection()).reshape(axes, axes)
    lps = np.eye(4)
    volume = min(axes, 3)
    lps[:volume, :volume] = (direction * spacing_mm)[:volume, :volume]
    lps[:volume, 3] = reader.GetOrigin()[:volume]
    header = checked_header(reader.GetSize(), _LPS_TO_RAS @ lps, channels=channels)
    return header if layout.placed else replace(header, forms=())
