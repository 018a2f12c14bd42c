"""Augmentation of training slices: rotation, scaling, intensity and a smooth bias field.

The change of each slice is drawn on the CPU together with its batch, and applied to a worker's
whole share of the batch on its device. The image and its mask move alike; voxels outside the
brain stay exactly 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from segan_ray.brats import MODALITIES

TERMS: Final = tuple((down, across) for down in range(3) for across in range(3) if down or across)
"""The half waves of each term of a bias field along height and width."""

BRIGHTNESS: Final = 3.0
"""The typical zero of a scanner, in standard deviations below a brain's mean.

A coil's sensitivity multiplies the measured value, not its z-score.
"""


@dataclass(frozen=True)
class Augmentation:
    """The largest changes of a slice, in either direction; 0 leaves it as it is.

    Rotation is about the middle of the crop; ``scaling`` is a fraction of the size. Each modality
    is multiplied by up to 1 ± ``intensity``, shifted by up to ``intensity`` standard deviations,
    and multiplied by a smooth field whose logarithm ``bias`` bounds.
    """

    rotation_deg: float = 0.0
    scaling: float = 0.0
    intensity: float = 0.0
    bias: float = 0.0

    @property
    def moves(self) -> bool:
        """Whether voxels change place."""
        return self.rotation_deg > 0 or self.scaling > 0

    @property
    def changes(self) -> bool:
        """Whether slices are changed at all."""
        return self.moves or self.intensity > 0 or self.bias > 0

    def margin(self, crop: int) -> int:
        """Return how many voxels around a crop may move into it."""
        if not self.moves:
            return 0
        angle = math.radians(min(self.rotation_deg, 45.0))
        reach = crop * (math.cos(angle) + math.sin(angle)) / (1 - self.scaling)
        return math.ceil((reach - crop) / 2) + 1


class Change(NamedTuple):
    """The change of one slice, or of several slices, stacked.

    ``turn`` is the cosine and the sine of its rotation, over its scale. ``gain`` and ``offset``
    have one value a modality, ``bias`` has the weights of ``TERMS`` in the logarithm of its field.
    """

    turn: Float[np.ndarray, "*slice 2"]
    gain: Float[np.ndarray, "*slice modality"]
    offset: Float[np.ndarray, "*slice modality"]
    bias: Float[np.ndarray, "*slice modality term"]


def draw_changes(augmentation: Augmentation, count: int, rng: np.random.Generator) -> list[Change]:
    """Draw the changes of ``count`` slices, with the same random numbers for all settings.

    Settings only scale a change: two trials with one seed turn the same slices the same way, by
    different angles.
    """

    def either_way(*shape: int) -> np.ndarray:
        return rng.uniform(-1, 1, (count, *shape))

    modalities = len(MODALITIES)
    angle = math.radians(augmentation.rotation_deg) * either_way()
    scale = 1 + augmentation.scaling * either_way()
    gain = 1 + augmentation.intensity * either_way(modalities)
    offset = augmentation.intensity * either_way(modalities)
    weights = either_way(modalities, len(TERMS))
    bias = augmentation.bias * weights / np.abs(weights).sum(axis=-1, keepdims=True)
    turn = np.stack([np.cos(angle), np.sin(angle)], axis=-1) / scale[:, None]
    stacked = (turn, gain, offset, bias)
    return [
        Change(*row) for row in zip(*(part.astype(np.float32) for part in stacked), strict=True)
    ]


@dataclass(frozen=True)
class Changes:
    """The changes of the slices of a batch, and the ``crop`` that is kept around their middle."""

    augmentation: Augmentation
    crop: int
    slices: tuple[Change, ...]

    def apply(
        self,
        image: Float[Tensor, "batch channel field field"],
        mask: UInt8[Tensor, "batch 1 field field"],
    ) -> tuple[
        Float[Tensor, "batch channel crop crop"],
        UInt8[Tensor, "batch 1 crop crop"],
    ]:
        """Return images and masks changed. Channels are modalities, slice after slice."""
        turn, gain, offset, bias = (
            torch.from_numpy(np.stack(part)).to(image.device)
            for part in zip(*self.slices, strict=True)
        )
        if self.augmentation.moves:
            image, mask = move(image, mask, turn, self.crop)
        stack = image.unflatten(1, (-1, len(MODALITIES)))
        brain = _brain(stack)
        if self.augmentation.bias:
            field = bias_field(bias, self.crop)[:, None]
            stack = (stack + BRIGHTNESS) * field - BRIGHTNESS
        if self.augmentation.intensity:
            stack = stack * _over_stack(gain) + _over_stack(offset)
        return (stack * brain).flatten(1, 2), mask


def move(
    image: Float[Tensor, "batch channel field field"],
    mask: UInt8[Tensor, "batch 1 field field"],
    turn: Float[Tensor, "batch 2"],
    crop: int,
) -> tuple[Float[Tensor, "batch channel crop crop"], UInt8[Tensor, "batch 1 crop crop"]]:
    """Rotate and scale slices about their middle and keep the middle ``crop`` of them.

    Images are interpolated among voxels of the brain alone, since the zeros around it are no
    intensities. The nearest voxel decides about mask and brain.
    """
    stack = image.unflatten(1, (-1, len(MODALITIES)))
    brain = _brain(stack)[:, :, 0].to(image.dtype)
    grid = _grid(turn, crop, image.shape[-1])
    nearest = _sampled(torch.cat([mask.to(image.dtype), brain], dim=1), grid, "nearest")
    linear = _sampled(torch.cat([image, brain], dim=1), grid, "bilinear")
    moved, weight = linear.split([image.shape[1], brain.shape[1]], dim=1)
    inside = nearest[:, 1:, None]
    # If the nearest voxel is in the brain, at least a quarter of the weight is too.
    moved = inside * moved.unflatten(1, (-1, len(MODALITIES))) / weight[:, :, None].clamp_min(0.1)
    return moved.flatten(1, 2), nearest[:, :1].to(torch.uint8)


def bias_field(
    weights: Float[Tensor, "batch modality term"], crop: int
) -> Float[Tensor, "batch modality crop crop"]:
    """Return the factor of each voxel: e to the power of a sum of slow waves over the crop."""
    at = (torch.arange(crop, device=weights.device) + 0.5) * (math.pi / crop)
    waves = [torch.cos(order * at) for order in range(3)]
    # Term by term: a matrix product may round differently for another number of slices.
    logarithm = torch.zeros((*weights.shape[:2], crop, crop), device=weights.device)
    for term, (down, across) in enumerate(TERMS):
        logarithm += weights[:, :, term, None, None] * (waves[down][:, None] * waves[across])
    return logarithm.exp()


def _brain(stack: Tensor) -> Tensor:
    """Return where any modality of each slice is non-zero: (batch, slice, 1, height, width)."""
    return (stack != 0).any(dim=2, keepdim=True)


def _over_stack(values: Float[Tensor, "batch modality"]) -> Tensor:
    """Shape one value a modality for (batch, slice, modality, height, width)."""
    return values[:, None, :, None, None]


def _grid(
    turn: Float[Tensor, "batch 2"], crop: int, field: int
) -> Float[Tensor, "batch crop crop xy"]:
    """Return where each voxel of the crop comes from; ±1 are the borders of the field."""
    along = (torch.arange(crop, device=turn.device) - (crop - 1) / 2) * (2 / field)
    down, across = along[:, None], along[None, :]
    cosine, sine = turn[:, 0, None, None], turn[:, 1, None, None]
    return torch.stack([sine * down + cosine * across, cosine * down - sine * across], dim=-1)


def _sampled(image: Tensor, grid: Tensor, mode: str) -> Tensor:
    return functional.grid_sample(image, grid, mode=mode, padding_mode="zeros", align_corners=False)
