"""The phantom's healthy anatomy: the ICBM-152 templates, deformed and folded anew for one patient.

Positions are millimetres in the BRATS frame: voxel ``(i, j, k)`` of a grid lies at
``(i, j, k) * spacing_mm``, that is x to the left, y to the back and z upwards. Every random
field is drawn on a lattice of millimetres, never of voxels, so that one patient looks the
same at any spacing.

Template: Fonov et al. 2011, ICBM 152 non-linear symmetric 2009a, as shipped with nilearn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Final

import nibabel
import numpy as np
from scipy import ndimage  # type: ignore[import-untyped, unused-ignore]

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64

    Axes = tuple[Float64[np.ndarray, " x"], Float64[np.ndarray, " y"], Float64[np.ndarray, " z"]]

FIELD_OF_VIEW_MM: Final = (240.0, 240.0, 155.0)
_COARSE_MM: Final = 4.0
_FOLDINGS: Final = 6
PLANNING_MM: Final = 3.0  # where tumours are placed and grown
# The template's brain lies within this part of its 197 x 233 x 189 voxels; all other template
# voxels here are counted from its corner.
_TEMPLATE_BOX: Final = (slice(20, 178), slice(20, 214), slice(0, 161))
_MIDLINE: Final = 78.0  # first template axis, left to right
_CENTRE: Final = np.array([78.0, 97.0, 77.0])
_VENTRICLE_BOX: Final = (slice(38, 119), slice(50, 150), slice(55, 112))  # all but the fourth
_PATIENT_CENTRE_MM: Final = np.array([119.5, 119.5, 77.0])
_GREY_T1: Final = 165.0
_WHITE_T1: Final = 223.0
_CSF_T1: Final = 62.0


# ----------------------------------------------------------------- smooth fields on lattices


@dataclass(frozen=True)
class Lattice:
    """Control points every ``step_mm`` over the field of view, two to spare on each side."""

    step_mm: float

    @property
    def shape(self) -> tuple[int, int, int]:
        """Control points along x, y and z."""
        x, y, z = (int(np.ceil(extent / self.step_mm)) + 5 for extent in FIELD_OF_VIEW_MM)
        return x, y, z

    @property
    def axes_mm(self) -> Axes:
        """The positions of the control points along x, y and z."""
        x, y, z = ((np.arange(count) - 2) * self.step_mm for count in self.shape)
        return x, y, z

    def spline(
        self, control: Float32[np.ndarray, "cx cy cz"], axes_mm: Axes
    ) -> Float32[np.ndarray, "x y z"]:
        """Evaluate the cubic B-spline of ``control`` on a grid; straight lines stay straight."""
        x, y, z = (
            self._weights(positions, count)
            for positions, count in zip(axes_mm, self.shape, strict=True)
        )
        along_x = np.tensordot(x, control, axes=(1, 0))
        along_y = np.einsum("jb,ibc->ijc", y, along_x, optimize=True)
        return np.asarray(along_y @ z.T, dtype=np.float32)

    def _weights(
        self, positions_mm: Float64[np.ndarray, " n"], count: int
    ) -> Float32[np.ndarray, "n control"]:
        distance = np.abs(positions_mm[:, None] / self.step_mm + 2 - np.arange(count))
        near = 2 / 3 - distance**2 + distance**3 / 2
        far = np.clip(2 - distance, 0, None) ** 3 / 6
        return np.where(distance < 1, near, far).astype(np.float32)


def random_field(
    rng: np.random.Generator, axes_mm: Axes, *, step_mm: float
) -> Float32[np.ndarray, "x y z"]:
    """Draw a smooth field of zero mean and unit variance; it turns over about ``step_mm``."""
    lattice = Lattice(step_mm)
    control = rng.standard_normal(lattice.shape, dtype=np.float32)
    # The squared B-spline weights sum to 0.479 along each axis, on average.
    return lattice.spline(control * np.float32(0.479**-1.5), axes_mm)


# --------------------------------------------------------------------------------- template


@dataclass(frozen=True)
class Template:
    """The average brain on its own 1 mm lattice, smoothed for sampling at one spacing.

    ``t1`` holds the T1 intensity with sharpened sulci (CSF about 62, grey 165, white 223),
    ``white`` the fraction of white among the tissue, ``hull`` is about 1 inside and 0 outside
    the brain's outer surface. The two distances are on a lattice of 2 mm, as is ``inward``, the
    unit vector away from the nearest surface.
    """

    t1: Float32[np.ndarray, "x y z"]
    white: Float32[np.ndarray, "x y z"]
    hull: Float32[np.ndarray, "x y z"]
    depth_mm: Float32[np.ndarray, "x2 y2 z2"]
    ventricle_mm: Float32[np.ndarray, "x2 y2 z2"]
    inward: Float32[np.ndarray, "axis x2 y2 z2"]


@lru_cache(maxsize=3)
def load_template(spacing_mm: float) -> Template:
    """Read the template once per process and smooth it against aliasing at ``spacing_mm``."""
    template = _read_template()
    if spacing_mm <= 1:
        return template
    sigma = 0.3 * spacing_mm
    t1, white, hull = (
        ndimage.gaussian_filter(channel, sigma, truncate=3)
        for channel in (template.t1, template.white, template.hull)
    )
    return replace(template, t1=t1, white=white, hull=hull)


@lru_cache(maxsize=1)
def _read_template() -> Template:
    t1, grey, white = (_read_channel(name) for name in ("t1", "gm", "wm"))
    inside = t1 > 0
    hull = _hull(inside)
    ventricles = _ventricles(t1, inside)
    every_2mm = (slice(None, None, 2),) * 3
    depth_mm = _distance_mm(hull[every_2mm] > 0.4)
    inward = np.stack(list(np.gradient(ndimage.gaussian_filter(depth_mm, 1.5))))
    return Template(
        t1=_with_sharp_sulci(t1, inside),
        white=_steeper(white / np.maximum(white + grey, 1)),
        hull=hull,
        depth_mm=depth_mm,
        ventricle_mm=_distance_mm(~ventricles[every_2mm]),
        inward=inward / np.maximum(np.linalg.norm(inward, axis=0), np.float32(1e-3)),
    )


def _read_channel(name: str) -> Float32[np.ndarray, "x y z"]:
    file = f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    with resources.as_file(resources.files("nilearn") / "datasets" / "data" / file) as path:
        voxels = np.asarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
    return voxels[_TEMPLATE_BOX].astype(np.float32)


def _with_sharp_sulci(
    t1: Float32[np.ndarray, "x y z"], inside: Bool[np.ndarray, "x y z"]
) -> Float32[np.ndarray, "x y z"]:
    # Averaging 152 brains blurs every sulcus; undo some of it, as one brain has sharp ones.
    weight = ndimage.gaussian_filter(inside.astype(np.float32), 1.6)
    blurred = ndimage.gaussian_filter(t1, 1.6) / np.maximum(weight, 1e-3)
    sharp = np.clip(t1 + 1.8 * (t1 - blurred), 40, 240)
    return np.where(inside, sharp, np.float32(_CSF_T1))


def _steeper(fraction: Float32[np.ndarray, "x y z"]) -> Float32[np.ndarray, "x y z"]:
    return np.clip(0.5 + 1.7 * (fraction - 0.5), 0, 1).astype(np.float32)


def _hull(inside: Bool[np.ndarray, "x y z"]) -> Float32[np.ndarray, "x y z"]:
    # The template's mask leaves out cisterns and the clefts between gyri: close them.
    closed = inside | (ndimage.gaussian_filter(inside.astype(np.float32), 5) > 0.55)
    return np.asarray(ndimage.gaussian_filter(closed.astype(np.float32), 1.5))


def _ventricles(
    t1: Float32[np.ndarray, "x y z"], inside: Bool[np.ndarray, "x y z"]
) -> Bool[np.ndarray, "x y z"]:
    fluid = inside & (t1 < 120)
    box = np.zeros_like(fluid)
    box[_VENTRICLE_BOX] = True
    parts, _ = ndimage.label(fluid & box)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.isin(parts, np.flatnonzero(sizes > 1500))


def _distance_mm(inside: Bool[np.ndarray, "x y z"]) -> Float32[np.ndarray, "x y z"]:
    return np.asarray(ndimage.distance_transform_edt(inside, sampling=2.0), dtype=np.float32)


# ------------------------------------------------------------------------------ one patient


@dataclass(frozen=True)
class Tissues:
    """The tissues of one patient's anatomy at every voxel of a grid.

    Fractions ``grey + white + csf`` are 1 everywhere; ``texture`` is the template's T1
    contrast within a tissue (unit: the grey-white difference); distances are in mm:
    ``depth_mm`` under the brain's surface, ``ventricle_mm`` from the nearest ventricle,
    ``midline_mm`` to the right (negative) or left of the plane between the hemispheres.
    """

    grey: Float32[np.ndarray, "x y z"]
    white: Float32[np.ndarray, "x y z"]
    csf: Float32[np.ndarray, "x y z"]
    texture: Float32[np.ndarray, "x y z"]
    brain: Bool[np.ndarray, "x y z"]
    depth_mm: Float32[np.ndarray, "x y z"]
    ventricle_mm: Float32[np.ndarray, "x y z"]
    midline_mm: Float32[np.ndarray, "x y z"]
    height: Float32[np.ndarray, "x y z"]


@dataclass(frozen=True)
class Anatomy:
    """One patient's brain: which template voxel lies where, and how wide the sulci are.

    ``coordinates`` are template voxels at the control points of a 4 mm lattice;
    ``csf_level``, on the same lattice, is the T1 intensity below which CSF begins (older brains
    have more, and no brain has sulci of one width everywhere); ``hull_level`` says how much fluid
    around the brain the skull stripping left.
    """

    coordinates: Float32[np.ndarray, "axis cx cy cz"]
    csf_level: Float32[np.ndarray, "cx cy cz"]
    hull_level: float

    def tissues(self, axes_mm: Axes, *, spacing_mm: float) -> Tissues:
        """Sample the patient's tissues on a grid of ``spacing_mm``."""
        template = load_template(spacing_mm)
        lattice = Lattice(_COARSE_MM)
        at = np.stack([lattice.spline(axis, axes_mm) for axis in self.coordinates])
        t1 = _sample(template.t1, at, outside=_CSF_T1)
        csf = np.clip((lattice.spline(self.csf_level, axes_mm) - t1) / 55, 0, 1)
        white = (1 - csf) * _sample(template.white, at)
        grey = 1 - csf - white
        expected = grey * _GREY_T1 + white * _WHITE_T1 + csf * _CSF_T1
        return Tissues(
            grey=grey,
            white=white,
            csf=csf,
            texture=np.clip((t1 - expected) / (_WHITE_T1 - _GREY_T1), -1, 1),
            brain=_sample(template.hull, at) > self.hull_level,
            depth_mm=_sample(template.depth_mm, at / 2),
            ventricle_mm=_sample(template.ventricle_mm, at / 2, outside=99),
            midline_mm=_MIDLINE - at[0],
            height=at[2],
        )

    def planning_tissues(self) -> Tissues:
        """Sample the patient's tissues at the control points where tumours are planned."""
        return self.tissues(Lattice(PLANNING_MM).axes_mm, spacing_mm=PLANNING_MM)

    def pushed(
        self, centre_mm: Float64[np.ndarray, " axis"], *, radius_mm: float, push_mm: float
    ) -> Anatomy:
        """Return the anatomy as a mass of ``radius_mm`` displaces it.

        The push fades with the distance from the mass and ends at the skull.
        """
        axes_mm = Lattice(_COARSE_MM).axes_mm
        position = np.stack(np.meshgrid(*axes_mm, indexing="ij"))
        offset = position - centre_mm[:, None, None, None]
        distance = np.maximum(np.sqrt((offset**2).sum(0)), 1e-3)
        fade = np.exp(-np.clip(distance - radius_mm, 0, None) / 28)
        depth_mm = _sample(load_template(PLANNING_MM).depth_mm, self.coordinates / 2)
        push = push_mm * fade * np.clip(distance / radius_mm, 0, 1) * np.clip(depth_mm / 18, 0, 1)
        source = (position - offset / distance * push) / _COARSE_MM + 2
        moved = [
            ndimage.map_coordinates(axis, source, order=1, mode="nearest")
            for axis in self.coordinates
        ]
        return replace(self, coordinates=np.stack(moved).astype(np.float32))


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw one patient's brain: an affine, a smooth deformation, and folds of its own."""
    lattice = Lattice(_COARSE_MM)
    axes_mm = lattice.axes_mm
    position = (
        np.stack(np.meshgrid(*axes_mm, indexing="ij")) - _PATIENT_CENTRE_MM[:, None, None, None]
    )
    straight = np.tensordot(_draw_affine(rng), position, axes=(1, 0))
    warp = [
        2.4 * random_field(rng, axes_mm, step_mm=34) + 1.5 * random_field(rng, axes_mm, step_mm=14)
        for _ in range(3)
    ]
    coordinates = straight + np.stack(warp) + _CENTRE[:, None, None, None]
    for _ in range(_FOLDINGS):
        coordinates = _fold(rng, coordinates.astype(np.float32), axes_mm)
    width = rng.uniform(138, 154) + 6 * random_field(rng, axes_mm, step_mm=24)
    return Anatomy(
        coordinates=coordinates,
        csf_level=width.astype(np.float32),
        hull_level=rng.uniform(0.3, 0.48),
    )


