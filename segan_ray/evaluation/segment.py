"""A model and a case → the regions the model sees there.

A prepared case lies in a store; a raw volume goes through the same preparation first. Both give
the maps of a box and put them back into the whole grid.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, UInt8

from segan_ray.brats import REGIONS
from segan_ray.data.arrays import boxed_arrays, put_back
from segan_ray.data.store import PreparedCase
from segan_ray.data.volumes import Volume
from segan_ray.evaluation.inference import probability_of_box
from segan_ray.evaluation.model import Model
from segan_ray.models.build import halvings


def segment_case(
    model: Model, case: PreparedCase, device: torch.device | None = None
) -> Bool[np.ndarray, "region slice height width"]:
    """Return the regions over the stored box of ``case``, postprocessed."""
    return _above_thresholds(model, _probability(model, case.image(), case.mask(), device))


def segment_volume(
    model: Model, volume: Volume, device: torch.device | None = None
) -> Bool[np.ndarray, "region x y z"]:
    """Return the regions over the grid of ``volume``, which is prepared as the store was.

    Raises:
        DataError: if every voxel is zero.
    """
    boxed = boxed_arrays(volume, model.origin.preparation)
    regions = _above_thresholds(model, _probability(model, boxed.image, boxed.mask, device))
    return put_back(regions, boxed.box, boxed.shape)


def probabilities_of_volume(
    model: Model, volume: Volume, device: torch.device | None = None
) -> Float32[np.ndarray, "region x y z"]:
    """Return the probability of each region over the grid of ``volume``, before thresholds."""
    boxed = boxed_arrays(volume, model.origin.preparation)
    probability = _probability(model, boxed.image, boxed.mask, device)
    return put_back(probability, boxed.box, boxed.shape)


def _probability(
    model: Model,
    image: Float16[np.ndarray, "slice modality height width"],
    mask: UInt8[np.ndarray, "slice height width"],
    device: torch.device | None,
) -> Float32[np.ndarray, "region slice height width"]:
    return probability_of_box(
        model.segmentor if device is None else model.segmentor.to(device),
        image,
        mask,
        halvings=halvings(model.experiment),
        brain_mask=model.experiment.training.brain_mask,
        neighbours=model.experiment.data.neighbours,
        device=device,
    )


def _above_thresholds(
    model: Model, probability: Float32[np.ndarray, "region slice height width"]
) -> Bool[np.ndarray, "region slice height width"]:
    thresholds = [model.postprocessing.thresholds[region] for region in REGIONS]
    return np.stack(
        [found > threshold for found, threshold in zip(probability, thresholds, strict=True)]
    )
