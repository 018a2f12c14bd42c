"""MONAI's networks, to segment with and to compare with, each with a sigmoid over the regions."""

from __future__ import annotations

from math import gcd
from typing import Final, Literal

import torch
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.unet import UNet
from torch import Tensor, nn

Baseline = Literal["unet", "residual-unet", "segresnet"]

RESIDUAL_UNITS: Final = 2
"""Of each level of a residual U-Net (Kerfoot et al. 2018)."""
NORM_GROUPS: Final = 8
"""Of SegResNet's group norms (Myronenko 2018), fewer where the width is no multiple of them."""


class Probability(nn.Module):
    """The sigmoid, in single precision even where the rest is not: losses read it."""

    def forward(self, logits: Tensor) -> Tensor:
        """Return probabilities in [0, 1]."""
        return torch.sigmoid(logits.float())


def build_baseline(
    network: Baseline, channels: int, regions: int, *, depth: int, base_width: int
) -> nn.Module:
    """Return a 2-D network of MONAI's with ``depth`` downsampling levels.

    ``base_width`` channels at full resolution double at each level.
    """
    if network == "segresnet":
        body = _segresnet(channels, regions, depth, base_width)
    else:
        units = RESIDUAL_UNITS if network == "residual-unet" else 0
        body = _unet(channels, regions, depth, base_width, units)
    return nn.Sequential(body, Probability())


def _unet(channels: int, regions: int, depth: int, base_width: int, units: int) -> nn.Module:
    return UNet(
        spatial_dims=2,
        in_channels=channels,
        out_channels=regions,
        channels=[base_width * 2**level for level in range(depth + 1)],
        strides=[2] * depth,
        num_res_units=units,
        norm="BATCH",
    )


def _segresnet(channels: int, regions: int, depth: int, base_width: int) -> nn.Module:
    return SegResNet(
        spatial_dims=2,
        init_filters=base_width,
        in_channels=channels,
        out_channels=regions,
        norm=("GROUP", {"num_groups": gcd(NORM_GROUPS, base_width)}),
        blocks_down=(1,) * (depth + 1),
        blocks_up=(1,) * depth,
    )
