"""A segmentor and a prepared box → probabilities and regions.

Validation, pictures, the gate, ``evaluate``, ``predict`` and registered models all get their maps
here, so a model that was chosen by its maps is used with the same maps.

Regions are those that a label map holds: enhancing lies in core, core in whole. Scores are
therefore those of the label map that is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float32, UInt8
from torch import Tensor, nn

from segan_ray.brats import MODALITIES, REGIONS, as_written
from segan_ray.data.sampling.context_slices import stack_positions
from segan_ray.data.store.opened_store import BRAIN_BIT, PreparedCase
from segan_ray.evaluation.inference.components import without_small
from segan_ray.evaluation.inference.inference_settings import InferenceSettings


@dataclass(frozen=True, eq=False)
class BoxArrays:
    """The voxels of a prepared case: the box that holds its brain, and a voxel's volume."""

    image: Float16[np.ndarray, "slice modality height width"]
    mask: UInt8[np.ndarray, "slice height width"]
    voxel_mm3: float

    @classmethod
    def of_case(cls, case: PreparedCase) -> Self:
        """Return the stored box of ``case``, memory-mapped."""
        return cls(case.image(), case.mask(), float(np.prod(case.record.spacing_mm)))


@dataclass(frozen=True, eq=False)
class Maps:
    """The regions over a grid; ``probabilities`` is None unless they were asked for."""

    regions: Bool[np.ndarray, "region *grid"]
    probabilities: Float32[np.ndarray, "region *grid"] | None = None


def predict_box(
    segmentor: nn.Module,
    box: BoxArrays,
    settings: InferenceSettings,
    *,
    positions: slice = slice(None),
    keep_probabilities: bool = False,
) -> Maps:
    """Return the maps over ``box``, or over its slices at ``positions``.

    The pieces of a region are those within the slices asked for. Leaves the segmentor on the
    device of ``settings``, in evaluation mode.
    """
    after, shape = settings.postprocessing, _shape(box, positions)
    thresholds = torch.tensor([after.thresholds[region] for region in REGIONS])[:, None, None]
    thresholds = thresholds.to(settings.device)
    regions = np.empty(shape, dtype=bool)
    kept = np.empty(shape, dtype=np.float32) if keep_probabilities else None
    for batch, probability in _batches(segmentor, box, settings, positions):
        regions[:, batch] = _regions_first(probability > thresholds)
        if kept is not None:
            kept[:, batch] = _regions_first(probability)
    for index, region in enumerate(REGIONS):
        regions[index] = without_small(regions[index], after.smallest_mm3[region] / box.voxel_mm3)
    return Maps(as_written(regions), kept)


def predict_slice(
    segmentor: nn.Module, box: BoxArrays, settings: InferenceSettings, position: int
) -> Bool[np.ndarray, "region height width"]:
    """Return the regions in one slice of ``box``, as they are in the maps of the whole box."""
    # Whether a piece is small shows in the whole box alone.
    whole = settings.postprocessing.drops_pieces
    positions = slice(None) if whole else slice(position, position + 1)
    regions = predict_box(segmentor, box, settings, positions=positions).regions
    return regions[:, position if whole else 0]


def probabilities_of_box(
    segmentor: nn.Module, box: BoxArrays, settings: InferenceSettings
) -> Float32[np.ndarray, "region slice height width"]:
    """Return the probability of each region over ``box``, before thresholds."""
    kept = np.empty(_shape(box, slice(None)), dtype=np.float32)
    for batch, probability in _batches(segmentor, box, settings, slice(None)):
        kept[:, batch] = _regions_first(probability)
    return kept


def _shape(box: BoxArrays, positions: slice) -> tuple[int, ...]:
    slices, height, width = box.mask.shape
    return len(REGIONS), len(range(slices)[positions]), height, width


def _regions_first(maps: Tensor) -> np.ndarray:
    return maps.movedim(1, 0).cpu().numpy()


def _batches(
    segmentor: nn.Module, box: BoxArrays, settings: InferenceSettings, positions: slice
) -> Iterator[tuple[slice, Float[Tensor, "slice region height width"]]]:
    """Yield where a batch lies among the slices at ``positions``, and its probabilities."""
    segmentor.to(settings.device).eval()
    wanted = range(len(box.mask))[positions]
    for start in range(0, len(wanted), settings.batch_size):
        batch = wanted[start : start + settings.batch_size]
        probability = _probability(
            segmentor, box, settings, slice(batch.start, batch.stop, batch.step)
        )
        yield slice(start, start + len(batch)), probability


@torch.inference_mode()
def _probability(
    segmentor: nn.Module, box: BoxArrays, settings: InferenceSettings, positions: slice
) -> Float[Tensor, "slice region height width"]:
    """Return the probability of each region over some slices, on the device of ``settings``.

    With ``flips`` it is the mean over slices as they are and mirrored left to right. Brains look
    alike along that axis alone, and training mirrors along no other.
    """
    device, precision = settings.device, settings.precision
    unit = 2**settings.downsampling_levels
    padded, inside = _padded(stacks(box.image, positions, settings.context_slices), unit, device)
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        # Not ``segmentor(...)``, which training may have compiled for the grid of its crops.
        probability: Tensor = segmentor.forward(padded)
        if settings.postprocessing.flips:
            probability = (probability + segmentor.forward(padded.flip(-2)).flip(-2)) / 2
    probability = probability[inside]
    if settings.brain_mask:
        brain = torch.from_numpy(box.mask[positions] & BRAIN_BIT != 0)
        probability = probability * brain[:, None].to(device)
    return probability


def _padded(
    stacked: Float16[np.ndarray, "slice channel height width"], unit: int, device: torch.device
) -> tuple[Float[Tensor, "slice channel padded_height padded_width"], tuple[Any, ...]]:
    """Return slices in float32, channels last, with zeros around; and where they lie in that.

    Height and width become multiples of ``unit``, with as many zeros on either side.
    """
    height, width = stacked.shape[2:]
    top, left = (-height % unit) // 2, (-width % unit) // 2
    inside = (..., slice(top, top + height), slice(left, left + width))
    padded = torch.empty(
        (*stacked.shape[:2], height + -height % unit, width + -width % unit),
        device=device,
        memory_format=torch.channels_last,
    ).zero_()
    # A copy, since the arrays of a store are read-only and PyTorch has no such tensors.
    padded[inside] = torch.from_numpy(np.array(stacked)).to(device)
    return padded, inside


def stacks(
    image: Float16[np.ndarray, "slice modality height width"], positions: slice, context_slices: int
) -> Float16[np.ndarray, "slice channel height width"]:
    """Return some slices of a box, each with its context slices; 0 past the box's ends."""
    if not context_slices:
        return image[positions]
    wanted = range(len(image))[positions]
    channels = len(MODALITIES) * (2 * context_slices + 1)
    stacked = np.zeros((len(wanted), channels, *image.shape[2:]), dtype=image.dtype)
    for index, position in enumerate(wanted):
        for channel, source in stack_positions(position, len(image), context_slices):
            stacked[index, channel] = image[source]
    return stacked
