"""Label maps of a model: writing that of a case with the name its challenge requires, reading it.

A label map has the grid, axes, affine and header of the scans it was made of, so that a viewer
lays it over them. Volumes are turned to common axes when they are read, and turned back here.
Files appear whole or not at all. A label map that is read must lie on the case's grid: none is
resampled.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import Float32, UInt8

from segan_ray.brats import REGIONS, LabelCode
from segan_ray.data.io.geometry import differences, placed, same_shape
from segan_ray.data.io.headers import ImageError, ImageHeader, times
from segan_ray.data.io.images import encode_label, encode_maps, read_header
from segan_ray.data.io.volumes import as_stored, read_array, truth_refusals
from segan_ray.data.io.voxel_checks import as_labels
from segan_ray.data.layouts.cases import Case, Discovery, Layout
from segan_ray.errors import CaseError, DataError
from segan_ray.filesystem.atomic_files import write_bytes

PROBABILITIES: Final = "_probabilities.nii.gz"
FILE_ENDINGS: Final = (".nii.gz", ".nii", ".mha")


@dataclass(frozen=True)
class Output:
    """Where the files of one case go."""

    label: Path
    probabilities: Path

    def files(self, *, probabilities: bool) -> tuple[Path, ...]:
        """Return the files that are written, with those of ``probabilities`` or without."""
        return (self.label, self.probabilities) if probabilities else (self.label,)


def outputs(discovery: Discovery, out: Path) -> tuple[Output, ...]:
    """Return where the files of each case go: into the folder ``out``.

    For a single case ``out`` may be the file of its label map.

    Raises:
        DataError: if ``out`` cannot be such a folder or file, or lies among the scans.
    """
    named = out.name.endswith(FILE_ENDINGS)
    if named:
        _check_file(discovery, out)
    folder = out.parent if named else out
    _refuse_input(folder, discovery.cases)
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; expected a folder to write to.")
    return tuple(
        Output(
            label=out if named else folder / discovery.layout.upload_name(case),
            probabilities=folder / f"{case.case}{PROBABILITIES}",
        )
        for case in discovery.cases
    )


def refuse_collisions(
    targets: Sequence[Output], *, probabilities: bool, overwrite: bool = False
) -> None:
    """Make sure that no file would be overwritten, by an earlier one of ``targets`` neither.

    Raises:
        DataError: if two targets are one file, a target is a folder, or, unless ``overwrite``
            is set, a target exists.
    """
    files = [file for each in targets for file in each.files(probabilities=probabilities)]
    _refuse_same(files)
    for file in files:
        if os.path.isdir(file):  # noqa: PTH112  # never raises
            raise DataError(f"{file}: is a folder; expected a file to write.")
    existing = [] if overwrite else [file for file in files if os.path.lexists(file)]
    if existing:
        more = f" ({len(existing)} of {len(files)} files to write do)" if files[1:] else ""
        raise DataError(
            f"{existing[0]}: exists{more}. Give another folder, or write over what is there "
            "with --overwrite."
        )


def _refuse_same(files: Sequence[Path]) -> None:
    """Refuse two names of one file, also on a disk that does not tell A from a."""
    seen: dict[str, Path] = {}
    for file in files:
        first = seen.setdefault(str(file).casefold(), file)
        if first is not file:
            which = f"{file} twice" if first == file else f"{first} and {file}"
            raise DataError(
                f"{which} would be written, one over the other. Give OUT another name, or write "
                "the cases to two folders."
            )


def make_folder(folder: Path) -> None:
    """Make the folder for the files, unless it exists.

    Raises:
        DataError: if it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror or error}).") from None


def write_label(path: Path, label: UInt8[np.ndarray, "x y z"], case: Case) -> None:
    """Write the label map of ``case``, whose voxels are along ``BRATS_AXES``, into its own grid.

    Raises:
        DataError: if ``path`` cannot be written.
    """
    template = _template(case)
    affine = read_header(template, channels=len(case.channels)).affine
    write_bytes(path, encode_label(template, as_stored(label, affine)))


def write_probabilities(
    path: Path, probabilities: Float32[np.ndarray, "region x y z"], case: Case
) -> None:
    """Write the probability of each region as a 4-D file, whose description names them in order.

    Raises:
        DataError: if ``path`` cannot be written.
    """
    template = _template(case)
    affine = read_header(template, channels=len(case.channels)).affine
    voxels = as_stored(np.moveaxis(probabilities, 0, -1), affine)
    write_bytes(path, encode_maps(template, voxels, f"segan-ray: {', '.join(REGIONS)}"))


def read_label(path: Path, case: Case, code: LabelCode) -> UInt8[np.ndarray, "x y z"]:
    """Return the label map ``path`` of ``case``, along ``BRATS_AXES``.

    Raises:
        CaseError: if the map or the case's first scan cannot be read, they do not share one grid,
            or a value is not in ``code``.
    """
    header = _header(path, case, channels=0)
    scan = _template(case)
    reference = _header(scan, case, channels=len(case.channels))
    if placed(header, reference) is None:
        raise CaseError(case.case, _unlike(path, header, scan, reference))
    voxels, _ = read_array(case, path)
    problems = truth_refusals(path, voxels, code)
    if problems:
        raise CaseError(case.case, f"{path}: {problems[0]}")
    return as_labels(voxels)


def _header(path: Path, case: Case, *, channels: int) -> ImageHeader:
    try:
        return read_header(path, channels=channels)
    except ImageError as error:
        raise CaseError(case.case, f"{path}: {error}") from None


def _unlike(path: Path, header: ImageHeader, scan: Path, reference: ImageHeader) -> str:
    """Say how the grid of a label map differs from that of the scan."""
    if not same_shape(header, reference):
        found = f"{path}: has {times(header.grid)} voxels, {scan.name} {times(reference.grid)}"
    else:
        found = f"{path}: lies elsewhere than {scan.name} ({differences(reference, header)})"
    return f"{found}. A label map must have the grid of its scans: give the one of this case."


def _template(case: Case) -> Path:
    """Return the scan whose affine a ``Volume`` of ``case`` has."""
    return next(iter(case.images.values()))


def _check_file(discovery: Discovery, out: Path) -> None:
    if len(discovery.cases) != 1:
        raise DataError(
            f"{out}: is one file, {discovery.folder} holds {len(discovery.cases)} cases. Give a "
            "folder: each label map is named as the challenge wants it."
        )
    ending = _ending(discovery.layout, discovery.cases[0])
    if not out.name.endswith(ending):
        raise DataError(f"{out}: expected a folder, or a name that ends in {ending}.")


def _ending(layout: Layout, case: Case) -> str:
    return ".mha" if layout.upload_name(case).endswith(".mha") else ".nii.gz"


def _refuse_input(folder: Path, cases: Sequence[Case]) -> None:
    target = folder.resolve()
    for case in cases:
        paths = [path.resolve().parent for path in case.images.values()]
        # Where each scan has a folder of its own, the case is the folder around them.
        around = [Path(os.path.commonpath(paths))] if paths else []
        if case.label is not None:
            around.append(case.label.resolve().parent)
        for input_folder in around:
            if target.is_relative_to(input_folder):
                raise DataError(
                    f"{folder}: lies in the folder of case {case.case}, which is input. Write "
                    "into another folder."
                )
