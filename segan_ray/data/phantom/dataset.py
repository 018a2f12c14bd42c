"""Make glioma cases out of a template brain, for trying things without patient data.

``patient`` makes the voxels, ``write_layouts`` has the folders and file names of each year. The
files are laid out as BRATS publishes them, so every reader of BRATS can read them.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Final, get_args

import nibabel
import numpy as np

from segan_ray.brats import MODALITIES
from segan_ray.data.io import metaimage
from segan_ray.data.layouts.cases import layout_named
from segan_ray.data.layouts.layout import Grade
from segan_ray.data.layouts.msd_layout import MSD_CHANNELS
from segan_ray.data.phantom.patient import (
    PhantomCase,
    check_spacing,
    grid_affine,
    grid_shape,
    synthesize_patient,
)
from segan_ray.data.phantom.write_layouts import IMAGES, PHANTOM_LAYOUTS, SEGMENTATION
from segan_ray.documents import SETTINGS_BYTES, parse_json, read_bytes
from segan_ray.errors import DataError, nearest, said
from segan_ray.extras import check_installed
from segan_ray.filesystem.atomic_files import write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from jaxtyping import Float64, Int16, UInt8

__all__ = ["PhantomCase", "grid_affine", "grid_shape", "synthesize_patient", "write_phantoms"]

_SETTINGS_FILE: Final = "phantom.json"
# Counts the ways in which patients were ever made, so that one folder holds patients of one.
_PHANTOM_VERSION: Final = 2


@dataclass(frozen=True)
class _Settings:
    """The settings that all cases of one folder share."""

    layout: str
    spacing_mm: float
    seed: int
    version: int = _PHANTOM_VERSION


def _ignore(case: str) -> None:
    """Do nothing: the default of ``on_case``."""


def write_phantoms(
    out: Path,
    *,
    cases: int,
    layout: str = "brats2021",
    spacing_mm: float = 1.0,
    seed: int = 0,
    workers: int = 1,
    on_case: Callable[[str], None] = _ignore,
) -> tuple[str, ...]:
    """Write ``cases`` cases below ``out`` and return their names, in order.

    A case that exists already stays; ``on_case`` is called with each case's name once it exists.
    With ``workers`` above 1, that many processes make the cases. Layouts whose names tell time
    points have two scans of every third patient; in the others each case is a patient of its own.

    Raises:
        DataError: if an argument cannot be right, or ``out`` holds something else.
        NotInstalledError: if nilearn is missing, whose template brain all patients grow in.
    """
    settings = _Settings(layout=layout, spacing_mm=float(spacing_mm), seed=seed)
    _check(settings, cases=cases, workers=workers)
    _claim(out, settings)
    write = partial(_write_case, out, settings)
    written = []
    for case in _each(write, range(cases), workers=workers):
        on_case(case)
        written.append(case)
    for name, text in PHANTOM_LAYOUTS[layout].documents(out).items():
        write_text(out / name, text)
    return tuple(written)


def _each(write: Callable[[int], str], indices: range, *, workers: int) -> Iterator[str]:
    if workers == 1:
        yield from map(write, indices)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(write, indices)


def _write_case(out: Path, settings: _Settings, index: int) -> str:
    """Write one case whole or not at all."""
    layout = PHANTOM_LAYOUTS[settings.layout]
    session = layout.session(index)
    for grade in get_args(Grade):  # known only once the patient is made
        written = layout.session_files(session, grade)
        if all((out / file).is_file() for file in written.files.values()):
            return written.case
    phantom = synthesize_patient(
        session.patient,
        seed=settings.seed,
        spacing_mm=settings.spacing_mm,
        time_point=session.time_point,
    )
    written = layout.session_files(session, phantom.grade)
    unfinished = out / f".{written.case}.{os.getpid()}.partial"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        for part, file in written.files.items():
            voxels = _voxels(phantom, part, settings.layout)
            _write_image(unfinished / file, voxels, phantom.affine)
        for entry in written.entries:
            (out / entry).parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(out / entry, ignore_errors=True)  # it is there, but lacks files
            (unfinished / entry).replace(out / entry)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return written.case


def _voxels(phantom: PhantomCase, part: str, layout: str) -> np.ndarray:
    """Return the voxels of one file of a case."""
    if part == SEGMENTATION:
        return phantom.label_in(layout_named(layout).code)
    scans: dict[str, np.ndarray] = {
        str(name): scan for name, scan in zip(MODALITIES, phantom.images, strict=True)
    }
    if part == IMAGES:
        return np.stack([scans[modality] for modality in MSD_CHANNELS.values()], axis=-1)
    return scans[part]


def _write_image(path: Path, voxels: np.ndarray, affine: Float64[np.ndarray, "4 4"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mha":
        metaimage.write_image(path, voxels, affine)
    else:
        path.write_bytes(_nifti(voxels, affine))


def _nifti(
    voxels: Int16[np.ndarray, "x y z *channel"] | UInt8[np.ndarray, "x y z"],
    affine: Float64[np.ndarray, "4 4"],
) -> bytes:
    """Return a compressed NIfTI file; equal voxels give equal bytes."""
    image: Any = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    return gzip.compress(image.to_bytes(), compresslevel=3, mtime=0)


# ----------------------------------------------------------------------------------- checks


def _check(settings: _Settings, *, cases: int, workers: int) -> None:
    if settings.layout not in PHANTOM_LAYOUTS:
        raise DataError(
            f"Phantoms cannot be written in the layout '{settings.layout}', only in: "
            f"{', '.join(PHANTOM_LAYOUTS)}.{nearest(settings.layout, PHANTOM_LAYOUTS)}"
        )
    check_spacing(settings.spacing_mm)
    if cases < 1:
        raise DataError(f"{cases} phantom cases were asked for; ask for at least 1.")
    if workers < 1:
        raise DataError(f"{workers} workers cannot make phantoms; give at least 1.")
    if settings.seed < 0:
        raise DataError(f"The phantoms' seed is {settings.seed}; it must be 0 or more.")
    check_installed("The phantoms' template brain", "phantom", "nilearn")


def _claim(out: Path, settings: _Settings) -> None:
    """Write ``settings`` into ``out``, or check that ``out`` has the same settings."""
    file = out / _SETTINGS_FILE
    if file.is_file():
        try:
            existing = parse_json(read_bytes(file, SETTINGS_BYTES))
        except (OSError, ValueError) as error:
            raise DataError(
                f"{file}: cannot be read ({said(error)}). Give another folder."
            ) from None
        _compare(out, existing if isinstance(existing, dict) else {}, asdict(settings))
        return
    if out.is_file() or (
        out.is_dir() and any(not entry.name.startswith(".") for entry in out.iterdir())
    ):
        raise DataError(
            f"{out} holds something other than phantoms. "
            "Choose a folder that is empty or does not exist yet."
        )
    out.mkdir(parents=True, exist_ok=True)
    unfinished = out / f".{_SETTINGS_FILE}.{os.getpid()}"
    unfinished.write_text(json.dumps(asdict(settings), indent=2) + "\n")
    unfinished.replace(file)


def _compare(out: Path, existing: Mapping[str, object], requested: Mapping[str, object]) -> None:
    differences = [
        f"{name} {existing.get(name)} there, {value} asked for"
        for name, value in requested.items()
        if existing.get(name) != value
    ]
    if differences:
        raise DataError(
            f"{out} holds phantoms made with other settings: {'; '.join(differences)}. "
            "Give the same settings or another folder."
        )
