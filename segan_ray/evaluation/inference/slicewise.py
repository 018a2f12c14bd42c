"""From slices to volumes: what a segmentor says of a whole prepared box."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, UInt8
from torch import Tensor, nn

from segan_ray.brats import MODALITIES, as_written
from segan_ray.data.sampling.context_slices import stack_positions
from segan_ray.data.store.opened_store import BRAIN_BIT, PreparedCase

THRESHOLD = 0.5


def predict_box(
    segmentor: nn.Module,
    case: PreparedCase,
    *,
    downsampling_levels: int,
    brain_mask: bool,
    context_slices: int = 0,
    batch_size: int = 32,
    device: torch.device | None = None,
) -> Bool[np.ndarray, "region slice height width"]:
    """Return the predicted regions over the stored box of ``case``, as they are written.

    ``brain_mask`` confines the maps and ``context_slices`` adds slices, both as training did.
    Leaves the segmentor in evaluation mode.
    """
    slices = case.record.size[2]
    maps = [
        predict_slices(
            segmentor,
            case,
            slice(start, min(start + batch_size, slices)),
            downsampling_levels=downsampling_levels,
            brain_mask=brain_mask,
            context_slices=context_slices,
            device=device,
        )
        for start in range(0, slices, batch_size)
    ]
    return np.concatenate(maps, axis=1)


def predict_slices(
    segmentor: nn.Module,
    case: PreparedCase,
    positions: slice,
    *,
    downsampling_levels: int,
    brain_mask: bool,
    context_slices: int = 0,
    device: torch.device | None = None,
) -> Bool[np.ndarray, "region slice height width"]:
    """Return the regions over some slices of the stored box of ``case``, as they are written."""
    probability = probability_of_slices(
        segmentor,
        case.image(),
        case.mask(),
        positions,
        downsampling_levels=downsampling_levels,
        brain_mask=brain_mask,
        context_slices=context_slices,
        device=device,
    )
    return as_written(np.moveaxis((probability > THRESHOLD).cpu().numpy(), 1, 0))


@torch.inference_mode()
def probability_of_slices(
    segmentor: nn.Module,
    image: Float16[np.ndarray, "slice modality height width"],
    mask: UInt8[np.ndarray, "slice height width"],
    positions: slice,
    *,
    downsampling_levels: int,
    brain_mask: bool,
    context_slices: int = 0,
    flips: bool = False,
    device: torch.device | None = None,
) -> Float[Tensor, "slice region height width"]:
    """Return the probability of each region over some slices of a box, on ``device``.

    Slices are padded on all sides to the multiple of ``2**downsampling_levels`` the network needs,
    and cut back. ``flips`` averages over slices as they are and mirrored left to right: the one
    axis along which brains look alike, and the one that training mirrors.
    """
    device = device or torch.device("cpu")
    segmentor.eval()
    padded, inside = _padded(
        stacks(image, positions, context_slices), 2**downsampling_levels, device
    )
    # Past what training may have compiled: the grids of volumes differ from its one crop.
    probability: Tensor = segmentor.forward(padded)
    if flips:
        probability = (probability + segmentor.forward(padded.flip(-2)).flip(-2)) / 2
    probability = probability[inside]
    if brain_mask:
        probability = probability * torch.from_numpy(mask[positions] & BRAIN_BIT != 0)[:, None].to(
            device
        )
    return probability


def _padded(
    stacked: Float16[np.ndarray, "slice channel height width"], unit: int, device: torch.device
) -> tuple[Float[Tensor, "slice channel padded_height padded_width"], tuple[Any, ...]]:
    """Return slices in float32, channels last, with zeros around; and where they lie in that."""
    height, width = stacked.shape[2:]
    top, left = (-height % unit) // 2, (-width % unit) // 2
    inside = (..., slice(top, top + height), slice(left, left + width))
    padded = torch.empty(
        (*stacked.shape[:2], height + -height % unit, width + -width % unit),
        device=device,
        memory_format=torch.channels_last,
    ).zero_()
    # A copy, since a store's arrays are read-only, and torch has no such thing.
    padded[inside] = torch.from_numpy(np.array(stacked)).to(device)
    return padded, inside


def stacks(
    image: Float16[np.ndarray, "slice modality height width"], positions: slice, context_slices: int
) -> Float16[np.ndarray, "slice channel height width"]:
    """Return some slices of a box, each amid its neighbours; 0 past the box's ends."""
    if not context_slices:
        return image[positions]
    wanted = range(len(image))[positions]
    channels = len(MODALITIES) * (2 * context_slices + 1)
    stacked = np.zeros((len(wanted), channels, *image.shape[2:]), dtype=image.dtype)
    for index, position in enumerate(wanted):
        for place, at in stack_positions(position, len(image), context_slices):
            stacked[index, place] = image[at]
    return stacked
