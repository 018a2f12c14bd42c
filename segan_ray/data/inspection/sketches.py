"""One slice of a case, small enough to hold a thousand of them while a folder is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from segan_ray.brats import Modality

Box = tuple[slice, slice]


@dataclass(frozen=True)
class Sketch:
    """A slice for viewing: upright, cropped to the head, at most ``side`` pixels long.

    ``position`` counts axial slices from below; ``greys`` holds the readable modalities,
    height × width in 0…255; ``regions`` is None without a readable truth.
    """

    position: int
    greys: Mapping[Modality, UInt8[np.ndarray, "height width"]]
    regions: Bool[np.ndarray, "region height width"] | None


def sketch(
    images: Mapping[Modality, Float32[np.ndarray, "x y z"]],
    regions: Bool[np.ndarray, "region x y z"] | None,
    *,
    spacing_mm: tuple[float, float, float],
    side: int,
) -> Sketch | None:
    """Return the slice with most tumour, the middle one without truth; None without images.

    The first modality sets the grid. If the truth has another grid, it is left out. Another
    modality with a different grid is drawn whole.
    """
    if not images:
        return None
    shape = next(iter(images.values())).shape
    if regions is not None and regions.shape[1:] != shape:
        regions = None
    position = _position(shape[2], regions)
    slices = {name: _slice(voxels, position) for name, voxels in images.items()}
    box = _head([view for view in slices.values() if view.shape == shape[:2]])
    step_mm = (spacing_mm[0], spacing_mm[1])
    greys = {
        modality: _shrunk(_grey(view[box] if view.shape == shape[:2] else view), step_mm, side)
        for modality, view in slices.items()
    }
    shrunk = None
    if regions is not None:
        masks = [region[:, :, position][box].astype(np.uint8) * 255 for region in regions]
        shrunk = np.stack([_shrunk(mask, step_mm, side) > 127 for mask in masks])
    return Sketch(position, greys, shrunk)


def _position(slices: int, regions: Bool[np.ndarray, "region x y z"] | None) -> int:
    if regions is None or not regions[0].any():
        return slices // 2
    return int(np.argmax(regions[0].sum(axis=(0, 1))))


def _slice(voxels: Float32[np.ndarray, "x y z"], position: int) -> Float32[np.ndarray, "x y"]:
    last = voxels.shape[2] - 1
    view: Float32[np.ndarray, "x y"] = voxels[:, :, min(position, last)]
    return np.where(np.isfinite(view), view, np.float32(0))


def _head(views: list[Float32[np.ndarray, "x y"]]) -> Box:
    """Return the smallest box of all nonzero pixels of ``views``, or the whole slice."""
    shown = np.logical_or.reduce([view != 0 for view in views])
    if not shown.any():
        return slice(None), slice(None)
    x, y = (np.flatnonzero(shown.any(axis=axis)) for axis in (1, 0))
    return slice(int(x[0]), int(x[-1]) + 1), slice(int(y[0]), int(y[-1]) + 1)


def _grey(view: Float32[np.ndarray, "x y"]) -> UInt8[np.ndarray, "x y"]:
    inside = view[view != 0]
    if not inside.size:
        return np.zeros(view.shape, dtype=np.uint8)
    low, high = np.percentile(inside, (1, 99.5))
    floor = min(0.0, float(low))
    scaled = (view - floor) / (float(high) - floor or 1.0)
    return (np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def _shrunk(
    view: UInt8[np.ndarray, "x y"], step_mm: tuple[float, float], side: int
) -> UInt8[np.ndarray, "height width"]:
    """Turn left × back into down × across and fit it into ``side`` pixels, true to mm."""
    width_mm, height_mm = view.shape[0] * step_mm[0], view.shape[1] * step_mm[1]
    scale = side / max(width_mm, height_mm)
    size = (max(1, round(width_mm * scale)), max(1, round(height_mm * scale)))
    upright = Image.fromarray(np.ascontiguousarray(view.T))
    return np.asarray(upright.resize(size, Image.Resampling.BILINEAR))
