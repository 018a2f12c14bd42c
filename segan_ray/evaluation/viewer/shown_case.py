"""The voxels of a case as a page shows them: few, small, and where they were in mm.

What is done to them:

- The grid is cut to the smallest box that holds all that any scan, the truth or the prediction
  shows. The affine is moved along, so every voxel keeps its position in mm.
- Each scan becomes 255 greys, from the 0.1st to the 99.9th percentile of what it shows; what lies
  beyond is black or white, and background is 0. Its own intensities are not on the page.
- A label map becomes the depth of its nested regions: 1 whole tumour alone, 2 core too, 3 enhancing
  too. Labels of no region, such as the cavity of 2024, are 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from segan_ray.brats import MODALITIES, REGIONS, LabelCode, Modality, Region
from segan_ray.data.io.background import bounding_box, foreground
from segan_ray.data.io.geometry import spacing_of
from segan_ray.data.io.volumes import Volume

DARKEST: Final = 0.1
BRIGHTEST: Final = 99.9
"""The percentiles of a scan that become grey 1 and grey 255."""

Depth = UInt8[np.ndarray, "x y z"]


@dataclass(frozen=True)
class ShownCase:
    """The box of a case that is shown, axes left × posterior × superior.

    ``maps`` holds ``truth`` and ``prediction``, as far as there are any. ``grid`` is the whole
    grid that the box was cut from, ``start_mm`` where the viewer begins.
    """

    scans: Mapping[Modality, UInt8[np.ndarray, "x y z"]]
    maps: Mapping[str, Depth]
    affine: Float[np.ndarray, "4 4"]
    grid: tuple[int, ...]
    start_mm: tuple[float, float, float]

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along x, y and z in mm."""
        return spacing_of(self.affine)

    def millilitres(self, name: str) -> dict[Region, float]:
        """Return the volume of each region of the map ``name``."""
        voxel_ml = float(np.prod(self.spacing_mm)) / 1000
        counts = [int(np.count_nonzero(self.maps[name] > depth)) for depth in range(len(REGIONS))]
        return {region: count * voxel_ml for region, count in zip(REGIONS, counts, strict=True)}


def shown_case(
    volume: Volume, prediction: UInt8[np.ndarray, "x y z"] | None, code: LabelCode
) -> ShownCase:
    """Return what a page shows of ``volume`` and of a ``prediction`` on its grid."""
    labels = {"truth": volume.label, "prediction": prediction}
    maps = {name: _depth(label, code) for name, label in labels.items() if label is not None}
    shown = [foreground(scan) for scan in volume.image]
    box = bounding_box(np.logical_or.reduce([*shown, *(depth > 0 for depth in maps.values())]))
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
    boxed = {name: depth[box] for name, depth in maps.items()}
    start = _middle(next(iter(boxed.values()), None), shown[0][box].shape)
    x, y, z = affine[:3, :3] @ start + affine[:3, 3]
    return ShownCase(
        scans={
            modality: _greys(scan[box], seen[box])
            for modality, scan, seen in zip(MODALITIES, volume.image, shown, strict=True)
        },
        maps=boxed,
        affine=affine,
        grid=volume.image.shape[1:],
        start_mm=(float(x), float(y), float(z)),
    )


def _depth(label: UInt8[np.ndarray, "x y z"], code: LabelCode) -> Depth:
    """Return how many of the nested regions hold each voxel."""
    depth: Depth = code.regions(label).sum(axis=0, dtype=np.uint8)
    return depth


def _greys(
    scan: Float32[np.ndarray, "x y z"], seen: Bool[np.ndarray, "x y z"]
) -> UInt8[np.ndarray, "x y z"]:
    """Return ``scan`` in greys from 1 to 255, and 0 where nothing is ``seen``."""
    inside = scan[seen]
    low, high = (float(end) for end in np.percentile(inside, (DARKEST, BRIGHTEST)))
    # A scan may show one value alone, and a mask does.
    share = np.clip((inside - low) / (high - low), 0, 1) if high > low else np.ones_like(inside)
    greys = np.zeros(scan.shape, np.uint8)
    greys[seen] = np.rint(1 + 254 * share)
    return greys


def _middle(depth: Depth | None, size: tuple[int, ...]) -> Int[np.ndarray, "3"]:
    """Return a voxel in the middle of the fullest axial slice of a map, or of a box of ``size``."""
    if depth is None or not depth.any():
        return np.array(size) // 2
    fullest = int(np.argmax(np.count_nonzero(depth, axis=(0, 1))))
    across, down = np.nonzero(depth[..., fullest])
    return np.array([int(np.median(across)), int(np.median(down)), fullest])
