"""The background around the brain in a scan, and whether the rest can be a brain.

BRATS scans are 0 outside the skull-stripped brain. Files from other sources have another constant
there (z-scored with the background, -1024), or small numbers around a constant (noise, the
ringing of B-splines). Each modality has a background of its own, taken from its grid's faces:

- Constants: the commonest value of the faces, if it fills ``COMMON`` of them, and every other
  value that fills ``ALSO``. Without such a value the constant is 0, as in BRATS.
- Tolerance: if ``NEAR_SHARE`` of the differing voxels lie within ``NEAR`` of the scan's range of a
  constant, of 0 or of the faces' median, they are background too. Few brain voxels lie there.

The brain is every voxel that differs from the background in any modality. A brain fills 20% of a
BRATS grid and about half of the smallest box around it. No brain fills ``FULL`` of the grid, and
no brain of more than ``BRAIN_LITRES`` fills ``BOX_FULL`` of its box.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32, Int

from segan_ray.brats import Modality
from segan_ray.errors import DataError

Box = tuple[slice, slice, slice]
Spacing = tuple[float, float, float]
Scans = Mapping[Modality, Float32[np.ndarray, "x y z"]]
Masks = Mapping[Modality, Bool[np.ndarray, "x y z"]]

COMMON: Final = 0.4
ALSO: Final = 0.2
NEAR: Final = 0.01
NEAR_SHARE: Final = 0.1
CLEAN: Final = 0.9
"""The share of the faces that a background with a tolerance must fill."""
FULL: Final = 0.95
BOX_FULL: Final = 0.8
BRAIN_LITRES: Final = 2.5
"""Adult brains with their fluid measure 1 to 2 litres, a head with its skull 3 and more."""
SKULL_RATIO: Final = 1.3
SKULL_VOXELS: Final = 2
SKULL_SIDES: Final = 4
TRUTH_OUTSIDE: Final = 0.25
TRUTH_SHARE: Final = 0.6
"""The largest tumours of BRATS, with their edema, take up about a third of the brain."""
LEAST_VOXELS: Final = 1000
"""A smaller grid leaves no room around a head, so it is not judged by how full it is."""
_SAMPLE: Final = 100_000
_MEND: Final = "Strip the skull and set all else to 0, or exclude the case."


@dataclass(frozen=True)
class Background:
    """The values that surround the brain in one scan, each within ``tolerance``.

    ``border`` is the share of the grid's faces that these values fill.
    """

    values: tuple[float, ...]
    tolerance: float
    border: float

    @property
    def is_noise(self) -> bool:
        """Tell whether too much of the faces lies beyond the tolerance."""
        return self.tolerance > 0 and self.border < CLEAN


def find_background(voxels: Float32[np.ndarray, "x y z"]) -> Background:
    """Return the background of one scan of finite voxels."""
    border = _border(voxels)
    constants = _constants(border)
    guesses = [constants] if constants else [(0.0,), (float(np.median(border)),)]
    sample = _sample(voxels)
    near = [
        _background(border, values, tolerance)
        for values in guesses
        if (tolerance := _tolerance(sample, values))
    ]
    clean = [background for background in near if background.border >= CLEAN]
    noisy = [background for background in near if background.values == guesses[0]]
    return next(iter(clean + noisy), _background(border, guesses[0], 0.0))


def foreground(
    voxels: Float32[np.ndarray, "x y z"], background: Background | None = None
) -> Bool[np.ndarray, "x y z"]:
    """Return where one scan of finite voxels differs from its background.

    For a constant scan, which differs nowhere, return where the scan is not 0.
    """
    background = background or find_background(voxels)
    tolerance = 0.0 if background.is_noise else background.tolerance
    shown = _differs(voxels, background.values, tolerance)
    if tolerance:
        from scipy.ndimage import binary_opening, binary_propagation

        shown = binary_propagation(binary_opening(shown), mask=shown)  # noise leaves specks
    return shown if shown.any() else voxels != 0


def brain_of(scans: Scans, spacing_mm: Spacing) -> Bool[np.ndarray, "x y z"]:
    """Return the brain: where any of ``scans``, which share one grid, differs from its background.

    Raises:
        DataError: if the scans show nothing, fill too much, are noisy, or disagree on the brain.
    """
    backgrounds = {modality: find_background(voxels) for modality, voxels in scans.items()}
    masks = {name: foreground(voxels, backgrounds[name]) for name, voxels in scans.items()}
    first, *others = masks.values()
    brain = first.copy(order="K")
    for mask in others:
        brain |= mask
    if not brain.any():
        raise DataError("every voxel of every modality is zero. Exclude the case.")
    problem = (
        _filling(scans, masks, brain, spacing_mm) or _noise(backgrounds) or _several_skulls(masks)
    )
    if problem:
        raise DataError(problem)
    return brain


def head_problem(brain: Bool[np.ndarray, "x y z"], spacing_mm: Spacing) -> str | None:
    """Say that ``brain`` is too large, as if all modalities still showed the skull."""
    litres = _litres(int(np.count_nonzero(brain)), spacing_mm)
    if litres <= BRAIN_LITRES:
        return None
    return (
        f"the scans show {litres:.1f} litres of head; expected a skull-stripped brain of 1 to 2. "
        "Strip the skull, or mend the voxel size in the headers."
    )


def misplaced_truth(
    whole: Bool[np.ndarray, "x y z"], brain: Bool[np.ndarray, "x y z"], brain_voxels: int
) -> str | None:
    """Say that the ``whole`` tumour lies outside the ``brain`` or covers nearly all of it.

    Both may be cut to a box that holds the tumour; ``brain_voxels`` counts the brain of the grid.
    """
    tumour = np.count_nonzero(whole)
    outside = tumour - np.count_nonzero(whole & brain)
    if outside > TRUTH_OUTSIDE * tumour:
        return (
            f"{outside / tumour:.0%} of the segmentation ({outside:,} of {tumour:,} voxels) lies "
            "where every modality is background; expected a tumour inside the brain. "
            "Put it on the grid of the scans or exclude the case."
        )
    share = tumour / max(brain_voxels, 1)
    if share > TRUTH_SHARE and brain_voxels >= LEAST_VOXELS:
        return (
            f"the segmentation covers {share:.0%} of the brain ({tumour:,} voxels); expected a "
            "tumour. Export the segmentation again or exclude the case."
        )
    return None


def bounding_box(voxels: Bool[np.ndarray, "x y z"]) -> Box:
    """Return the smallest box that holds every set voxel; at least one is set."""
    box: list[slice] = []
    for axis in range(3):
        # Search within the box along the axes before: it is much smaller than the grid.
        inside = voxels[tuple(box)]
        filled = np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {axis})))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    x, y, z = box
    return x, y, z


def _border(voxels: Float32[np.ndarray, "x y z"]) -> Float32[np.ndarray, "voxel"]:
    """Return the voxels of the grid's six faces; voxels on edges occur more than once."""
    faces = [np.moveaxis(voxels, axis, 0)[end] for axis in range(3) for end in (0, -1)]
    return np.concatenate([face.ravel() for face in faces])


