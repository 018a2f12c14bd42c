"""The critic C of SegAN: features of a masked image at every scale.

Xue et al. 2018, section "Critic": the segmentor's encoder, judging the image multiplied by a
label map.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as spectrally_normalised

from segan_ray.models.segmentor import LEAK, level_widths


class Critic(nn.Module):
    """Return the features of one region's masked image at every scale.

    Args:
        channels: modalities of the image.
        depth: strided convolutions; there are ``depth + 1`` scales.
        base_width: channels after the first convolution, doubled at each next.
        spectral_norm: keep every convolution's largest singular value at 1 (Miyato et al. 2018).
    """

    def __init__(self, channels: int, *, depth: int, base_width: int, spectral_norm: bool) -> None:
        super().__init__()
        widths = [channels, *level_widths(base_width, depth)]
        self.blocks = nn.ModuleList(
            _block(widths[level], widths[level + 1], level > 0, spectral_norm)
            for level in range(depth)
        )

    def forward(self, masked: Float[Tensor, "batch modality height width"]) -> list[Tensor]:
        """Return the masked image itself and, for each block i, its features.

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
        depth: int,
        base_width: int,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.critics = nn.ModuleList(
            Critic(channels, depth=depth, base_width=base_width, spectral_norm=spectral_norm)
            for _ in range(regions)
        )

    def forward(
        self,
        image: Float[Tensor, "batch modality height width"],
        maps: Float[Tensor, "batch region height width"],
    ) -> list[list[Tensor]]:
        """Return, for each region, the features of ``image ∘ map`` at every scale."""
        return [
            critic(image * maps[:, region : region + 1])
            for region, critic in enumerate(self.critics)
        ]


def _block(channels_in: int, channels_out: int, norm: bool, spectral_norm: bool) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, 4, stride=2, padding=1, bias=not norm)
    if spectral_norm:
        spectrally_normalised(convolution)
    layers: list[nn.Module] = [convolution]
    if norm:
        layers.append(nn.BatchNorm2d(channels_out))
    # Not in place: the loss reads every scale, so none may be overwritten.
    return nn.Sequential(*layers, nn.LeakyReLU(LEAK))
