"""Segmentors that can be checked by hand, and the settings to use them with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from segan_ray.evaluation.inference.inference_settings import InferenceSettings
from segan_ray.evaluation.scoring.threshold import FLAIR

CPU = torch.device("cpu")
PLAIN = InferenceSettings(
    device=CPU,
    precision=torch.float32,
    batch_size=32,
    downsampling_levels=4,
    context_slices=0,
    brain_mask=True,
)


def settings(**changes: Any) -> InferenceSettings:
    """Return ``PLAIN`` with ``changes``."""
    return replace(PLAIN, **changes)


class BrightFlair(nn.Module):
    """FLAIR above 1 is every region; the grid must fit four downsampling levels."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.shape[-1] % 16 == 0
        assert image.shape[-2] % 16 == 0
        return (image[:, FLAIR : FLAIR + 1] > 1).float().expand(-1, 3, -1, -1)


class Everything(nn.Module):
    """Every voxel is of every region."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(image), 3, *image.shape[2:])


class Unnested(nn.Module):
    """Three maps that have little to do with each other."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (image[:, :3] > 1).float()


class Graded(nn.Module):
    """The probability of every region grows with FLAIR."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(image[:, FLAIR : FLAIR + 1] - 1).expand(-1, 3, -1, -1)
