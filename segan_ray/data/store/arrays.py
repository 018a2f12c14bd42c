"""Voxels of a volume → arrays of the store: boxes, intensities, bits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float16, Float32, Int32, Shaped, UInt8

from segan_ray.brats import MODALITIES, REGIONS, LabelCode
from segan_ray.data.io.background import (
    Box,
    bounding_box,
    brain_of,
    find_background,
    misplaced_truth,
)
from segan_ray.data.io.volumes import Volume
from segan_ray.data.store.manifest import PrepareSettings
from segan_ray.errors import DataError
from segan_ray.extras import check_installed

BRAIN_BIT: Final = 1 << len(REGIONS)
N4_SPACING_MM: Final = 4.0
"""The bias is smooth, so it is fitted on voxels of about this size."""


@dataclass(frozen=True, eq=False)
class Boxed:
    """The stored arrays of a volume, and the ``box`` of its grid ``shape`` that they cover.

    ``voxels_sha256`` identifies a scan. It depends on the brain's voxels alone, not on the voxels
    around them, the file's type of number or the settings.
    """

    image: Float16[np.ndarray, "slice modality height width"]
    mask: UInt8[np.ndarray, "slice height width"]
    box: Box
    shape: tuple[int, int, int]
    voxels_sha256: str


def boxed_arrays(volume: Volume, settings: PrepareSettings, code: LabelCode | None = None) -> Boxed:
    """Prepare the box of ``volume`` that holds its brain, and its truth where ``code`` is given.

    Without ``code`` the label of ``volume`` is ignored.

    Raises:
        DataError: if the scans show no brain, or the truth lies outside the brain.
    """
    brain = brain_of(dict(zip(MODALITIES, volume.image, strict=True)), volume.spacing_mm)
    box = own = bounding_box(brain)
    truth = None if code is None or volume.label is None else _truth(volume.label, code)
    if truth is not None:
        if problem := misplaced_truth(
            truth.regions[0], brain[truth.box], int(np.count_nonzero(brain))
        ):
            raise DataError(problem)
        box = _joined(own, truth.box)
    # Cut to the box first: the steps below copy it often, and it is a fifth of the grid.
    inside = _inside(volume.image[(slice(None), *box)], brain[box])
    digest = _digest(brain[own], inside)
    if settings.n4:
        inside = _inside(correct_bias(volume, brain)[(slice(None), *box)], brain[box])
    image = _z_scores(inside, brain[box], settings)
    mask = pack_mask((), _slices_first(brain[box]))
    if truth is not None:
        x, y, z = _relative(truth.box, box)
        regions = map(_slices_first, truth.regions)
        mask[z, x, y] = pack_mask(regions, _slices_first(brain[truth.box]))
    x_size, y_size, z_size = brain.shape
    return Boxed(image, mask, box, (x_size, y_size, z_size), digest)


@dataclass(frozen=True, eq=False)
class _Truth:
    """The regions of a label map, cut to the ``box`` that holds the whole tumour."""

    regions: Bool[np.ndarray, "region x y z"]
    box: Box


def _truth(label: UInt8[np.ndarray, "x y z"], code: LabelCode) -> _Truth | None:
    """Return the truth in ``label``, None where no voxel is of any region."""
    labelled = label != 0
    if not labelled.any():
        return None
    around = bounding_box(labelled)
    regions = code.regions(label[around])
    if not regions[0].any():
        return None
    inner = bounding_box(regions[0])
    x, y, z = (
        slice(outer.start + side.start, outer.start + side.stop)
        for outer, side in zip(around, inner, strict=True)
    )
    return _Truth(regions[(slice(None), *inner)], (x, y, z))


def _relative(inner: Box, outer: Box) -> Box:
    """Return the position of ``inner`` within ``outer``."""
    x, y, z = (
        slice(a.start - b.start, a.stop - b.start) for a, b in zip(inner, outer, strict=True)
    )
    return x, y, z


def _joined(first: Box, second: Box) -> Box:
    x, y, z = (
        slice(min(a.start, b.start), max(a.stop, b.stop))
        for a, b in zip(first, second, strict=True)
    )
    return x, y, z


def put_back(
    boxed: Shaped[np.ndarray, "region slice height width"], box: Box, shape: tuple[int, int, int]
) -> Shaped[np.ndarray, "region x y z"]:
    """Put maps of a box back where they came from in the grid ``shape``; all else is 0."""
    full = np.zeros((len(boxed), *shape), dtype=boxed.dtype)
    full[(slice(None), *box)] = np.moveaxis(boxed, 1, -1)
    return full


def _slices_first(voxels: Shaped[np.ndarray, "*axes"]) -> Shaped[np.ndarray, "*axes"]:
    return np.ascontiguousarray(np.moveaxis(voxels, -1, 0))


def normalise(
    image: Float32[np.ndarray, "modality x y z"],
    brain: Bool[np.ndarray, "x y z"],
    settings: PrepareSettings,
) -> Float16[np.ndarray, "modality x y z"]:
    """Clip each modality at two percentiles of its brain and z-score it; 0 outside."""
    return np.moveaxis(_z_scores(_inside(image, brain), brain, settings), 0, -1)


def _inside(
    image: Float32[np.ndarray, "modality x y z"], brain: Bool[np.ndarray, "x y z"]
) -> list[Float32[np.ndarray, "voxel"]]:
    """Return the brain's voxels of each modality, slice by slice."""
    slices = _slices_first(brain)
    return [_slices_first(voxels)[slices] for voxels in image]


