"""From slices to volumes: what a segmentor says of a whole prepared case."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float16
from torch import nn

from segan_ray.brats import MODALITIES
from segan_ray.data.slices import PackedBatch
from segan_ray.data.store import PreparedCase
from segan_ray.data.windows import stack_positions

THRESHOLD = 0.5


def predict_box(
    segmentor: nn.Module,
    case: PreparedCase,
    *,
    halvings: int,
    brain_mask: bool,
    neighbours: int = 0,
    batch_size: int = 32,
    device: torch.device | None = None,
) -> Bool[np.ndarray, "region slice height width"]:
    """Return the predicted regions over the stored box of ``case``.

    ``brain_mask`` confines the maps and ``neighbours`` adds slices, both as training did.
    Leaves the segmentor in evaluation mode.
    """
    slices = case.record.size[2]
    maps = [
        predict_slices(
            segmentor,
            case,
            slice(start, min(start + batch_size, slices)),
            halvings=halvings,
            brain_mask=brain_mask,
            neighbours=neighbours,
            device=device,
        )
        for start in range(0, slices, batch_size)
    ]
    return np.concatenate(maps, axis=1)


@torch.no_grad()
def predict_slices(
    segmentor: nn.Module,
    case: PreparedCase,
    positions: slice,
    *,
    halvings: int,
    brain_mask: bool,
    neighbours: int = 0,
    device: torch.device | None = None,
) -> Bool[np.ndarray, "region slice height width"]:
    """Return the predicted regions over some slices of the stored box of ``case``.

    Slices are padded on all sides to the multiple of ``2**halvings`` the network needs, and
    cut back.
    """
    device = device or torch.device("cpu")
    segmentor.eval()
    image, mask = stacks(case, positions, neighbours), case.mask()[positions]
    _, height, width = mask.shape
    unit = 2**halvings
    top, left = (-height % unit) // 2, (-width % unit) // 2
    padding = [(0, 0), (top, -height % unit - top), (left, -width % unit - left)]
    batch = PackedBatch(
        torch.from_numpy(np.pad(image, [(0, 0), *padding])),
        torch.from_numpy(np.pad(mask, padding)),
        (),
    ).unpack(device)
    # Past what training may have compiled: the grids of volumes differ from its one crop.
    probability = segmentor.forward(batch.image)
    if brain_mask:
        probability = probability * batch.brain
    inside = probability[..., top : top + height, left : left + width]
    return np.moveaxis((inside > THRESHOLD).cpu().numpy(), 1, 0)


def stacks(
    case: PreparedCase, positions: slice, neighbours: int
) -> Float16[np.ndarray, "slice channel height width"]:
    """Return some slices of the stored box, each amid its neighbours; 0 past the box's ends."""
    image = case.image()
    if not neighbours:
        return image[positions]
    wanted = range(len(image))[positions]
    channels = len(MODALITIES) * (2 * neighbours + 1)
    stacked = np.zeros((len(wanted), channels, *image.shape[2:]), dtype=image.dtype)
    for index, position in enumerate(wanted):
        for place, at in stack_positions(position, len(image), neighbours):
            stacked[index, place] = image[at]
    return stacked
