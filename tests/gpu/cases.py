"""Cases made up in memory, so that a machine with a GPU needs no reader of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from segan_ray.brats import MODALITIES, REGIONS
from segan_ray.data.store.arrays import BRAIN_BIT

SIDE, SLICES = 160, 24


class Record(NamedTuple):
    """What sampling and validation ask of a case's entry in the manifest."""

    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    tumour_voxels: tuple[int, ...]


@dataclass(frozen=True)
class MadeUpCase:
    """A head with a round tumour, its regions nested; ``PreparedCase`` as far as it is read."""

    number: int

    def image(self) -> np.ndarray:
        """Return (slice, modality, height, width), brighter by a step in each region."""
        rng = np.random.default_rng(self.number)
        shape = (SLICES, len(MODALITIES), SIDE, SIDE)
        noise = rng.standard_normal(shape, dtype=np.float32)
        depth = sum((self.mask() & (1 << bit) != 0) for bit in range(len(REGIONS)))
        return (noise + 2 * depth[:, None]).astype(np.float16)

    def mask(self) -> np.ndarray:
        """Return regions and brain as bits, (slice, height, width)."""
        z, y, x = np.ogrid[:SLICES, :SIDE, :SIDE]
        at = 60 + 5 * self.number
        distance = np.sqrt((4.0 * (z - SLICES / 2)) ** 2 + (y - at) ** 2 + (x - 80) ** 2)
        bits = [(distance < radius) << bit for bit, radius in enumerate((30, 20, 10))]
        return (sum(bits) + BRAIN_BIT).astype(np.uint8)

    @property
    def record(self) -> Record:
        """The size (x, y, z) and how much of each slice is tumour."""
        voxels = tuple(int(each.sum()) for each in self.mask() & 1)
        return Record((SIDE, SIDE, SLICES), (1.0, 1.0, 1.0), voxels)