def _z_scores(
    inside: Sequence[Float32[np.ndarray, "voxel"]],
    brain: Bool[np.ndarray, "x y z"],
    settings: PrepareSettings,
) -> Float16[np.ndarray, "slice modality x y"]:
    slices = _slices_first(brain)
    scored = np.zeros((len(slices), len(inside), *slices.shape[1:]), dtype=np.float16)
    along_x = _ranks(slices)
    for index, voxels in enumerate(inside):
        low, high = np.percentile(voxels, (settings.clip_low, settings.clip_high))
        clipped = voxels.clip(low, high)
        # Sums of floats depend on their order. Stores have always been summed along x, y, z.
        ordered = clipped[along_x]
        mean = ordered.mean(keepdims=True)
        deviation = ordered.std(mean=mean)
        scored[:, index][slices] = (clipped - mean) / (deviation if deviation > 0 else 1)
    return scored


def _ranks(slices: Bool[np.ndarray, "slice x y"]) -> Int32[np.ndarray, "voxel"]:
    """Return the slice-by-slice index of each set voxel, in the order of the axes x, y, z."""
    indices = np.empty(slices.shape, dtype=np.int32)
    indices[slices] = np.arange(np.count_nonzero(slices), dtype=np.int32)
    ranks: Int32[np.ndarray, "voxel"] = np.moveaxis(indices, 0, -1)[np.moveaxis(slices, 0, -1)]
    return ranks


def _digest(
    brain: Bool[np.ndarray, "x y z"], inside: Sequence[Float32[np.ndarray, "voxel"]]
) -> str:
    """Return the SHA-256 of a brain's mask, cut to its own box, and of its voxels."""
    digest = hashlib.sha256(repr(brain.shape).encode())
    digest.update(np.packbits(_slices_first(brain)).data)
    for voxels in inside:
        digest.update(voxels.data)
    return f"brain:{digest.hexdigest()}"


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

    Tustison et al. 2010: the log of the bias is a B-spline fitted within the brain. Each
    fit has one thread, so that the same voxels always give the same result; cases run side by
    side anyway.

    Raises:
        NotInstalledError: if SimpleITK is missing.
    """
    check_installed("Bias correction (N4)", "itk", "SimpleITK")
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
        floor = np.float32(find_background(voxels).values[0])
        raised = voxels - floor  # a logarithm needs positive values
        image = as_image(raised)
        fit = Sitk.N4BiasFieldCorrectionImageFilter()
        fit.SetNumberOfThreads(1)
        fit.Execute(Sitk.Shrink(image, shrink), mask)
        log_bias = Sitk.GetArrayFromImage(fit.GetLogBiasFieldAsImage(image)).transpose(2, 1, 0)
        corrected[index] = np.where(brain, floor + raised / np.exp(log_bias), voxels)
    return corrected
