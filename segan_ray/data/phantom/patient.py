"""One patient of the phantom: anatomy, tumour and scans on one grid.

An individually deformed ICBM-152 brain (``anatomy``), a tumour grown through its tissue
(``tumour``), seen by four contrasts (``contrast``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from scipy import ndimage  # type: ignore[import-untyped, unused-ignore]

from segan_ray.brats import MODALITIES, LabelCode
from segan_ray.data.phantom.anatomy import FIELD_OF_VIEW_MM, PLANNING_MM, Lattice, draw_anatomy
from segan_ray.data.phantom.contrast import draw_scanner, scan
from segan_ray.data.phantom.tumour import EDEMA, ENHANCING, NECROSIS, grow_tumour, plan_tumour
from segan_ray.errors import DataError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int16, UInt8

    from segan_ray.data.layouts.layout import Grade
    from segan_ray.data.phantom.anatomy import Axes

_SCANNERS: Final = 12  # of a cohort
_FINEST_MM: Final = 0.5
_COARSEST_MM: Final = 8.0


@dataclass(frozen=True)
class PhantomCase:
    """One synthetic case. The label codes are those of BRATS 2017 to 2021.

    ``solid`` is the part of label 1 that does not enhance but is alive. ``images`` holds the
    four scans in the order of ``MODALITIES``, in arbitrary units, 0 outside the brain and at
    least 1 inside; ``affine`` maps voxels to millimetres.
    """

    case: str
    patient: str
    grade: Grade
    images: Int16[np.ndarray, "modality x y z"]
    label: UInt8[np.ndarray, "x y z"]
    solid: Bool[np.ndarray, "x y z"]
    affine: Float64[np.ndarray, "4 4"]

    def label_in(self, code: LabelCode) -> UInt8[np.ndarray, "x y z"]:
        """Return the label in another year's ``code``."""
        (edema,) = code.whole - code.core
        (enhancing,) = code.enhancing
        # Where there are two, necrosis comes first in every year.
        dead, *alive = sorted(code.core - code.enhancing)
        codes = np.zeros(ENHANCING + 1, dtype=np.uint8)
        codes[[NECROSIS, EDEMA, ENHANCING]] = dead, edema, enhancing
        label: UInt8[np.ndarray, "x y z"] = codes[self.label]
        if alive:
            label[self.solid] = alive[0]
        return label


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

    A later ``time_point`` is the same brain in a new session, its tumour having grown. Each
    session is on one of the cohort's twelve scanners.
    """
    check_spacing(spacing_mm)
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
    session_rng = session_rngs[-1]
    number = int(session_rng.integers(_SCANNERS))
    scanner = draw_scanner(np.random.default_rng([seed, _SCANNERS, number]))
    images[:, *window] = scan(
        session_rng, finding_rng, scanner, tissues, tumour, axes_mm, spacing_mm=spacing_mm
    )
    label = np.zeros(shape, dtype=np.uint8)
    label[window] = tumour.label
    solid = np.zeros(shape, dtype=bool)
    solid[window] = tumour.label_solid
    patient = f"Phantom_{index:05d}"
    return PhantomCase(
        case=f"{patient}_{time_point:03d}",
        patient=patient,
        grade=plan.grade,
        images=images,
        label=label,
        solid=solid,
        affine=grid_affine(spacing_mm),
    )


def _brain_window(
    brain: Bool[np.ndarray, "x y z"], shape: tuple[int, int, int], spacing_mm: float
) -> tuple[slice, slice, slice]:
    """Return the part of the grid that a planned brain needs, with a margin for blurring."""
    x, y, z = (
        slice(
            max(0, int((axis_mm[extent.start] - 8) / spacing_mm)),
            min(size, int((axis_mm[extent.stop - 1] + 8) / spacing_mm) + 1),
        )
        for axis_mm, extent, size in zip(
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


def check_spacing(spacing_mm: float) -> None:
    """Refuse a voxel size that makes no brain.

    Raises:
        DataError: if it is too fine, too coarse or no number.
    """
    # The negation also catches NaN.
    if not _FINEST_MM <= spacing_mm <= _COARSEST_MM:
        raise DataError(
            f"A voxel spacing of {spacing_mm:g} mm makes no sensible phantom; "
            f"give {_FINEST_MM:g} to {_COARSEST_MM:g} mm."
        )
