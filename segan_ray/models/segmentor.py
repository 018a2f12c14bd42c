"""The segmentor S of SegAN: strided-convolution encoder, bilinear-upsampling decoder.

Xue et al. 2018, section "Segmentor": 4×4 stride-2 convolutions going down, ×2 resizing and
3×3 convolutions going up, skip connections between mirrored levels, LeakyReLU down, ReLU up,
batch norm, and a sigmoid over the regions.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

LEAK = 0.2


class Down(nn.Sequential):
    """Halve the grid: 4×4 stride-2 convolution, batch norm (not on the first), LeakyReLU."""

    def __init__(self, channels_in: int, channels_out: int, *, norm: bool) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1, bias=not norm)
        ]
        if norm:
            layers.append(nn.BatchNorm2d(channels_out))
        super().__init__(*layers, nn.LeakyReLU(LEAK, inplace=True))


class Up(nn.Sequential):
    """Double the grid: bilinear resize, 3×3 convolution, batch norm, ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class Segmentor(nn.Module):
    """Map image slices to one probability map per region.

    Args:
        channels: modalities of the input.
        regions: maps of the output.
        depth: number of halvings; height and width must be multiples of ``2**depth``.
        base_width: channels after the first halving, doubled with each further one.
        concat_skips: join the mirrored levels by concatenation rather than addition.
    """

    def __init__(
        self, channels: int, regions: int, *, depth: int, base_width: int, concat_skips: bool
    ) -> None:
        super().__init__()
        self.concat_skips = concat_skips
        widths = [base_width * 2**level for level in range(depth)]
        self.down = nn.ModuleList(
            Down(channels_in, channels_out, norm=level > 0)
            for level, (channels_in, channels_out) in enumerate(
                zip([channels, *widths], widths, strict=False)
            )
        )
        joined = 2 if concat_skips else 1
        self.up = nn.ModuleList(
            Up(widths[level] * (joined if level < depth - 1 else 1), widths[level - 1])
            for level in range(depth - 1, 0, -1)
        )
        self.head = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(widths[0] * joined, regions, 3, padding=1),
        )

    def forward(
        self, image: Float[Tensor, "batch modality height width"]
    ) -> Float[Tensor, "batch region height width"]:
        """Return probabilities in [0, 1]."""
        skips = []
        features = image
        for block in self.down:
            features = block(features)
            skips.append(features)
        skips.pop()
        for block in self.up:
            features = self._join(block(features), skips.pop())
        return torch.sigmoid(self.head(features))

    def _join(self, features: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([features, skip], dim=1) if self.concat_skips else features + skip
