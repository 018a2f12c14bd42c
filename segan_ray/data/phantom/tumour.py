"""The phantom's glioma: fronts that spread through one patient's tissue.

Two fronts start from a point in the white matter. The first is slowed little by grey
matter and makes a lobed core; the second starts at the core's surface, runs along white
matter and makes the edema. CSF and the falx hold both back. A front arrives after the
shortest travel time over a 3 mm lattice. A tumour of a given volume is the tissue reached
by some time, so a follow-up is the same front at a later time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from scipy import ndimage, sparse  # type: ignore[import-untyped, unused-ignore]

from segan_ray.data.phantom.anatomy import PLANNING_MM, Lattice, random_field

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, UInt8

    from segan_ray.data.phantom.anatomy import Anatomy, Axes, Tissues

NECROSIS: Final = 1  # necrotic and non-enhancing, as BRATS codes them from 2017 to 2021
EDEMA: Final = 2
ENHANCING: Final = 4

_NEVER: Final = 400.0
_LGG_SHARE: Final = 0.13
_READER_EDGE_MM: Final = 1.5  # standard deviation of where readers draw a border
_READER_CORE_MM: Final = 0.45


@dataclass(frozen=True)
class TumourPlan:
    """The plan of one patient's tumour, before it is grown. Volumes in millilitres."""

    grade: Literal["HGG", "LGG"]
    centre_mm: Float64[np.ndarray, " axis"]
    whole_ml: float
    core_ml: float
    rim_mm: float
    push_mm: float

    @property
    def core_radius_mm(self) -> float:
        """Radius of a ball as large as the core."""
        return float((3000 * self.core_ml / (4 * np.pi)) ** (1 / 3))


@dataclass(frozen=True)
class Tumour:
    """A grown tumour on a grid: the truth, and the tissue that the scanner will see.

    ``label`` uses the codes above; ``label_solid`` is its part of ``NECROSIS`` that is alive but
    does not enhance, which years until 2015 tell apart. ``edema`` is the swollen share of a
    voxel's tissue, from 0 to 1 with a soft border. The others are parts of the core with sharp
    borders, which do not overlap.
    """

    label: UInt8[np.ndarray, "x y z"]
    label_solid: Bool[np.ndarray, "x y z"]
    edema: Float32[np.ndarray, "x y z"]
    necrotic: Bool[np.ndarray, "x y z"]
    enhancing: Bool[np.ndarray, "x y z"]
    solid: Bool[np.ndarray, "x y z"]


def plan_tumour(rng: np.random.Generator, tissues: Tissues, *, time_point: int) -> TumourPlan:
    """Draw grade, position and size; each later ``time_point`` has a larger tumour.

    ``tissues`` are the healthy tissues on the planning lattice.
    """
    grade: Literal["HGG", "LGG"] = "LGG" if rng.random() < _LGG_SHARE else "HGG"
    whole_ml = float(np.exp(rng.uniform(np.log(18), np.log(140))))
    share = rng.uniform(0.45, 0.8) if grade == "LGG" else rng.uniform(0.18, 0.55)
    growth = rng.uniform(1.25, 1.7) ** time_point
    core_ml = min(whole_ml * share, 55.0)
    return TumourPlan(
        grade=grade,
        centre_mm=_draw_centre(rng, tissues),
        whole_ml=min(whole_ml * growth, 220.0),
        core_ml=min(core_ml * growth, 110.0),
        rim_mm=rng.uniform(2.2, 5.5),
        push_mm=rng.uniform(1.0, 6.0) * min(1.0, core_ml / 20),
    )


def _draw_centre(rng: np.random.Generator, tissues: Tissues) -> Float64[np.ndarray, " axis"]:
    possible = (
        (tissues.white > 0.6)
        & (tissues.depth_mm > 10)
        & (tissues.ventricle_mm > 5)
        & (np.abs(tissues.midline_mm) > 14)
        & (tissues.height > 60)  # above the cerebellum and the brain stem
    )
    index = rng.choice(np.argwhere(possible))
    return np.array([axis[i] for axis, i in zip(Lattice(PLANNING_MM).axes_mm, index, strict=True)])


