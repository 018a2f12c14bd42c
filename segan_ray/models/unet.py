"""The U-Net baseline: MONAI's, with a sigmoid over the regions."""

from __future__ import annotations

from monai.networks.nets.unet import UNet
from torch import nn


def build_unet(channels: int, regions: int, *, depth: int, base_width: int) -> nn.Module:
    """Return MONAI's 2-D U-Net with ``depth`` halvings and the segmentor's widths."""
    network = UNet(
        spatial_dims=2,
        in_channels=channels,
        out_channels=regions,
        channels=[base_width * 2**level for level in range(depth + 1)],
        strides=[2] * depth,
        num_res_units=0,
        norm="BATCH",
    )
    return nn.Sequential(network, nn.Sigmoid())
