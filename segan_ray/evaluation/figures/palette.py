"""The colour of each region in pictures, and its outline."""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Bool, UInt8
from scipy.ndimage import binary_erosion

from segan_ray.brats import REGIONS, Region

# Okabe and Ito's palette: tellable apart with any colour vision.
COLOURS: Final[dict[Region, tuple[int, int, int]]] = {
    "whole": (230, 159, 0),
    "core": (86, 180, 233),
    "enhancing": (204, 121, 167),
}


def draw_outlines(
    panel: UInt8[np.ndarray, "height width rgb"], regions: Bool[np.ndarray, "region height width"]
) -> None:
    """Draw the outline of each region, in the order of ``REGIONS``, onto ``panel``."""
    for name, region in zip(REGIONS, regions, strict=True):
        panel[region & ~binary_erosion(region)] = COLOURS[name]
