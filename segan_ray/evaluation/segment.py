"""A model and a case → the regions the model sees there.

A prepared case lies in a store; a raw volume goes through the same preparation first. Both give
the maps of a box and put them back into the whole grid.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float32

from segan_ray.data.store import PreparedCase
from segan_ray.data.volumes import Volume
from segan_ray.evaluation.model import Model


def segment_case(
    model: Model, case: PreparedCase, device: torch.device | None = None
) -> Bool[np.ndarray, "region slice height width"]:
    """Return the regions over the stored box of ``case``, postprocessed."""
    raise NotImplementedError


def segment_volume(
    model: Model, volume: Volume, device: torch.device | None = None
) -> Bool[np.ndarray, "region x y z"]:
    """Return the regions over the grid of ``volume``, which is prepared as the store was.

    Raises:
        DataError: if every voxel is zero.
    """
    raise NotImplementedError


def probabilities_of_volume(
    model: Model, volume: Volume, device: torch.device | None = None
) -> Float32[np.ndarray, "region x y z"]:
    """Return the probability of each region over the grid of ``volume``, before thresholds."""
    raise NotImplementedError
