"""Reading a ``Case`` into a ``Volume``, and saying in words what is wrong with it.

``check_headers`` finds what can be seen without decompressing a voxel; ``read_volume`` finds
the rest. Every volume is brought to the orientation BRATS itself uses (axes run to the
patient's left, back and head), so that the last axis always counts axial slices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from segan_ray.brats import CODE_2023, MODALITIES, LabelCode, Modality
from segan_ray.data.cases import Case
from segan_ray.data.headers import ImageError, ImageHeader, times
from segan_ray.data.images import read_header, read_image
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
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)


def check_headers(case: Case) -> tuple[str, ...]:
    """Return every problem that file names, headers and file lengths show."""
    problems = list(case.problems)
    geometry = []
    for name, path, channels in _files(case):
        try:
            geometry.append((name, path, read_header(path, channels=channels)))
        except ImageError as error:
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
    image, affine = _read_images(case)
    for modality, voxels in zip(MODALITIES, image, strict=True):
        _check_intensities(case, modality, voxels)
    label = None
    if case.label is not None:
        label = _check_label(case, case.label, _read_array(case, case.label, 0)[0], code)
    return Volume(image, label, affine)


def _files(case: Case) -> Iterator[tuple[str, Path, int]]:
    """Yield what each file is, the file, and how many channels it must have (0: it is 3-D)."""
    if case.channels:
        yield from (("images", path, len(case.channels)) for path in set(case.images.values()))
    else:
        yield from ((modality, path, 0) for modality, path in case.images.items())
    if case.label is not None:
        yield "segmentation", case.label, 0


def _disagreements(geometry: Sequence[tuple[str, Path, ImageHeader]]) -> list[str]:
    problems = []
    for name, path, header in geometry[1:]:
        first, first_path, first_header = geometry[0]
        if header.grid != first_header.grid:
            problems.append(
                f"{first_path.name} ({first}) has {times(first_header.grid)} voxels, "
                f"{path.name} ({name}) {times(header.grid)}. "
                "They must share one grid: re-export one of them or exclude the case."
            )
        elif not np.allclose(header.affine, first_header.affine, atol=AFFINE_TOLERANCE_MM):
            problems.append(
                f"{first_path.name} ({first}) and {path.name} ({name}) lie differently in space "
                "(their affines differ). Re-export one of them or exclude the case."
            )
    return problems


def _read_images(
    case: Case,
) -> tuple[Float32[np.ndarray, "modality x y z"], Float[np.ndarray, "4 4"]]:
    """Return the modalities in order and their affine, reading every file once."""
    if case.channels:
        (path,) = set(case.images.values())
        voxels, affine = _read_array(case, path, len(case.channels))
        order = [case.channels[modality] for modality in MODALITIES]
        return np.ascontiguousarray(np.moveaxis(voxels, -1, 0)[order]), affine
    read = [_read_array(case, case.images[modality], 0) for modality in MODALITIES]
    return np.stack([voxels for voxels, _ in read]), read[0][1]


def _read_array(
    case: Case, path: Path, channels: int
) -> tuple[Float32[np.ndarray, "x y z *channel"], Float[np.ndarray, "4 4"]]:
    """Read one file and turn it to ``BRATS_AXES``."""
    try:
        voxels, affine = read_image(path, channels=channels)
    except ImageError as error:
        raise CaseError(case.case, f"{path}: {error}") from None
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(BRATS_AXES))
    turned_affine = affine @ inv_ornt_aff(turn, voxels.shape[:3])
    return np.ascontiguousarray(apply_orientation(voxels, turn)), turned_affine


def _check_intensities(case: Case, modality: Modality, voxels: np.ndarray) -> None:
    path = str(case.images[modality])
    if case.channels:
        path += f" (channel {case.channels[modality]}, {modality})"
    if not np.isfinite(voxels).all():
        raise CaseError(case.case, f"{path}: holds NaN or infinite voxels. Re-export the volume.")
    if voxels.min() == voxels.max():
        raise CaseError(
            case.case,
            f"{path}: every voxel is {voxels.flat[0]:g}. Re-export it or exclude the case.",
        )


def _check_label(case: Case, path: Path, voxels: np.ndarray, code: LabelCode) -> np.ndarray:
    found = np.unique(voxels)
    unknown = [float(value) for value in found if value not in {0, *code.names}]
    if unknown:
        expected = ", ".join(f"{value} {name}" for value, name in code.names.items())
        listed = ", ".join(f"{value:g}" for value in unknown[:5])
        is_2024 = code == CODE_2023 and 4 in unknown
        hint = " Is this a 2024 case? Then say --layout brats2024." if is_2024 else ""
        raise CaseError(
            case.case, f"{path}: holds label {listed}; this layout knows 0, {expected}.{hint}"
        )
    return voxels.astype(np.uint8)
