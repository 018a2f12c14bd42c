"""The critics of SegAN: features of an image and its maps at every scale.

Xue et al. 2018, section "Critic": the segmentor's encoder, judging the image multiplied by a
label map. SegAN-CAT (Giacomello et al. 2020) concatenates image and map instead. The authors'
code for BRATS has one critic for the products of all classes together.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as spectrally_normalised

from segan_ray.models.segmentor import LEAK, level_widths

CriticInput = Literal["product", "concat"]
CriticNorm = Literal["batch", "instance", "none"]


class CriticShape(TypedDict):
    """The arguments of a ``Critic`` beside its channels."""

    depth: int
    base_width: int
    norm: NotRequired[CriticNorm]
    spectral_norm: NotRequired[bool]


class Critic(nn.Module):
    """Return the features of an image and its maps at every scale.

    Args:
        channels: channels of the input.
        depth: strided convolutions; there are ``depth + 1`` scales.
        base_width: channels after the first convolution, doubled at each next.
        norm: the norm after every convolution but the first.
        spectral_norm: keep every convolution's largest singular value at 1 (Miyato et al. 2018).
    """

    def __init__(
        self,
        channels: int,
        *,
        depth: int,
        base_width: int,
        norm: CriticNorm = "batch",
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        widths = [channels, *level_widths(base_width, depth)]
        self.blocks = nn.ModuleList(
            _block(widths[level], widths[level + 1], norm if level else "none", spectral_norm)
            for level in range(depth)
        )

    def forward(self, masked: Float[Tensor, "batch channel height width"]) -> list[Tensor]:
        """Return the input itself and, for each block i, its features.

        The features have shape (batch, width, height / 2ⁱ, width / 2ⁱ).
        """
        scales = [masked]
        for block in self.blocks:
            scales.append(block(scales[-1]))
        return scales


class CriticBank(nn.Module):
    """One critic per region, sharing nothing.

    The critics run one after the other: a single network of grouped convolutions was slower on
    every measured shape (see docs/performance.md).
    """

    def __init__(
        self,
        channels: int,
        regions: int,
        *,
        takes: CriticInput = "product",
        **shape: Unpack[CriticShape],
    ) -> None:
        super().__init__()
        self.takes = takes
        self.critics = nn.ModuleList(
            Critic(channels if takes == "product" else channels + 1, **shape)
            for _ in range(regions)
        )

    def forward(
        self,
        image: Float[Tensor, "batch modality height width"],
        maps: Float[Tensor, "batch region height width"],
    ) -> list[list[Tensor]]:
        """Return, for each region, the features of image and map at every scale."""
        one_map = [maps[:, region : region + 1] for region in range(len(self.critics))]
        return [
            critic(image * each if self.takes == "product" else torch.cat([image, each], dim=1))
            for each, critic in zip(one_map, self.critics, strict=True)
        ]


class JointCritic(nn.Module):
    """One critic of all regions together."""

    def __init__(
        self,
        channels: int,
        regions: int,
        *,
        takes: CriticInput = "product",
        **shape: Unpack[CriticShape],
    ) -> None:
        super().__init__()
        self.takes = takes
        joined = channels * regions if takes == "product" else channels + regions
        self.critic = Critic(joined, **shape)

    def forward(
        self,
        image: Float[Tensor, "batch modality height width"],
        maps: Float[Tensor, "batch region height width"],
    ) -> list[list[Tensor]]:
        """Return the features of the image and all maps at every scale, as a list of one."""
        if self.takes == "concat":
            return [self.critic(torch.cat([image, maps], dim=1))]
        products = [image * maps[:, region : region + 1] for region in range(maps.shape[1])]
        return [self.critic(torch.cat(products, dim=1))]


def _block(channels_in: int, channels_out: int, norm: CriticNorm, spectral_norm: bool) -> nn.Module:
    convolution = nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1, bias=norm == "none")
    if spectral_norm:
        spectrally_normalised(convolution)
    layers: list[nn.Module] = [convolution]
    if norm == "batch":
        layers.append(nn.BatchNorm2d(channels_out))
    elif norm == "instance":
        # One channel a group is instance norm, which PyTorch's own class refuses on a 1×1 grid.
        layers.append(nn.GroupNorm(channels_out, channels_out))
    # Not in place: the loss reads every scale, so none may be overwritten.
    return nn.Sequential(*layers, nn.LeakyReLU(LEAK))
