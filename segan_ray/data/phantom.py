"""Make glioma cases out of a template brain, for trying things without patient data.

One patient: an individually deformed ICBM-152 brain (``phantom_anatomy``), a tumour grown
through its tissue (``phantom_tumour``), seen by four contrasts (``phantom_contrast``).
The files are laid out as BRATS publishes them, so that whatever reads BRATS reads these.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import nibabel
import numpy as np
from scipy import ndimage  # type: ignore[import-untyped, unused-ignore]

from segan_ray.brats import MODALITIES
from segan_ray.data.phantom_anatomy import FIELD_OF_VIEW_MM, PLANNING_MM, Lattice, draw_anatomy
from segan_ray.data.phantom_contrast import scan
from segan_ray.data.phantom_tumour import grow_tumour, plan_tumour
from segan_ray.errors import DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from jaxtyping import Bool, Float64, Int16, UInt8

    from segan_ray.data.phantom_anatomy import Axes

_SETTINGS_FILE: Final = "phantom.json"
_FINEST_MM: Final = 0.5
_COARSEST_MM: Final = 8.0
_SEGMENTATION: Final = "seg"


@dataclass(frozen=True)
class PhantomCase:
    """One synthetic case. The label codes are those of BRATS 2017 to 2021.

    ``images`` holds the four scans in the order of ``MODALITIES``, in arbitrary units, 0
    outside the brain and at least 1 inside; ``affine`` maps voxels to millimetres.
    """

    case: str
    patient: str
    grade: Literal["HGG", "LGG"]
    images: Int16[np.ndarray, "modality x y z"]
    label: UInt8[np.ndarray, "x y z"]
    affine: Float64[np.ndarray, "4 4"]


# ----------------------------------------------------------------------------------- voxels


def grid_shape(spacing_mm: float) -> tuple[int, int, int]:
    """Return how many voxels of ``spacing_mm`` cover the BRATS field of view."""
    x, y, z = (int(np.ceil(extent / spacing_mm)) for extent in FIELD_OF_VIEW_MM)
    return x, y, z


def grid_affine(spacing_mm: float) -> Float64[np.ndarray, "4 4"]:
    """Return the BRATS affine; at any spacing the first voxel's centre is at (0, 239, 0)."""
    affine = np.diag([-spacing_mm, -spacing_mm, spacing_mm, 1.0])
    affine[1, 3] = 239.0
    return affine


def synthesize_patient(
    index: int, *, seed: int, spacing_mm: float, time_point: int = 0
) -> PhantomCase:
    """Make patient ``index`` of the cohort that ``seed`` names; equal arguments, equal voxels.

    A later ``time_point`` is the same brain in a new session, its tumour having grown.
    """
    _check_spacing(spacing_mm)
    streams = np.random.default_rng([seed, index]).spawn(5 + time_point)
    anatomy_rng, plan_rng, growth_rng, finding_rng, *session_rngs = streams
    healthy = draw_anatomy(anatomy_rng)
    healthy_tissues = healthy.planning_tissues()
    plan = plan_tumour(plan_rng, healthy_tissues, time_point=time_point)
    anatomy = healthy.pushed(plan.centre_mm, radius_mm=plan.core_radius_mm, push_mm=plan.push_mm)
    shape = grid_shape(spacing_mm)
    window = _brain_window(healthy_tissues.brain, shape, spacing_mm)
    axes_mm = _axes_mm(window, spacing_mm)
    tissues = anatomy.tissues(axes_mm, spacing_mm=spacing_mm)
    tumour = grow_tumour(growth_rng, plan, anatomy, tissues, axes_mm, spacing_mm=spacing_mm)
    images = np.zeros((len(MODALITIES), *shape), dtype=np.int16)
    images[:, *window] = scan(
        session_rngs[-1], finding_rng, tissues, tumour, axes_mm, spacing_mm=spacing_mm
    )
    label = np.zeros(shape, dtype=np.uint8)
    label[window] = tumour.label
    patient = f"Phantom_{index:05d}"
    return PhantomCase(
        case=f"{patient}_{time_point:03d}",
        patient=patient,
        grade=plan.grade,
        images=images,
        label=label,
        affine=grid_affine(spacing_mm),
    )


def _brain_window(
    brain: Bool[np.ndarray, "x y z"], shape: tuple[int, int, int], spacing_mm: float
) -> tuple[slice, slice, slice]:
    """Return the part of the grid that a planned brain needs, with a margin for blurring."""
    x, y, z = (
        slice(
            max(0, int((axis_mm[found.start] - 8) / spacing_mm)),
            min(size, int((axis_mm[found.stop - 1] + 8) / spacing_mm) + 1),
        )
        for axis_mm, found, size in zip(
            Lattice(PLANNING_MM).axes_mm,
            ndimage.find_objects(brain.astype(np.uint8))[0],
            shape,
            strict=True,
        )
    )
    return x, y, z


