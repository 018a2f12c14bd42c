"""A model and a case → the regions that the model predicts there.

A prepared case lies in a store. A raw volume is prepared as that store was, and its maps are put
back into the whole grid.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float32

from segan_ray.data.io.volumes import Volume
from segan_ray.data.store.arrays import Boxed, boxed_arrays, put_back
from segan_ray.data.store.opened_store import PreparedCase
from segan_ray.evaluation.inference.packaged_model import Model
from segan_ray.evaluation.inference.predict_box import (
    BoxArrays,
    Maps,
    predict_box,
    probabilities_of_box,
)


def segment_case(
    model: Model, case: PreparedCase, device: torch.device | None = None
) -> Bool[np.ndarray, "region slice height width"]:
    """Return the regions over the stored box of ``case``, postprocessed.

    Without a ``device``, where the network's weights are.
    """
    settings = model.inference_settings(device)
    return predict_box(model.segmentor, BoxArrays.of_case(case), settings).regions


def probabilities_of_case(
    model: Model, case: PreparedCase, device: torch.device | None = None
) -> Float32[np.ndarray, "region slice height width"]:
    """Return the probability of each region over the stored box of ``case``."""
    settings = model.inference_settings(device)
    return probabilities_of_box(model.segmentor, BoxArrays.of_case(case), settings)


def segment_volume(
    model: Model, volume: Volume, device: torch.device | None = None
) -> Bool[np.ndarray, "region x y z"]:
    """Return the regions over the grid of ``volume``, postprocessed.

    Raises:
        DataError: if the scans show no brain on a constant background.
    """
    boxed = boxed_arrays(volume, model.origin.preparation)
    return segment_boxed(model, boxed, volume.spacing_mm, device).regions


def segment_boxed(
    model: Model,
    boxed: Boxed,
    spacing_mm: tuple[float, float, float],
    device: torch.device | None = None,
    *,
    keep_probabilities: bool = False,
) -> Maps:
    """Return the maps over the grid that ``boxed`` was cut from, the regions postprocessed.

    ``boxed`` must have been prepared as the model's store was.
    """
    box = BoxArrays(boxed.image, boxed.mask, float(np.prod(spacing_mm)))
    settings = model.inference_settings(device)
    maps = predict_box(model.segmentor, box, settings, keep_probabilities=keep_probabilities)
    regions = put_back(maps.regions, boxed.box, boxed.shape)
    if maps.probabilities is None:
        return Maps(regions)
    return Maps(regions, put_back(maps.probabilities, boxed.box, boxed.shape))


def probabilities_of_volume(
    model: Model, volume: Volume, device: torch.device | None = None
) -> Float32[np.ndarray, "region x y z"]:
    """Return the probability of each region over the grid of ``volume``, before thresholds.

    Raises:
        DataError: if the scans show no brain on a constant background.
    """
    boxed = boxed_arrays(volume, model.origin.preparation)
    box = BoxArrays(boxed.image, boxed.mask, float(np.prod(volume.spacing_mm)))
    probabilities = probabilities_of_box(model.segmentor, box, model.inference_settings(device))
    return put_back(probabilities, boxed.box, boxed.shape)
