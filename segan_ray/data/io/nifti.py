"""Reading NIfTI files, plain and gzipped, and noticing files that are not whole.

The content of a file decides, not its ending: gzip may be called ``.nii``, plain ``.nii.gz``.
"""

from __future__ import annotations

import gzip
import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import nibabel as nib
import numpy as np
from jaxtyping import Float, Float32, Real, UInt8
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from segan_ray.data.io import gzipped
from segan_ray.data.io.contents import GZIP, is_nifti, not_expected, open_file, unreadable
from segan_ray.data.io.headers import (
    ImageError,
    ImageHeader,
    blamed_on_file,
    check_not_longer,
    check_one_fits,
    checked_header,
    deflated_to,
    is_regular,
    times,
    truncated,
)

_SNIFFED_BYTES: Final = 1024
_FURTHEST_BYTE: Final = 1 << 26  # where voxels may begin: header extensions are kilobytes
_MM_PER_UNIT: Final = {1: 1000.0, 3: 0.001}  # metre and micron in xyzt_units
_VOXEL_MM: Final = (0.02, 50.0)
# nibabel mends small faults of a header that it reads, and would log each of them.
_SILENT: Final = logging.Logger(__name__, logging.CRITICAL + 1)


def read_geometry(path: Path, *, channels: int = 0) -> ImageHeader:
    """Read the header of ``path`` alone.

    ``channels`` is how many a 4-D file must have, 0 for a 3-D file.

    Raises:
        ImageError: saying what the file is instead.
    """
    with _opened(path) as file:
        return file.header(channels)


def read_header(path: Path, *, channels: int = 0) -> ImageHeader:
    """Read the header of ``path`` and compare the file's length with it.

    ``channels`` is how many a 4-D file must have, 0 for a 3-D file.

    Raises:
        ImageError: saying what the file is instead, or that it is truncated.
    """
    with _opened(path) as file:
        header = file.header(channels)
        file.check_length()
        return header


def read_image(
    path: Path, *, channels: int = 0
) -> tuple[Real[np.ndarray, "x y z *channel"], Float[np.ndarray, "4 4"]]:
    """Read the voxels of ``path`` as stored, of the file's own type, and their affine.

    If the header has a scale, the voxels are floats.

    Raises:
        ImageError: the file is damaged, or not what ``read_header`` expects.
    """
    with _opened(path) as file:
        header = file.header(channels)
        stored = np.frombuffer(file.content(), file.dtype, math.prod(file.shape), file.offset)
        voxels = apply_read_scaling(stored.reshape(file.shape, order="F"), *header.scale)
        return voxels.reshape(header.shape), header.affine


def carried_checksum(path: Path) -> str | None:
    """Return the checksum at the end of a gzipped ``path``, or None if it does not cover all.

    With several members, or padding, the last bytes are not the whole content's checksum.
    """
    try:
        with _opened(path) as file:
            file.check_offset()
            checksum, length = gzipped.trailer(file.stream)
            return checksum if file.packed and length == file.promised else None
    except ImageError:
        return None


def encode_like(
    path: Path,
    voxels: UInt8[np.ndarray, "x y z"] | Float32[np.ndarray, "x y z map"],
    description: str,
) -> bytes:
    """Return a ``.nii.gz`` file of ``voxels``, on exactly the grid of ``path``.

    Its header is that of ``path``: qform and sform with their codes, voxel sizes and units stay
    to the bit. Fields on intensities and timing are cleared. Extensions are dropped, since they
    describe the scan, and some name the patient. A fourth axis counts maps, in steps of 1 without
    a unit. Equal input gives equal bytes.
    """
    with _opened(path) as file:
        header = file.raw.copy()
    header.set_data_dtype(voxels.dtype)
    header.set_intent("none")
    header["cal_min"] = header["cal_max"] = 0
    header["aux_file"] = b""
    for timing in ("toffset", "slice_start", "slice_end", "slice_duration", "slice_code"):
        header[timing] = 0
    beyond = header["pixdim"][4:]
    beyond[~(np.isfinite(beyond) & (beyond > 0))] = 1
    if voxels.ndim == 4:
        header["pixdim"][4] = 1
        header["xyzt_units"] = int(header["xyzt_units"]) & 0x07  # the units of space
    kind: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    return _packed(kind(voxels, header.get_best_affine(), header), description)


