"""Voxels of a volume → arrays of the store: boxes, intensities, bits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float16, Float32, Shaped, UInt8

from segan_ray.brats import REGIONS
from segan_ray.data.manifest import PrepareSettings
from segan_ray.data.volumes import Volume
from segan_ray.errors import DataError

Box = tuple[slice, slice, slice]

BRAIN_BIT: Final = 1 << len(REGIONS)
N4_SPACING_MM: Final = 4.0
"""The bias is smooth, so it is fitted on voxels of about this size."""


@dataclass(frozen=True, eq=False)
class Boxed:
    """What the store keeps of a volume, and which ``box`` of its grid ``shape`` that is."""

    image: Float16[np.ndarray, "slice modality height width"]
    mask: UInt8[np.ndarray, "slice height width"]
    box: Box
    shape: tuple[int, int, int]


def boxed_arrays(
    volume: Volume,
    settings: PrepareSettings,
    regions: Bool[np.ndarray, "region x y z"] | None = None,
) -> Boxed:
    """Prepare the box of ``volume`` that holds its brain, and its true ``regions`` if given.

    The label of ``volume`` is not looked at.

    Raises:
        DataError: if every voxel is zero.
    """
    brain = (volume.image != 0).any(axis=0)
    if not brain.any():
        raise DataError("every voxel of every modality is zero. Exclude the case.")
    box = bounding_box(brain if regions is None else brain | regions[0])
    whole = correct_bias(volume, brain) if settings.n4 else volume.image
    image = normalise(whole[(slice(None), *box)], brain[box], settings)
    mask = pack_mask(() if regions is None else regions[(slice(None), *box)], brain[box])
    x, y, z = brain.shape
    return Boxed(_slices_first(image), _slices_first(mask), box, (x, y, z))


def put_back(
    boxed: Shaped[np.ndarray, "region slice height width"], box: Box, shape: tuple[int, int, int]
) -> Shaped[np.ndarray, "region x y z"]:
    """Put maps of a box back where they came from in the grid ``shape``; all else is 0."""
    full = np.zeros((len(boxed), *shape), dtype=boxed.dtype)
    full[(slice(None), *box)] = np.moveaxis(boxed, 1, -1)
    return full


def _slices_first(voxels: Shaped[np.ndarray, "*axes"]) -> Shaped[np.ndarray, "*axes"]:
    return np.ascontiguousarray(np.moveaxis(voxels, -1, 0))


def bounding_box(voxels: Bool[np.ndarray, "x y z"]) -> Box:
    """Return the smallest box that holds every set voxel."""
    x, y, z = (
        slice(int(hit[0]), int(hit[-1]) + 1)
        for axis in range(3)
        for hit in [np.flatnonzero(voxels.any(axis=tuple({0, 1, 2} - {axis})))]
    )
    return x, y, z


def normalise(
    image: Float32[np.ndarray, "modality x y z"],
    brain: Bool[np.ndarray, "x y z"],
    settings: PrepareSettings,
) -> Float16[np.ndarray, "modality x y z"]:
    """Clip each modality at two percentiles of its brain and z-score it; 0 outside."""
    scored = np.zeros(image.shape, dtype=np.float16)
    for index, voxels in enumerate(image):
        inside = voxels[brain]
        low, high = np.percentile(inside, (settings.clip_low, settings.clip_high))
        inside = inside.clip(low, high)
        deviation = inside.std()
        scored[index][brain] = (inside - inside.mean()) / (deviation if deviation > 0 else 1)
    return scored


def pack_mask(
    regions: Iterable[Bool[np.ndarray, "x y z"]], brain: Bool[np.ndarray, "x y z"]
) -> UInt8[np.ndarray, "x y z"]:
    """Pack the regions and the brain into the bits of one uint8 volume."""
    packed = brain.astype(np.uint8) * BRAIN_BIT
    for bit, region in enumerate(regions):
        packed |= region.astype(np.uint8) << bit
    return packed


def correct_bias(
    volume: Volume, brain: Bool[np.ndarray, "x y z"]
) -> Float32[np.ndarray, "modality x y z"]:
    """Return the image of ``volume`` with each modality's slow drift divided out (N4).

    Tustison et al. 2010: the log of the bias is a B-spline fitted within the brain. One thread
    each, so that the same voxels always give the same result; cases run side by side anyway.
    """
    import SimpleITK as Sitk

    def as_image(voxels: np.ndarray) -> Sitk.Image:
        image = Sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
        image.SetSpacing(volume.spacing_mm)
        return image

    shrink = [
        max(1, min(round(N4_SPACING_MM / spacing), size // 4))
        for spacing, size in zip(volume.spacing_mm, brain.shape, strict=True)
    ]
    mask = Sitk.Shrink(as_image(brain.astype(np.uint8)), shrink)
    corrected = np.empty_like(volume.image)
    for index, voxels in enumerate(volume.image):
        image = as_image(voxels)
        fit = Sitk.N4BiasFieldCorrectionImageFilter()
        fit.SetNumberOfThreads(1)
        fit.Execute(Sitk.Shrink(image, shrink), mask)
        log_bias = Sitk.GetArrayFromImage(fit.GetLogBiasFieldAsImage(image)).transpose(2, 1, 0)
        corrected[index] = np.where(brain, voxels / np.exp(log_bias), voxels)
    return corrected
