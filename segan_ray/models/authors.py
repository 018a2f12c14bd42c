"""The networks of the authors' published code, at any base width.

Both (see ``segan_ray/authors_layout.py``) have more levels than the paper's network, large
separable kernels on the way up, and a block at full resolution before the maps. Input and output
are ours: slices of the modalities, probabilities of the regions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from segan_ray.authors_layout import (
    HEAD_KERNELS,
    LAYOUTS,
    RESIDUAL_LEVELS,
    SEPARABLE_ABOVE,
    NetworkLayout,
    Published,
)
from segan_ray.models.segmentor import LEAK, Double, features_of_levels


class SeparableKernel(nn.Module):
    """A large kernel as two paths, k×1 then 1×k and 1×k then k×1 (Peng et al. 2017)."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__()
        column, row = (kernel, 1), (1, kernel)
        self.columns_first = _path(channels_in, channels_out, column, row)
        self.rows_first = _path(channels_in, channels_out, row, column)

    def forward(self, features: Tensor) -> Tensor:
        """Return the sum of both paths, on the same grid."""
        total: Tensor = self.columns_first(features) + self.rows_first(features)
        return total


class Residual(nn.Module):
    """x + three convolutions, 1×1 to twice the width, 3×3 and 1×1 back, without batch norm."""

    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1, bias=False),
            activation,
            nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, bias=False),
            activation,
            nn.Conv2d(2 * channels, channels, 1, bias=False),
            activation,
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        total: Tensor = features + self.body(features)
        return total


class PointResidual(nn.Module):
    """x + a 1×1 convolution with batch norm and activation."""

    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        self.body = _point(channels, channels, activation)

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same shape."""
        total: Tensor = features + self.body(features)
        return total


class AuthorsSegmentor(nn.Module):
    """Map image slices to one probability map per region.

    Args:
        channels: modalities of the input.
        regions: maps of the output.
        published: which of the two networks.
        base_width: channels at the first level, 64 in the published code.
    """

    def __init__(
        self, channels: int, regions: int, *, published: Published, base_width: int
    ) -> None:
        super().__init__()
        layout = LAYOUTS[published]
        widths = [width * base_width for _, width in layout.down]
        self.down = nn.ModuleList(_downs(channels, layout, base_width))
        self.bottleneck = nn.Sequential(
            *_points(widths[-1], [width * base_width for width in layout.bottleneck])
        )
        self.up = nn.ModuleList(_ups(layout, base_width))
        wide, narrow = HEAD_KERNELS
        self.head = nn.Sequential(
            Double(),
            SeparableKernel(2 * base_width, base_width, wide),
            nn.BatchNorm2d(base_width),
            nn.ReLU(inplace=True),
            Residual(base_width, nn.ReLU()),
            nn.Conv2d(base_width, regions, narrow, padding=narrow // 2),
        )
        self.apply(_initialise)

    def forward(
        self, image: Float[Tensor, "batch modality height width"]
    ) -> Float[Tensor, "batch region height width"]:
        """Return probabilities in [0, 1]; height and width are multiples of 2 to the levels."""
        skips = features_of_levels(self.down, image)
        features = self.bottleneck(skips.pop())
        for block in self.up:
            features = torch.cat([block(features), skips.pop()], dim=1)
        # In single precision even where the rest is not: losses and thresholds read it.
        return torch.sigmoid(self.head(features).float())


def authors_levels(published: Published) -> int:
    """Return the downsampling levels of the network."""
    return len(LAYOUTS[published].down)


def _downs(channels: int, layout: NetworkLayout, base_width: int) -> list[nn.Sequential]:
    blocks, before = [], channels
    leaky = nn.LeakyReLU(LEAK)
    for level, (kernel, factor) in enumerate(layout.down):
        width = factor * base_width
        layers: list[nn.Module] = [
            nn.Conv2d(before, width, kernel, stride=2, padding=(kernel - 1) // 2, bias=False)
        ]
        if level:
            layers.append(nn.BatchNorm2d(width))
        layers.append(leaky)
        if level < RESIDUAL_LEVELS:
            layers.append(Residual(width, leaky))
        elif level < len(layout.down) - 1:
            layers.append(PointResidual(width, leaky))
        blocks.append(nn.Sequential(*layers))
        before = width
    return blocks


def _points(channels: int, widths: Sequence[int]) -> list[nn.Sequential]:
    leaky = nn.LeakyReLU(LEAK)
    return [
        _point(before, after, leaky)
        for before, after in zip([channels, *widths], widths, strict=False)
    ]


def _ups(layout: NetworkLayout, base_width: int) -> list[nn.Sequential]:
    blocks, before = [], layout.bottleneck[-1] * base_width
    for level, (kernel, factor) in enumerate(layout.up):
        width, rectified = factor * base_width, nn.ReLU()
        convolution = (
            SeparableKernel(before, width, kernel)
            if kernel > SEPARABLE_ABOVE
            else nn.Conv2d(before, width, kernel, padding=1, bias=False)
        )
        residual = Residual(width, rectified) if level else PointResidual(width, rectified)
        blocks.append(
            nn.Sequential(Double(), convolution, nn.BatchNorm2d(width), rectified, residual)
        )
        before = 2 * width  # joined with the mirrored level, which is as wide
    return blocks


def _point(channels_in: int, channels_out: int, activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        activation,
    )


def _path(
    channels_in: int, channels_out: int, first: tuple[int, int], second: tuple[int, int]
) -> nn.Sequential:
    def same(kernel: tuple[int, int]) -> tuple[int, int]:
        return kernel[0] // 2, kernel[1] // 2

    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, first, padding=same(first)),
        nn.Conv2d(channels_out, channels_out, second, padding=same(second)),
    )


def _initialise(module: nn.Module) -> None:
    """Draw weights as the published code does: He et al. 2015 by fan-out, norms N(1, 0.02)."""
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
        nn.init.normal_(module.weight, 0.0, (2 / fan_out) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