def encode(
    voxels: UInt8[np.ndarray, "x y z"] | Float32[np.ndarray, "x y z map"],
    affine: Float[np.ndarray, "4 4"],
    description: str,
) -> bytes:
    """Return a ``.nii.gz`` file of ``voxels``, which ``affine`` maps to mm."""
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, code="scanner")
    image.set_sform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    return _packed(image, description)


def _packed(image: nib.Nifti1Image, description: str) -> bytes:
    image.header["descrip"] = description.encode("ascii")[:79]
    # Probabilities are large and hardly shrink. Label maps are small and shrink at any level.
    return gzip.compress(image.to_bytes(), compresslevel=1 if image.ndim == 4 else 6, mtime=0)


@contextmanager
def _opened(path: Path) -> Iterator[_File]:
    """Open a NIfTI file; errors of the system and of nibabel become an ``ImageError``."""
    try:
        with blamed_on_file(), open_file(path) as stream:
            yield _read_start(stream)
    except OSError as error:
        raise unreadable(path, error) from None
    except HeaderDataError as error:
        raise ImageError(
            f"is not a NIfTI image (its header is wrong: {error}). Copy it again from the source."
        ) from None


def _read_start(stream: BinaryIO) -> _File:
    start = stream.read(_SNIFFED_BYTES)
    packed = start.startswith(GZIP)
    if packed:
        start = gzipped.first_bytes(stream, _SNIFFED_BYTES)
    if not is_nifti(start):
        raise not_expected(start, "a NIfTI image")
    kind: Any = nib.Nifti1Header if start[344:345] == b"n" else nib.Nifti2Header
    size = kind.template_dtype.itemsize
    if len(start) < size:
        raise ImageError(
            f"ends within its header, after {len(start)} of {size} bytes. Copy it again from the "
            "source."
        )
    raw = kind(start[:size], check=False)
    pixdim = raw["pixdim"][1:4].copy()
    raw.check_fix(logger=_SILENT)
    return _File(stream, packed, raw, pixdim)


