"""Reading a ``Case`` into a ``Volume``, and saying in words what is wrong with it.

``check_headers`` finds what can be seen without decompressing a voxel; ``read_volume`` finds
the rest. Every volume is brought to the orientation BRATS itself uses (axes run to the
patient's left, back and head), so that the last axis always counts axial slices.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Float, Float32, UInt8
from nibabel.filebasedimages import ImageFileError
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from nibabel.spatialimages import HeaderDataError

from segan_ray.brats import MODALITIES, LabelCode
from segan_ray.data.cases import Case
from segan_ray.data.checks import intensity_problems, label_problems
from segan_ray.errors import CaseError

BRATS_AXES = ("L", "P", "S")
AFFINE_TOLERANCE_MM = 1e-2


@dataclass(frozen=True)
class Volume:
    """The voxels of one case, axes left × posterior × superior.

    ``image`` is float32 (4, X, Y, Z) in the order of ``MODALITIES``; ``label`` holds the
    layout's codes, uint8 (X, Y, Z), or None without truth; ``affine`` maps these voxels to mm.
    """

    image: Float32[np.ndarray, "modality x y z"]
    label: UInt8[np.ndarray, "x y z"] | None
    affine: Float[np.ndarray, "4 4"]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along x, y and z in mm."""
        return spacing_of(self.affine)


def spacing_of(affine: Float[np.ndarray, "4 4"]) -> tuple[float, float, float]:
    """Return the voxel size along x, y and z in mm."""
    x, y, z = np.linalg.norm(affine[:3, :3], axis=0)
    return float(x), float(y), float(z)


def check_headers(case: Case) -> tuple[str, ...]:
    """Return every problem that file names, headers and file lengths show."""
    problems = list(case.problems)
    geometry = []
    for name, path in _files(case):
        try:
            image = _open(path)
            _check_length(path, image)
            geometry.append((name, path, _grid(image), image.affine))
        except _ReadError as error:
            problems.append(f"{path}: {error}")
    problems.extend(_disagreements(geometry))
    return tuple(problems)


def read_volume(case: Case, code: LabelCode) -> Volume:
    """Read all files of ``case``; ``code`` says which label values its layout may hold.

    Raises:
        CaseError: naming the file, what was found and what was expected.
    """
    problems = check_headers(case)
    if problems:
        raise CaseError(case.case, problems[0])
    images = [read_array(case, case.images[modality]) for modality in MODALITIES]
    affine = images[0][1]
    image = np.stack([voxels for voxels, _ in images])
    for modality, voxels in zip(MODALITIES, image, strict=True):
        _refuse(case, case.images[modality], intensity_problems(voxels))
    label = None
    if case.label is not None:
        found = read_array(case, case.label)[0]
        _refuse(case, case.label, label_problems(found, code))
        label = found.astype(np.uint8)
    return Volume(image, label, affine)


def _refuse(case: Case, path: Path, problems: tuple[str, ...]) -> None:
    if problems:
        raise CaseError(case.case, f"{path}: {problems[0]}")


class _ReadError(Exception):
    """Why one file cannot be read, in words."""


def _files(case: Case) -> Iterator[tuple[str, Path]]:
    yield from case.images.items()
    if case.label is not None:
        yield "segmentation", case.label


def _open(path: Path) -> nib.Nifti1Image:
    if path.stat().st_size == 0:
        raise _ReadError("the file is empty. Copy it again from the source.")
    try:
        loaded = nib.load(path)
    except (OSError, EOFError, zlib.error) as error:
        raise _ReadError(f"cannot be read ({error}). Copy it again from the source.") from None
    except (ImageFileError, HeaderDataError, ValueError):
        raise _ReadError("is not a NIfTI image. Copy it again from the source.") from None
    if not isinstance(loaded, nib.Nifti1Image):
        raise _ReadError(f"holds a {type(loaded).__name__}; expected NIfTI.")
    image: nib.Nifti1Image = loaded
    if len(_grid(image)) != 3:
        shape = "×".join(map(str, image.shape))
        raise _ReadError(f"has {shape} voxels; expected a 3-D volume.")
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine[:3, :3])) < 1e-9:
        raise _ReadError("says nothing of where its voxels lie (its affine is singular).")
    if image.get_data_dtype().fields is not None or image.get_data_dtype().kind not in "iuf":
        raise _ReadError(f"holds voxels of type {image.get_data_dtype()}; expected numbers.")
    return image


def _grid(image: nib.Nifti1Image) -> tuple[int, ...]:
    """Return the shape of an image without further axes of length 1."""
    shape: tuple[int, ...] = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _check_length(path: Path, image: nib.Nifti1Image) -> None:
    """Compare the file's length with its header's; gzip keeps the length in its last bytes."""
    on_disk: Any = image.dataobj  # nibabel sets the offset in the header to 0 as it loads
    expected = on_disk.offset + int(np.prod(image.shape)) * on_disk.dtype.itemsize
    if path.suffix == ".gz":
        with path.open("rb") as stream:
            stream.seek(-4, os.SEEK_END)
            found = int.from_bytes(stream.read(4), "little")
        # Longer is legal (padding, several gzip members), so let decompression decide.
        truncated = found < expected % 2**32 or (found != expected % 2**32 and not _whole(path))
    else:
        truncated = path.stat().st_size < expected
    if truncated:
        raise _ReadError(
            f"is truncated: its header promises {expected:,} bytes of image, the file ends "
            "before. Copy it again from the source."
        )


def _whole(path: Path) -> bool:
    try:
        with gzip.open(path) as stream:
            while stream.read(1 << 22):
                pass
    except (OSError, EOFError, zlib.error):
        return False
    return True


def _disagreements(geometry: list[tuple[str, Path, tuple[int, ...], np.ndarray]]) -> list[str]:
    problems = []
    for name, path, shape, affine in geometry[1:]:
        first, first_path, first_shape, first_affine = geometry[0]
        if shape != first_shape:
            ours, theirs = ("×".join(map(str, size)) for size in (first_shape, shape))
            problems.append(
                f"{first_path.name} ({first}) has {ours} voxels, {path.name} ({name}) {theirs}. "
                "They must share one grid: re-export one of them or exclude the case."
            )
        elif not np.allclose(affine, first_affine, atol=AFFINE_TOLERANCE_MM):
            problems.append(
                f"{first_path.name} ({first}) and {path.name} ({name}) lie differently in space "
                "(their affines differ). Re-export one of them or exclude the case."
            )
    return problems


def read_array(case: Case, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels of one file as float32 (x, y, z) along ``BRATS_AXES``, and the affine.

    Raises:
        CaseError: naming the file and why it cannot be read.
    """
    try:
        image = _open(path)
        if path.suffix == ".gz":
            # nibabel stops at the last voxel and so never sees gzip's checksum behind it.
            image = type(image).from_bytes(gzip.decompress(path.read_bytes()))
        voxels = np.asarray(image.dataobj, dtype=np.float32).reshape(_grid(image))
    except _ReadError as error:
        raise CaseError(case.case, f"{path}: {error}") from None
    except (OSError, EOFError, zlib.error, ValueError, HeaderDataError) as error:
        raise CaseError(
            case.case, f"{path}: is truncated or damaged ({error}). Copy it again from the source."
        ) from None
    turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(BRATS_AXES))
    affine = image.affine @ inv_ornt_aff(turn, voxels.shape)
    return np.ascontiguousarray(apply_orientation(voxels, turn)), affine
