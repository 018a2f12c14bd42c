"""Reading a ``Case`` into a ``Volume``, and reporting its problems in words.

``check_headers`` finds the problems that show without unpacking a voxel; ``read_volume`` finds
the rest. Every volume is brought to the orientation BRATS itself uses (axes run to the
patient's left, back and head), so that the last axis always counts axial slices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Real, Shaped, UInt8
from nibabel.orientations import (
    aff2axcodes,
    apply_orientation,
    axcodes2ornt,
    io_orientation,
    ornt_transform,
)

from segan_ray.brats import MODALITIES, LabelCode, Modality
from segan_ray.data.io.geometry import (
    BRATS_AXES,
    differences,
    placed,
    same_shape,
    spacing_of,
    turned_affine,
)
from segan_ray.data.io.headers import ImageError, ImageHeader, blamed_on_file, times
from segan_ray.data.io.images import read_geometry, read_header, read_image
from segan_ray.data.io.voxel_checks import as_labels, intensity_problems, label_problems
from segan_ray.data.layouts.cases import Case
from segan_ray.errors import CaseError


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


def check_headers(case: Case) -> tuple[str, ...]:
    """Return every problem that file names, headers and file lengths show."""
    problems = [*case.problems, *case.label_problems]
    geometry = []
    for name, path, channels in _files(case):
        try:
            geometry.append((name, path, read_header(path, channels=channels)))
        except ImageError as error:
            problems.append(f"{path}: {error}")
    problems.extend(_disagreements(geometry))
    return tuple(problems)


def geometry_warnings(case: Case) -> tuple[str, ...]:
    """Return warnings of what reading assumes about the position of the voxels of ``case``."""
    headers: dict[str, ImageHeader] = {}
    for name, path, channels in _files(case):
        with suppress(ImageError):  # check_headers reports it
            headers[name] = read_geometry(path, channels=channels)
    if not headers:
        return ()
    first, reference = next(iter(headers.items()))
    warnings = []
    if silent := [name for name, header in headers.items() if not header.forms]:
        axes = "".join(map(str, aff2axcodes(reference.affine)))
        taken = f"voxels are taken to lie as those of {first}"
        if not reference.forms:
            taken = f"axes are taken to run to {axes}"
        warnings.append(
            f"{', '.join(silent)}: the header says nothing of where voxels lie (in NIfTI "
            f"qform_code and sform_code are both 0); {taken}. If that is wrong, set it."
        )
    if half := [name for name, header in headers.items() if _agree_by_half(header, reference)]:
        warnings.append(f"{', '.join(half)}: lies as {first} by one of its qform and sform alone.")
    return tuple(warnings)


def _agree_by_half(header: ImageHeader, reference: ImageHeader) -> bool:
    """Tell whether two headers share one grid, but not by the first form of each."""
    if not (header.forms and reference.forms):
        return False
    best = (replace(each, forms=each.forms[:1]) for each in (header, reference))
    return placed(header, reference) is not None and placed(*best) is None


def read_volume(case: Case, code: LabelCode) -> Volume:
    """Read all files of ``case``; ``code`` says which label values its layout may hold.

    Raises:
        CaseError: naming the file, its content and the expected content.
    """
    problems = check_headers(case)
    if problems:
        raise CaseError(case.case, problems[0])
    try:
        with blamed_on_file():
            return _read_files(case, code)
    except ImageError as error:  # each file fits into memory, but not all of them
        raise CaseError(case.case, f"{next(iter(case.images.values()))}: {error}") from None


def _read_files(case: Case, code: LabelCode) -> Volume:
    image, affines = None, []
    for path in dict.fromkeys(case.images.values()):
        scans, affine = read_modalities(case, path)
        affines.append(affine)
        for modality, voxels in scans.items():
            if image is None:
                image = _empty_image(voxels.shape)
            scan = image[MODALITIES.index(modality)]
            scan[...] = voxels  # made float32 on the way, in one pass
            _refuse(case, source(case, modality), intensity_problems(scan))
    assert image is not None, "headers were checked, so no scan is missing"
    label = None
    if case.label is not None:
        truth, _ = _read_turned(case, case.label, 0)
        _refuse(case, str(case.label), _truth_problems(case.label, truth, code))
        label = as_labels(truth)
    return Volume(image, label, affines[0])


def _truth_problems(
    path: Path, voxels: Real[np.ndarray, "x y z"], code: LabelCode
) -> tuple[str, ...]:
    """Return ``truth_refusals``, but faster if most voxels are 0 and all are sound."""
    marked = voxels[voxels != 0]
    if (marked == np.rint(marked)).all() and not label_problems(marked, code):
        return ()
    return truth_refusals(path, voxels, code)


def _empty_image(shape: tuple[int, ...]) -> Float32[np.ndarray, "modality x y z"]:
    """Return an empty image for four scans, with the memory order of files: x varies fastest."""
    return np.empty((len(MODALITIES), *shape[::-1]), np.float32).transpose(0, 3, 2, 1)


def source(case: Case, modality: Modality) -> str:
    """Return the file of a modality for messages, with the channel if the file has several."""
    if modality in case.channels:
        return f"{case.images[modality]} (channel {case.channels[modality]}, {modality})"
    return str(case.images[modality])


def _refuse(case: Case, where: str, problems: tuple[str, ...]) -> None:
    if problems:
        raise CaseError(case.case, f"{where}: {problems[0]}")


def _files(case: Case) -> Iterator[tuple[str, Path, int]]:
    """Yield each file's name for messages, its path and its channels (0: it is 3-D)."""
    if case.channels:
        yield from (("images", path, len(case.channels)) for path in set(case.images.values()))
    else:
        yield from ((modality, path, 0) for modality, path in case.images.items())
    if case.label is not None:
        yield "segmentation", case.label, 0