@dataclass(frozen=True)
class _File:
    """An open NIfTI file with its header as nibabel mends it; ``pixdim`` is not mended."""

    stream: BinaryIO
    packed: bool
    raw: Any
    pixdim: Float[np.ndarray, "3"]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in the file, axes of one voxel at its end included."""
        return tuple(
            int(size) for size in self.raw.get_data_shape()
        )  # NumPy integers would overflow

    @property
    def dtype(self) -> np.dtype[Any]:
        """How one voxel is stored."""
        dtype: np.dtype[Any] = self.raw.get_data_dtype()
        return dtype

    @property
    def offset(self) -> int:
        """The byte at which the voxels begin, once unpacked."""
        return int(self.raw["vox_offset"])

    @property
    def promised(self) -> int:
        """How many bytes the header says there are, once unpacked."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def header(self, channels: int) -> ImageHeader:
        """Return the header in mm, if the voxels are real numbers and in this file."""
        if self.dtype.fields is not None or self.dtype.kind not in "iuf":
            kind = "colours" if self.dtype.fields is not None else f"{self.dtype} voxels"
            raise ImageError(
                f"holds {kind}; expected one real number a voxel. Re-export the volume as such."
            )
        forms = self._forms()
        affine = forms[0] if forms else self.raw.get_base_affine()
        mm = self._mm_per_unit(affine)
        checked = checked_header(self.shape, affine * mm, channels=channels)
        self.check_offset()
        slope, inter = self.raw.get_slope_inter()
        return replace(
            checked,
            forms=tuple(form * mm for form in forms if is_regular(form * mm)),
            scale=(1.0, 0.0) if slope is None else (slope, inter),
        )

    def check_length(self) -> None:
        """Compare the file's length with its header's, unpacking it if gzip gives no length."""
        self._check_held()
        # Gzip counts modulo 4 GiB, so an equal number proves nothing about longer files.
        if self.packed and gzipped.trailer(self.stream)[1] != self.promised:
            gzipped.unpack(self.stream, self.promised, keep=False)

    def content(self) -> bytearray:
        """Return the file up to its last voxel, unpacked; never more than its header promises."""
        self._check_held()
        if self.packed:
            return gzipped.unpack(self.stream, self.promised)
        content = bytearray(self.promised)
        self.stream.seek(0)
        if self.stream.readinto(content) < self.promised:  # type: ignore[attr-defined]
            raise truncated(self.promised)
        return content

    def _check_held(self) -> None:
        """Refuse, before unpacking, a file that cannot be as long as its header says."""
        held = self.stream.seek(0, os.SEEK_END)
        if (deflated_to(held) if self.packed else held) < self.promised:
            raise truncated(self.promised)
        check_not_longer(held, self.promised)
        check_one_fits(self.shape)

    def check_offset(self) -> None:
        """Refuse voxels that begin within the header, in another file or nowhere near."""
        start = float(self.raw["vox_offset"])
        if self.raw.single_vox_offset <= start <= _FURTHEST_BYTE:
            return
        if start > _FURTHEST_BYTE:
            raise ImageError(
                f"is not a NIfTI image (its header is wrong: voxels from byte {start:g} on; "
                f"expected at most {_FURTHEST_BYTE:,}). Re-export the volume."
            )
        if self.raw["magic"].item() == self.raw.pair_magic:
            raise ImageError(
                "is the header of a NIfTI pair (.hdr), whose voxels are in another file (.img); "
                "expected both in one. Convert the pair to one .nii.gz."
            )
        raise ImageError(
            f"is not a NIfTI image (its header is wrong: voxels from byte {start:g} on, which is "
            "within the header). Re-export the volume."
        )

    def _forms(self) -> list[Float[np.ndarray, "4 4"]]:
        """Return the affines that the header states by a code, the one to use first."""
        forms = [self.raw.get_sform()] if self.raw["sform_code"] != 0 else []
        if not forms and (self.pixdim == 0).any():  # nibabel would take 1 mm
            size = times([f"{length:g}" for length in self.pixdim])
            raise ImageError(f"says that its voxels measure {size} mm. Mend its pixdim.")
        if self.raw["qform_code"] != 0:
            try:
                forms.append(self.raw.get_qform())
            except ValueError:
                if not forms:
                    b, c, d = (float(self.raw[f"quatern_{axis}"]) for axis in "bcd")
                    raise ImageError(
                        f"says nothing of where its voxels lie (its qform's quaternion {b:g}, "
                        f"{c:g}, {d:g} is no turn). Mend its header or re-export the volume."
                    ) from None
        return forms

    def _mm_per_unit(self, affine: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 1"]:
        """Return the factors that bring the rows of an affine to mm.

        Many files say m or µm but count in mm, and most programs ignore the unit. The unit counts
        only if it gives a voxel size that scans have, and mm does not.
        """
        factor = _MM_PER_UNIT.get(int(self.raw["xyzt_units"]) % 8, 1.0)
        low, high = _VOXEL_MM
        spacing = np.linalg.norm(affine[:3, :3], axis=0)
        in_mm = ((low <= spacing) & (spacing <= high)).all()
        in_unit = ((low <= spacing * factor) & (spacing * factor <= high)).all()
        used = factor if in_unit and not in_mm else 1.0
        return np.array([[used], [used], [used], [1.0]])