def _fold(
    rng: np.random.Generator, coordinates: Float32[np.ndarray, "axis cx cy cz"], axes_mm: Axes
) -> Float32[np.ndarray, "axis cx cy cz"]:
    """Move tissue by about 1.5 mm over half the distance between two sulci.

    Many such steps one after another move a sulcus to where its neighbour was without folding
    space over itself, as one step of their length would. Near the surface tissue slides along it
    and near the midline it stays, as skull and falx hold it.
    """
    template = load_template(PLANNING_MM)
    moved = np.stack([random_field(rng, axes_mm, step_mm=16) for _ in range(3)]) * np.float32(1.5)
    inward = np.stack([_sample(axis, coordinates / 2) for axis in template.inward])
    held = np.exp(-_sample(template.depth_mm, coordinates / 2) / 10)
    moved -= inward * (inward * moved).sum(axis=0) * held
    moved[0] *= 1 - np.exp(-(((coordinates[0] - _MIDLINE) / 12) ** 2))
    source = np.indices(coordinates.shape[1:]) + moved / _COARSE_MM
    return np.stack(
        [ndimage.map_coordinates(axis, source, order=1, mode="nearest") for axis in coordinates]
    )


def _draw_affine(rng: np.random.Generator) -> Float64[np.ndarray, "3 3"]:
    """Return the matrix from patient offsets in mm to template offsets in voxels."""
    pitch, yaw, roll = np.deg2rad(rng.normal(0, [3.0, 2.0, 2.5]))
    nod = np.array(
        [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    )
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    tilt = np.array([[np.cos(roll), 0, np.sin(roll)], [0, 1, 0], [-np.sin(roll), 0, np.cos(roll)]])
    # Template x runs to the right and y to the front, the BRATS grid the other way.
    flip = np.diag([-1.0, -1.0, 1.0])
    scale = np.diag(1 / rng.uniform([0.93, 0.93, 0.92], [1.06, 1.06, 1.0]))
    return np.asarray(flip @ scale @ nod @ turn @ tilt)


def _sample(
    channel: Float32[np.ndarray, "a b c"],
    at: Float32[np.ndarray, "axis x y z"],
    *,
    outside: float = 0.0,
) -> Float32[np.ndarray, "x y z"]:
    return np.asarray(ndimage.map_coordinates(channel, at, order=1, cval=outside), dtype=np.float32)