def _disagreements(geometry: Sequence[tuple[str, Path, ImageHeader]]) -> list[str]:
    problems = []
    for name, path, header in geometry[1:]:
        first, first_path, reference = geometry[0]
        if placed(header, reference) is not None:
            continue
        if not same_shape(header, reference):
            problems.append(
                f"{first_path.name} ({first}) has {times(reference.grid)} voxels, "
                f"{path.name} ({name}) {times(header.grid)}. "
                "They must share one grid: re-export one of them or exclude the case."
            )
        else:
            problems.append(
                f"{first_path.name} ({first}) and {path.name} ({name}) lie differently in space "
                f"({differences(header, reference)}). Re-export one of them or exclude the case."
            )
    return problems


def truth_refusals(
    path: Path, voxels: Real[np.ndarray, "x y z"], code: LabelCode
) -> tuple[str, ...]:
    """Return the ``label_problems`` of the file ``path``, each with the file's scale if any."""
    problems = label_problems(voxels, code)
    slope, inter = read_geometry(path).scale if problems else (1.0, 0.0)
    if (slope, inter) == (1.0, 0.0):
        return problems
    scale = (
        f" Its header multiplies what is stored by {slope:g} and adds {inter:g}: if the stored "
        "numbers are meant, set scl_slope to 1 and scl_inter to 0."
    )
    return tuple(f"{problem}{scale}" for problem in problems)


def read_modalities(
    case: Case, path: Path
) -> tuple[dict[Modality, Real[np.ndarray, "x y z"]], Float[np.ndarray, "4 4"]]:
    """Return the modalities that one file holds, along ``BRATS_AXES``, and their affine to mm.

    Their voxels are of the file's own type.

    Raises:
        CaseError: naming the file and why it cannot be read.
    """
    voxels, affine = _read_turned(case, path, len(case.channels))
    if case.channels:
        split = {name: voxels[..., channel] for name, channel in case.channels.items()}
        return split, affine
    return {name: voxels for name, of in case.images.items() if of == path}, affine


def read_array(
    case: Case, path: Path, *, channels: int = 0
) -> tuple[Float32[np.ndarray, "x y z *channel"], Float[np.ndarray, "4 4"]]:
    """Return the voxels of one file along ``BRATS_AXES``, and the affine from them to mm.

    ``channels`` is how many a 4-D file must have, 0 for a 3-D file.

    Raises:
        CaseError: naming the file and why it cannot be read.
    """
    voxels, affine = _read_turned(case, path, channels)
    return voxels.astype(np.float32, copy=False), affine


def _read_turned(
    case: Case, path: Path, channels: int
) -> tuple[Real[np.ndarray, "x y z *channel"], Float[np.ndarray, "4 4"]]:
    """Return the same as ``read_array`` in the file's own type: a copy as floats takes time."""
    try:
        voxels, affine = read_image(path, channels=channels)
    except ImageError as error:
        raise CaseError(case.case, f"{path}: {error}") from None
    affine = _placed(case, path, channels, affine)
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(BRATS_AXES))
    turned = turned_affine(affine, voxels.shape[:3])
    return apply_orientation(voxels, turn), turned


def _placed(
    case: Case, path: Path, channels: int, affine: Float[np.ndarray, "4 4"]
) -> Float[np.ndarray, "4 4"]:
    """Return the affine of ``path`` by the header of the case's first image."""
    reference = next(iter(case.images.values()), path)
    if path == reference:
        return affine
    try:
        header = read_geometry(path, channels=channels)
        beside = read_geometry(reference, channels=len(case.channels))
    except ImageError:
        return affine
    agreed = placed(header, beside)
    return affine if agreed is None else agreed


def as_stored(
    voxels: Shaped[np.ndarray, "x y z *channel"], affine: Float[np.ndarray, "4 4"]
) -> Shaped[np.ndarray, "i j k *channel"]:
    """Turn voxels along ``BRATS_AXES`` back to the axes of a file with ``affine``.

    It undoes the turn of ``read_array``: each voxel returns to its position in the file.
    """
    turn = ornt_transform(axcodes2ornt(BRATS_AXES), io_orientation(affine))
    return np.ascontiguousarray(apply_orientation(voxels, turn))
