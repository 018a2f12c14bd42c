"""The segmentor S of SegAN: strided-convolution encoder, bilinear-upsampling decoder.

Xue et al. 2018, section "Segmentor": 4×4 stride-2 convolutions going down, ×2 resizing and
3×3 convolutions going up, skip connections between mirrored levels, LeakyReLU down, ReLU up,
batch norm, and a sigmoid over the regions. Both of the authors' published networks have a block
at full resolution before the maps, which the paper does not name; it is a choice here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

LEAK: Final = 0.2
WIDEST: Final = 8


def level_widths(base_width: int, depth: int) -> list[int]:
    """Return the channels at each downsampling level: doubled each time, up to 8 × ``base_width``.

    The paper's four levels are 64, 128, 256, 512; the authors' published code stays at 512.
    """
    return [base_width * min(2**level, WIDEST) for level in range(depth)]


class Double(nn.Module):
    """Double the grid bilinearly; the same on every device, and repeatable on all."""

    def forward(
        self, image: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch channel 2*height 2*width"]:
        """Return ``image`` resized, corners not aligned."""
        # Where no gradient is wanted, the library's function repeats on CUDA too, in one pass.
        if image.is_cuda and torch.is_grad_enabled():
            return double_by_neighbours(image)
        return functional.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)


def double_by_neighbours(
    image: Float[Tensor, "batch channel height width"],
) -> Float[Tensor, "batch channel 2*height 2*width"]:
    """Return ``image`` doubled by weights of its neighbours, 3/4 and 1/4 along each axis.

    The result is that of ``interpolate``, whose gradient on CUDA adds in no fixed order, so that
    no two runs are equal. This function's gradient adds in a fixed order.
    """
    for axis in (2, 3):
        size = image.shape[axis]
        before = torch.cat([image.narrow(axis, 0, 1), image.narrow(axis, 0, size - 1)], axis)
        after = torch.cat([image.narrow(axis, 1, size - 1), image.narrow(axis, size - 1, 1)], axis)
        near = 0.75 * image
        pairs = torch.stack([near + 0.25 * before, near + 0.25 * after], axis + 1)
        image = pairs.flatten(axis, axis + 1)
    return image.contiguous(memory_format=torch.channels_last)


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
            Double(),
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


def features_of_levels(down: Iterable[nn.Module], image: Tensor) -> list[Tensor]:
    """Return the features of each level of an encoder, the deepest last."""
    features = [image]
    for block in down:
        features.append(block(features[-1]))
    return features[1:]


class Segmentor(nn.Module):
    """Map image slices to one probability map per region.

    Args:
        channels: modalities of the input.
        regions: maps of the output.
        depth: downsampling levels; height and width must be multiples of ``2**depth``.
        base_width: channels at the first level; see ``level_widths``.
        concat_skips: join the mirrored levels by concatenation rather than addition.
        full_resolution: one more convolution at full resolution, before the maps.
    """

    def __init__(
        self,
        channels: int,
        regions: int,
        *,
        depth: int,
        base_width: int,
        concat_skips: bool,
        full_resolution: bool,
    ) -> None:
        super().__init__()
        self.concat_skips = concat_skips
        widths = level_widths(base_width, depth)
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
        last = widths[0] * joined
        double = Up(last, base_width) if full_resolution else Double()
        features = base_width if full_resolution else last
        self.head = nn.Sequential(double, nn.Conv2d(features, regions, 3, padding=1))

    def forward(
        self, image: Float[Tensor, "batch modality height width"]
    ) -> Float[Tensor, "batch region height width"]:
        """Return probabilities in [0, 1]."""
        skips = features_of_levels(self.down, image)
        features = skips.pop()
        for block in self.up:
            features = self._join(block(features), skips.pop())
        # In single precision even where the rest is not: losses and thresholds read it.
        return torch.sigmoid(self.head(features).float())

    def _join(self, features: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([features, skip], dim=1) if self.concat_skips else features + skip


class SegmentorBank(nn.Module):
    """One segmentor with one map per region, sharing nothing (variants S1-1C and S3-3C)."""

    def __init__(self, segmentors: Iterable[nn.Module]) -> None:
        super().__init__()
        self.segmentors = nn.ModuleList(segmentors)

    def forward(
        self, image: Float[Tensor, "batch modality height width"]
    ) -> Float[Tensor, "batch region height width"]:
        """Return probabilities in [0, 1]."""
        return torch.cat([segmentor(image) for segmentor in self.segmentors], dim=1)
