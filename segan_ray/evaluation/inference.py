"""From slices to volumes: what a segmentor says of a whole prepared case."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool
from torch import nn

from segan_ray.data.slices import to_batch
from segan_ray.data.store import PreparedCase

THRESHOLD = 0.5


@torch.no_grad()
def predict_box(
    segmentor: nn.Module,
    case: PreparedCase,
    *,
    halvings: int,
    brain_mask: bool,
    batch_size: int = 32,
    device: torch.device | None = None,
) -> Bool[np.ndarray, "region slice height width"]:
    """Return the predicted regions over the stored box of ``case``.

    Leaves the segmentor in evaluation mode.

    Slices are padded to the multiple of ``2**halvings`` the network needs and cut back.
    ``brain_mask`` confines the maps as training did.
    """
    device = device or torch.device("cpu")
    segmentor.eval()
    image, mask = case.image(), case.mask()
    depth, height, width = mask.shape
    unit = 2**halvings
    padding = [(0, 0), (0, -height % unit), (0, -width % unit)]
    maps = []
    for start in range(0, depth, batch_size):
        part = slice(start, min(start + batch_size, depth))
        batch = to_batch(np.pad(image[part], [(0, 0), *padding]), np.pad(mask[part], padding), ())
        probability = segmentor(batch.image.to(device, memory_format=torch.channels_last))
        if brain_mask:
            probability = probability * batch.brain.to(device)
        maps.append((probability[..., :height, :width] > THRESHOLD).cpu().numpy())
    return np.moveaxis(np.concatenate(maps), 1, 0)
