"""The U-Net baseline: MONAI's, with a sigmoid over the regions."""

from __future__ import annotations

import torch
from monai.networks.nets.unet import UNet
from torch import Tensor, nn


class Probability(nn.Module):
    """The sigmoid, in single precision even where the rest is not: losses read it."""

    def forward(self, logits: Tensor) -> Tensor:
        """Return probabilities in [0, 1]."""
        return torch.sigmoid(logits.float())


def build_unet(channels: int, regions: int, *, depth: int, base_width: int) -> nn.Module:
    """Return MONAI's 2-D U-Net with ``depth`` downsampling levels and the segmentor's widths."""
    network = UNet(
        spatial_dims=2,
        in_channels=channels,
        out_channels=regions,
        channels=[base_width * 2**level for level in range(depth + 1)],
        strides=[2] * depth,
        num_res_units=0,
        norm="BATCH",
    )
    return nn.Sequential(network, Probability())
