"""From slices to volumes: what a segmentor says of a whole prepared box."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float32, UInt8
from torch import Tensor, nn

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
    """Return the predicted regions over some slices of the stored box of ``case``."""
    probability = probability_of_slices(
        segmentor,
        case.image(),
        case.mask(),
        positions,
        halvings=halvings,
        brain_mask=brain_mask,
        neighbours=neighbours,
        device=device,
    )
    return np.moveaxis((probability > THRESHOLD).cpu().numpy(), 1, 0)


def probability_of_box(
    segmentor: nn.Module,
    image: Float16[np.ndarray, "slice modality height width"],
    mask: UInt8[np.ndarray, "slice height width"],
    *,
    halvings: int,
    brain_mask: bool,
    neighbours: int = 0,
    batch_size: int = 32,
    device: torch.device | None = None,
) -> Float32[np.ndarray, "region slice height width"]:
    """Return the probability of each region over a box, as ``predict_box`` sees it."""
    maps = [
        probability_of_slices(
            segmentor,
            image,
            mask,
            slice(start, min(start + batch_size, len(mask))),
            halvings=halvings,
            brain_mask=brain_mask,
            neighbours=neighbours,
            device=device,
        )
        for start in range(0, len(mask), batch_size)
    ]
    return np.concatenate([np.moveaxis(part.cpu().numpy(), 1, 0) for part in maps], axis=1)


@torch.no_grad()
def probability_of_slices(
    segmentor: nn.Module,
    image: Float16[np.ndarray, "slice modality height width"],
    mask: UInt8[np.ndarray, "slice height width"],
    positions: slice,
    *,
    halvings: int,
    brain_mask: bool,
    neighbours: int = 0,
    device: torch.device | None = None,
) -> Float[Tensor, "slice region height width"]:
    """Return the probability of each region over some slices of a box, on ``device``.

    Slices are padded on all sides to the multiple of ``2**halvings`` the network needs, and
    cut back.
    """
    device = device or torch.device("cpu")
    segmentor.eval()
    stacked, mask = stacks(image, positions, neighbours), mask[positions]
    _, height, width = mask.shape
    unit = 2**halvings
    top, left = (-height % unit) // 2, (-width % unit) // 2
    padding = [(0, 0), (top, -height % unit - top), (left, -width % unit - left)]
    batch = PackedBatch(
        torch.from_numpy(np.pad(stacked, [(0, 0), *padding])),
        torch.from_numpy(np.pad(mask, padding)),
        (),
    ).unpack(device)
    # Past what training may have compiled: the grids of volumes differ from its one crop.
    probability: Tensor = segmentor.forward(batch.image)
    if brain_mask:
        probability = probability * batch.brain
    return probability[..., top : top + height, left : left + width]


def stacks(
    image: Float16[np.ndarray, "slice modality height width"], positions: slice, neighbours: int
) -> Float16[np.ndarray, "slice channel height width"]:
    """Return some slices of a box, each amid its neighbours; 0 past the box's ends."""
    if not neighbours:
        return image[positions]
    wanted = range(len(image))[positions]
    channels = len(MODALITIES) * (2 * neighbours + 1)
    stacked = np.zeros((len(wanted), channels, *image.shape[2:]), dtype=image.dtype)
    for index, position in enumerate(wanted):
        for place, at in stack_positions(position, len(image), neighbours):
            stacked[index, place] = image[at]
    return stacked