def _axes_mm(window: tuple[slice, slice, slice], spacing_mm: float) -> Axes:
    x, y, z = (np.arange(along.start, along.stop) * spacing_mm for along in window)
    return x, y, z


# ------------------------------------------------------------------------------------ files


@dataclass(frozen=True)
class _Layout:
    """How one BRATS year names a case's folder and files; ``{}`` stands for the index."""

    case: str
    file: str  # within the folder; takes case and kind
    kinds: Mapping[str, str]  # modality, or seg, to the kind in the file name

    def files(self, case: str) -> dict[str, str]:
        """Return the file name of each modality and of the segmentation."""
        return {part: self.file.format(case=case, kind=kind) for part, kind in self.kinds.items()}


_LAYOUTS: Final[Mapping[str, _Layout]] = {
    "brats2021": _Layout(
        case="BraTS2021_{:05d}",
        file="{case}_{kind}.nii.gz",
        kinds={part: part for part in (*MODALITIES, _SEGMENTATION)},
    ),
}


@dataclass(frozen=True)
class _Settings:
    """What every case of one folder has in common."""

    layout: str
    spacing_mm: float
    seed: int


def _ignore(case: str) -> None:
    """Tell nobody."""


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

    A case that is there already stays; ``on_case`` hears of each one once it is there. With
    ``workers`` above 1, that many processes make them. In this layout each case is a patient
    of its own.

    Raises:
        DataError: An argument cannot be right, or ``out`` holds something else.
    """
    settings = _Settings(layout=layout, spacing_mm=float(spacing_mm), seed=seed)
    _check(settings, cases=cases, workers=workers)
    _claim(out, settings)
    write = partial(_write_case, out, settings)
    written = []
    for case in _each(write, range(cases), workers=workers):
        on_case(case)
        written.append(case)
    return tuple(written)


def _each(write: Callable[[int], str], indices: range, *, workers: int) -> Iterator[str]:
    if workers == 1:
        yield from map(write, indices)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(write, indices)


def _write_case(out: Path, settings: _Settings, index: int) -> str:
    """Write one case whole or not at all."""
    layout = _LAYOUTS[settings.layout]
    case = layout.case.format(index)
    files = layout.files(case)
    if all((out / case / file).is_file() for file in files.values()):
        return case
    phantom = synthesize_patient(index, seed=settings.seed, spacing_mm=settings.spacing_mm)
    voxels = dict(zip(MODALITIES, phantom.images, strict=True)) | {_SEGMENTATION: phantom.label}
    partial_folder = out / f".{case}.{os.getpid()}.partial"
    shutil.rmtree(partial_folder, ignore_errors=True)
    partial_folder.mkdir()
    try:
        for part, file in files.items():
            (partial_folder / file).write_bytes(_nifti(voxels[part], phantom.affine))
        shutil.rmtree(out / case, ignore_errors=True)  # it is there, but lacks files
        partial_folder.replace(out / case)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)
    return case


def _nifti(
    voxels: Int16[np.ndarray, "x y z"] | UInt8[np.ndarray, "x y z"],
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
    if settings.layout not in _LAYOUTS:
        raise DataError(
            f"Phantoms cannot be written in the layout '{settings.layout}', only in: "
            f"{', '.join(_LAYOUTS)}.{nearest(settings.layout, _LAYOUTS)}"
        )
    _check_spacing(settings.spacing_mm)
    if cases < 1:
        raise DataError(f"{cases} phantom cases were asked for; ask for at least 1.")
    if workers < 1:
        raise DataError(f"{workers} workers cannot make phantoms; give at least 1.")
    if settings.seed < 0:
        raise DataError(f"The phantoms' seed is {settings.seed}; it must be 0 or more.")


def _check_spacing(spacing_mm: float) -> None:
    # The negation also catches what is not a number.
    if not _FINEST_MM <= spacing_mm <= _COARSEST_MM:
        raise DataError(
            f"A voxel spacing of {spacing_mm:g} mm makes no sensible phantom; "
            f"give {_FINEST_MM:g} to {_COARSEST_MM:g} mm."
        )


def _claim(out: Path, settings: _Settings) -> None:
    """Write down in ``out`` what it holds, or check that it holds just that."""
    file = out / _SETTINGS_FILE
    if file.is_file():
        _compare(out, json.loads(file.read_text()), asdict(settings))
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


def _compare(out: Path, found: Mapping[str, object], asked: Mapping[str, object]) -> None:
    differences = [
        f"{name} {found.get(name)} there, {value} asked for"
        for name, value in asked.items()
        if found.get(name) != value
    ]
    if differences:
        raise DataError(
            f"{out} holds phantoms made with other settings: {'; '.join(differences)}. "
            "Give the same settings or another folder."
        )
