"""The vocabulary of BRATS: modalities, label codes of every year, and regions.

Sources: Menze et al. 2015 (labels up to 2016), Bakas et al. 2018 (label 3 dropped from
2017 on), Baid et al. 2021 (BraTS 2021), the BraTS 2023 and 2024 GLI challenge pages (label 4
renumbered to 3; 2024 adds a resection cavity as 4), and the Medical Segmentation
Decathlon's ``dataset.json`` for Task01.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jaxtyping import Bool, UInt8

Modality = Literal["t1", "t1ce", "t2", "flair"]
Region = Literal["whole", "core", "enhancing"]

MODALITIES: Final[tuple[Modality, ...]] = ("t1", "t1ce", "t2", "flair")
REGIONS: Final[tuple[Region, ...]] = ("whole", "core", "enhancing")


@dataclass(frozen=True)
class LabelCode:
    """The meaning of the voxel values of one year's segmentation.

    ``names`` maps each value that may occur (background 0 aside) to its tissue; ``whole``,
    ``core`` and ``enhancing`` are the values that make up each region.
    """

    names: Mapping[int, str]
    whole: frozenset[int]
    core: frozenset[int]
    enhancing: frozenset[int]

    def regions(self, label: UInt8[np.ndarray, "*grid"]) -> Bool[np.ndarray, "region *grid"]:
        """Return the three region maps of ``label``, stacked in the order of ``REGIONS``."""
        return np.stack(
            [np.isin(label, sorted(values)) for values in (self.whole, self.core, self.enhancing)]
        )

    def labels(self, regions: Bool[np.ndarray, "region *grid"]) -> UInt8[np.ndarray, "*grid"]:
        """Return the label map of ``regions``, three maps in the order of ``REGIONS``.

        The most specific region of a voxel decides, whether or not the others hold it too. If
        several values mean the same, the lowest is written: core that does not enhance is 1 until
        2015, as in the years that joined 3 to 1. No voxel becomes a resection cavity.
        """
        whole, core, enhancing = regions
        label = np.zeros(whole.shape, dtype=np.uint8)
        label[whole] = min(self.whole - self.core)
        label[core] = min(self.core - self.enhancing)
        label[enhancing] = min(self.enhancing)
        return label


def as_written(regions: Bool[np.ndarray, "region *grid"]) -> Bool[np.ndarray, "region *grid"]:
    """Return the three regions that a label map of ``regions`` holds, each within the last.

    It is ``code.regions(code.labels(regions))``, which is the same for every year's code: the most
    specific region of a voxel decides, so core includes enhancing, and whole includes both.
    """
    nested: Bool[np.ndarray, "region *grid"] = np.logical_or.accumulate(regions[::-1], axis=0)[::-1]
    return nested


CODE_UNTIL_2015: Final = LabelCode(
    names={1: "necrosis", 2: "edema", 3: "non-enhancing", 4: "enhancing"},
    whole=frozenset({1, 2, 3, 4}),
    core=frozenset({1, 3, 4}),
    enhancing=frozenset({4}),
)
CODE_2017_TO_2021: Final = LabelCode(
    names={1: "necrotic and non-enhancing", 2: "edema", 4: "enhancing"},
    whole=frozenset({1, 2, 4}),
    core=frozenset({1, 4}),
    enhancing=frozenset({4}),
)
CODE_2023: Final = LabelCode(
    names={1: "necrotic and non-enhancing", 2: "edema", 3: "enhancing"},
    whole=frozenset({1, 2, 3}),
    core=frozenset({1, 3}),
    enhancing=frozenset({3}),
)
CODE_2024: Final = LabelCode(
    names={
        1: "non-enhancing",
        2: "surrounding FLAIR hyperintensity",
        3: "enhancing",
        4: "resection cavity",
    },
    whole=frozenset({1, 2, 3}),
    core=frozenset({1, 3}),
    enhancing=frozenset({3}),
)
CODE_MSD: Final = LabelCode(
    names={1: "edema", 2: "non-enhancing", 3: "enhancing"},
    whole=frozenset({1, 2, 3}),
    core=frozenset({2, 3}),
    enhancing=frozenset({3}),
)