def grow_tumour(
    rng: np.random.Generator,
    plan: TumourPlan,
    anatomy: Anatomy,
    tissues: Tissues,
    axes_mm: Axes,
    *,
    spacing_mm: float,
) -> Tumour:
    """Grow ``plan`` through ``anatomy`` and place it on the grid that ``tissues`` has.

    The label is a reader's: its borders differ a little from the scanned tumour's, as the borders
    of two radiologists differ, so that no method can be right about every voxel.
    """
    core_front, edema_front = _fronts(rng, plan, anatomy, axes_mm)
    texture = _CoreTexture.draw(rng, axes_mm)
    # The fine grid sees gyri that the fronts' lattice is too coarse for.
    edema_front = edema_front + 4.0 * tissues.grey + 10.0 * tissues.csf - 1.0
    core = (core_front < 0) & tissues.brain
    enhancing, solid = _core_parts(texture, plan, core, spacing_mm=spacing_mm)
    softness = 1 / (1 + np.exp(np.clip(edema_front / 1.1, -30, 30)))
    edema = np.where(tissues.brain & ~core, softness * (1 - tissues.csf), 0)
    core_front = core_front + _READER_CORE_MM * random_field(rng, axes_mm, step_mm=9)
    edema_front = edema_front + _READER_EDGE_MM * random_field(rng, axes_mm, step_mm=12)
    label, label_solid = _read(
        texture, plan, tissues, core_front, edema_front, spacing_mm=spacing_mm
    )
    return Tumour(
        label=label,
        label_solid=label_solid,
        edema=edema.astype(np.float32),
        necrotic=core & ~enhancing & ~solid,
        enhancing=enhancing,
        solid=solid,
    )


def _read(
    texture: _CoreTexture,
    plan: TumourPlan,
    tissues: Tissues,
    core_front: Float32[np.ndarray, "x y z"],
    edema_front: Float32[np.ndarray, "x y z"],
    *,
    spacing_mm: float,
) -> tuple[UInt8[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]]:
    """Return the label of the tumour whose fronts are at 0, and its solid part."""
    core = (core_front < 0) & tissues.brain
    enhancing, solid = _core_parts(texture, plan, core, spacing_mm=spacing_mm)
    label = np.zeros(core.shape, dtype=np.uint8)
    label[(edema_front < 0) & tissues.brain & (tissues.csf < 0.6)] = EDEMA
    label[core] = NECROSIS
    label[enhancing] = ENHANCING
    return label, solid


# ----------------------------------------------------------------------------------- fronts


def _fronts(
    rng: np.random.Generator, plan: TumourPlan, anatomy: Anatomy, axes_mm: Axes
) -> tuple[Float32[np.ndarray, "x y z"], Float32[np.ndarray, "x y z"]]:
    """Return, for core and edema, arrival minus the time the volume is full: inside is < 0."""
    lattice = Lattice(PLANNING_MM)
    tissues = anatomy.planning_tissues()
    falx = (np.abs(tissues.midline_mm) < 2.5) & (tissues.white < 0.5)
    barrier = np.where(falx, 30.0, 0.0)
    lobes = np.exp(0.55 * random_field(rng, lattice.axes_mm, step_mm=11))
    core_slowness = lobes * (1 + 0.5 * tissues.grey) + 8 * tissues.csf + barrier
    start = np.round(plan.centre_mm / PLANNING_MM + 2).astype(int)
    seed = np.zeros(lattice.shape, dtype=bool)
    seed[tuple(start)] = True
    core = _until_full(_arrival(core_slowness, tissues.brain, seed), plan.core_ml)
    streaks = np.exp(0.5 * random_field(rng, lattice.axes_mm, step_mm=9))
    edema_slowness = streaks * (1 + 3.0 * tissues.grey) + 20 * tissues.csf + barrier
    edema = _until_full(_arrival(edema_slowness, tissues.brain, core < 0), plan.whole_ml)
    return lattice.spline(core, axes_mm), lattice.spline(edema, axes_mm)


def _until_full(
    arrival: Float32[np.ndarray, "x y z"], volume_ml: float
) -> Float32[np.ndarray, "x y z"]:
    voxels = max(1, round(1000 * volume_ml / PLANNING_MM**3))
    return arrival - np.float32(np.partition(arrival.ravel(), voxels)[voxels])


