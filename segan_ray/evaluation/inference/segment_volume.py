"""A model and a case → the regions the model sees there.

A prepared case lies in a store; a raw volume goes through the same preparation first. Both give
the maps of a box and put them back into the whole grid.

Networks compute in the precision that training's validation has on the same device, so that
what was chosen by validation is what is used: ``choose_numerics`` of ``models/build.py``, which
is bfloat16 where the processor multiplies it faster, unless ``training.precision`` says which.

Regions are those that the label map written of them holds: enhancing lies in core, core in whole.
What is scored is so what is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float32, UInt8
from torch import Tensor

from segan_ray.brats import REGIONS, as_written
from segan_ray.data.io.volumes import Volume
from segan_ray.data.store.arrays import Boxed, boxed_arrays, put_back
from segan_ray.data.store.opened_store import PreparedCase
from segan_ray.evaluation.inference.components import without_small
from segan_ray.evaluation.inference.packaged_model import Model
from segan_ray.evaluation.inference.slicewise import probability_of_slices
from segan_ray.models.build import choose_numerics, downsampling_levels

BATCH: Final = {"cpu": 8}
"""Slices at once: on CPUs few, so that feature maps stay in the cache (measured: 8 is best)."""
BATCH_ELSEWHERE: Final = 32


def segment_case(
    model: Model, case: PreparedCase, device: torch.device | None = None
) -> Bool[np.ndarray, "region slice height width"]:
    """Return the regions over the stored box of ``case``, postprocessed.

    Without a ``device``, where the network's weights are.
    """
    voxel_mm3 = float(np.prod(case.record.spacing_mm))
    return _regions(model, case.image(), case.mask(), voxel_mm3, device)


def segment_volume(
    model: Model, volume: Volume, device: torch.device | None = None
) -> Bool[np.ndarray, "region x y z"]:
    """Return the regions over the grid of ``volume``, which is prepared as the store was.

    Raises:
        DataError: if the scans show no brain on a constant background.
    """
    boxed = boxed_arrays(volume, model.origin.preparation)
    regions = segment_boxed(model, boxed, volume.spacing_mm, device)
    return put_back(regions, boxed.box, boxed.shape)


def segment_boxed(
    model: Model,
    boxed: Boxed,
    spacing_mm: tuple[float, float, float],
    device: torch.device | None = None,
) -> Bool[np.ndarray, "region slice height width"]:
    """Return the regions over a box that was prepared as the store was, postprocessed."""
    return _regions(model, boxed.image, boxed.mask, float(np.prod(spacing_mm)), device)


def probabilities_of_volume(
    model: Model, volume: Volume, device: torch.device | None = None
) -> Float32[np.ndarray, "region x y z"]:
    """Return the probability of each region over the grid of ``volume``, before thresholds.

    Raises:
        DataError: if the scans show no brain on a constant background.
    """
    boxed = boxed_arrays(volume, model.origin.preparation)
    found = probabilities_of_box(model, boxed.image, boxed.mask, device)
    return put_back(found, boxed.box, boxed.shape)


def probabilities_of_box(
    model: Model,
    image: Float16[np.ndarray, "slice modality height width"],
    mask: UInt8[np.ndarray, "slice height width"],
    device: torch.device | None = None,
) -> Float32[np.ndarray, "region slice height width"]:
    """Return the probability of each region over a prepared box, before thresholds."""
    found = np.empty((len(REGIONS), *mask.shape), dtype=np.float32)
    for positions, probability in _batches(model, image, mask, device):
        found[:, positions] = probability.movedim(1, 0).cpu().numpy()
    return found


def _regions(
    model: Model,
    image: Float16[np.ndarray, "slice modality height width"],
    mask: UInt8[np.ndarray, "slice height width"],
    voxel_mm3: float,
    device: torch.device | None,
) -> Bool[np.ndarray, "region slice height width"]:
    after = model.postprocessing
    thresholds = torch.tensor([after.thresholds[region] for region in REGIONS])[:, None, None]
    found = np.empty((len(REGIONS), *mask.shape), dtype=bool)
    for positions, probability in _batches(model, image, mask, device):
        above = probability > thresholds.to(probability.device)
        found[:, positions] = above.movedim(1, 0).cpu().numpy()
    for index, region in enumerate(REGIONS):
        found[index] = without_small(found[index], after.smallest_mm3[region] / voxel_mm3)
    return as_written(found)


def _batches(
    model: Model,
    image: Float16[np.ndarray, "slice modality height width"],
    mask: UInt8[np.ndarray, "slice height width"],
    device: torch.device | None,
) -> Iterator[tuple[slice, Float[Tensor, "slice region height width"]]]:
    """Yield positions of slices and the probabilities there, each slice once."""
    device = device or _where(model)
    segmentor, settings = model.segmentor.to(device), model.experiment.training
    precision = choose_numerics(settings, device).precision
    size = BATCH.get(device.type, BATCH_ELSEWHERE)
    for start in range(0, len(mask), size):
        positions = slice(start, min(start + size, len(mask)))
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            found = probability_of_slices(
                segmentor,
                image,
                mask,
                positions,
                downsampling_levels=downsampling_levels(model.experiment),
                brain_mask=settings.brain_mask,
                context_slices=model.experiment.data.neighbours,
                flips=model.postprocessing.flips,
                device=device,
            )
        yield positions, found


def _where(model: Model) -> torch.device:
    tensors = chain(model.segmentor.parameters(), model.segmentor.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))