def _constants(border: Float32[np.ndarray, "voxel"]) -> tuple[float, ...]:
    if not border.any():
        return (0.0,)
    values, counts = np.unique(border, return_counts=True)
    if counts.max() < COMMON * border.size:
        return ()
    return tuple(float(value) + 0.0 for value in values[counts >= ALSO * border.size])


def _sample(voxels: Float32[np.ndarray, "x y z"]) -> Float32[np.ndarray, "voxel"]:
    # An odd step walks through all columns of a grid whose sides are even.
    return voxels.ravel(order="K")[:: max(1, voxels.size // _SAMPLE) | 1]


def _tolerance(sample: Float32[np.ndarray, "voxel"], values: tuple[float, ...]) -> float:
    """Return how far from ``values`` background reaches; 0 if all other voxels differ clearly."""
    apart = np.min([np.abs(sample - np.float32(value)) for value in values], axis=0)
    apart = apart[apart > 0]
    if not apart.size:
        return 0.0
    near = NEAR * float(np.percentile(apart, 99))
    return near if np.count_nonzero(apart <= near) >= NEAR_SHARE * apart.size else 0.0


def _background(
    border: Float32[np.ndarray, "voxel"], values: tuple[float, ...], tolerance: float
) -> Background:
    differing = np.count_nonzero(_differs(border, values, tolerance))
    return Background(values, tolerance, float(1 - differing / border.size))


def _differs(
    voxels: Float32[np.ndarray, "*axes"], values: tuple[float, ...], tolerance: float
) -> Bool[np.ndarray, "*axes"]:
    differs = None
    for value in map(np.float32, values):
        apart = np.abs(voxels - value) > tolerance if tolerance else voxels != value
        differs = apart if differs is None else differs & apart
    assert differs is not None, "a background has a value"
    return differs


def _litres(voxels: int, spacing_mm: Spacing) -> float:
    return float(voxels * np.prod(spacing_mm) / 1e6)


def _noise(backgrounds: Mapping[Modality, Background]) -> str | None:
    for modality, background in backgrounds.items():
        if background.is_noise:
            return (
                f"{modality}: the background is noise ({1 - background.border:.0%} of the border "
                f"is further than {background.tolerance:.3g} from {background.values[0]:.6g}); "
                f"expected a skull-stripped brain on a constant. {_MEND}"
            )
    return None


def _filling(
    scans: Scans, masks: Masks, brain: Bool[np.ndarray, "x y z"], spacing_mm: Spacing
) -> str | None:
    """Say how much the scans fill, if they fill the grid or a box as large as a head."""
    box, filled = bounding_box(brain), int(np.count_nonzero(brain))
    room = brain[box].size
    share, boxed = filled / brain.size, filled / room
    if brain.size < LEAST_VOXELS:
        return None
    if share < FULL and (boxed < BOX_FULL or _litres(filled, spacing_mm) <= BRAIN_LITRES):
        return None
    modality = max(masks, key=lambda name: np.count_nonzero(masks[name]))
    border = _border(scans[modality][box])
    values, counts = np.unique(border, return_counts=True)
    where = f"{share:.0%} of the grid"
    if share < FULL:
        where = f"{boxed:.0%} of a box of {_litres(room, spacing_mm):.1f} litres"
    return (
        f"the scans fill {where}, {modality} most; expected a skull-stripped brain on a constant "
        f"background. The commonest border value is {values[counts.argmax()] + 0.0:.6g}, in "
        f"{counts.max() / border.size:.0%} of the border's voxels. {_MEND}"
    )


def _several_skulls(masks: Masks) -> str | None:
    """Say which modalities, two or more, show a head around the brain of another.

    A skull has ``SKULL_RATIO`` times the brain's voxels and stands out on ``SKULL_SIDES`` of six
    sides. A modality that was scanned in part is shorter than the others on two sides at most.
    """
    counts = {name: np.count_nonzero(mask) for name, mask in masks.items()}
    least = min(counts, key=lambda name: counts[name])
    large = [name for name in counts if counts[name] > SKULL_RATIO * counts[least]]
    if len(large) < 2 or counts[least] < ALSO * max(counts.values()):
        return None
    inner = _extent(masks[least])
    skulls = [name for name in large if _surrounds(_extent(masks[name]), inner)]
    if len(skulls) < 2:
        return None
    ratio = max(counts[name] for name in skulls) / counts[least]
    return (
        f"{', '.join(skulls)} show up to {ratio:.1f} times the voxels of {least}, on all sides "
        "of it, as where the skull is left; expected one skull-stripped brain in all four. "
        "Strip the skull as in the others or exclude the case."
    )


def _extent(mask: Bool[np.ndarray, "x y z"]) -> Int[np.ndarray, "axis end"]:
    """Return where the mask begins and ends along each axis, without half a percent per end."""
    ends = []
    for axis in range(3):
        below = np.cumsum(mask.sum(axis=tuple({0, 1, 2} - {axis}))) / np.count_nonzero(mask)
        ends.append(np.searchsorted(below, (0.005, 0.995)))
    return np.array(ends)


def _surrounds(outer: Int[np.ndarray, "axis end"], inner: Int[np.ndarray, "axis end"]) -> bool:
    further = (outer - inner) * [-1, 1] >= SKULL_VOXELS
    return int(further.sum()) >= SKULL_SIDES