def _arrival(
    slowness: Float64[np.ndarray, "x y z"],
    brain: Bool[np.ndarray, "x y z"],
    sources: Bool[np.ndarray, "x y z"],
) -> Float32[np.ndarray, "x y z"]:
    """Return the shortest travel time from ``sources`` to every brain voxel (slowness x mm)."""
    node = np.full(brain.shape, -1)
    brain = brain | sources
    node[brain] = np.arange(np.count_nonzero(brain))
    edges = _edges(slowness, node)
    times = sparse.csgraph.dijkstra(
        edges, directed=False, indices=node[sources], min_only=True, limit=_NEVER
    )
    arrival = np.full(brain.shape, _NEVER, dtype=np.float32)
    arrival[brain] = np.minimum(times, _NEVER)
    return arrival


def _edges(slowness: Float64[np.ndarray, "x y z"], node: np.ndarray) -> sparse.csr_matrix:
    """Join each brain voxel to half of its 26 neighbours, which is enough: edges go both ways."""
    size = int(node.max()) + 1
    rows, columns, costs = [], [], []
    for step in [s for s in product((-1, 0, 1), repeat=3) if s > (0, 0, 0)]:
        here = tuple(
            slice(max(0, -d), n - max(0, d)) for d, n in zip(step, node.shape, strict=True)
        )
        there = tuple(
            slice(max(0, d), n - max(0, -d)) for d, n in zip(step, node.shape, strict=True)
        )
        joined = (node[here] >= 0) & (node[there] >= 0)
        length_mm = PLANNING_MM * float(np.linalg.norm(step))
        rows.append(node[here][joined])
        columns.append(node[there][joined])
        costs.append(length_mm * (slowness[here][joined] + slowness[there][joined]) / 2)
    entries = np.concatenate(costs), (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_matrix(entries, shape=(size, size))


# ------------------------------------------------------------------------------------- core


@dataclass(frozen=True)
class _CoreTexture:
    """Random fields that make each core its own; zero mean, unit variance."""

    thickness: Float32[np.ndarray, "x y z"]  # of the rim
    rind: Float32[np.ndarray, "x y z"]  # solid tissue outside of the rim
    gaps: Float32[np.ndarray, "x y z"]  # in the rim
    nodules: Float32[np.ndarray, "x y z"]  # inside of the rim

    @classmethod
    def draw(cls, rng: np.random.Generator, axes_mm: Axes) -> _CoreTexture:
        """Draw the four fields on a grid."""
        return cls(*(random_field(rng, axes_mm, step_mm=step) for step in (13.0, 22.0, 16.0, 9.0)))


def _core_parts(
    texture: _CoreTexture,
    plan: TumourPlan,
    core: Bool[np.ndarray, "x y z"],
    *,
    spacing_mm: float,
) -> tuple[Bool[np.ndarray, "x y z"], Bool[np.ndarray, "x y z"]]:
    """Split the core into an enhancing rim and solid non-enhancing tissue; the rest is dead.

    The rim is of uneven thickness, broken in places, with septa and nodules inside; where
    solid tissue lies outside of it, the rim runs deeper.
    """
    below = _below_surface_mm(core, spacing_mm)
    if plan.grade == "LGG":
        cyst = (texture.gaps > 1.1) & (below > 4)
        return np.zeros_like(core), core & ~cyst
    rind_mm = np.clip(3.5 * texture.rind - 2.0, 0, 7)
    rim_mm = plan.rim_mm * np.exp(0.45 * texture.thickness)
    in_rim = (below < rind_mm + rim_mm) & (texture.gaps < 1.5)
    septa = (np.abs(texture.gaps) < 0.09) & (texture.thickness > 0.2)
    enhancing = core & (below >= rind_mm) & (in_rim | septa | (texture.nodules > 1.5))
    shallow = below < rind_mm + 0.5 * rim_mm
    return enhancing, core & ~enhancing & (shallow | (texture.nodules < -1.6))


def _below_surface_mm(
    core: Bool[np.ndarray, "x y z"], spacing_mm: float
) -> Float32[np.ndarray, "x y z"]:
    if not core.any():  # grids of 8 mm can miss a small core
        return np.zeros(core.shape, dtype=np.float32)
    box = tuple(
        slice(max(0, at.start - 1), at.stop + 1)
        for at in ndimage.find_objects(core.astype(np.uint8))[0]
    )
    below = np.zeros(core.shape, dtype=np.float32)
    below[box] = ndimage.distance_transform_edt(core[box], sampling=spacing_mm)
    return below - np.float32(spacing_mm / 2)
