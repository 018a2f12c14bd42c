"""The critic C of SegAN: features of a masked image at every scale.

Xue et al. 2018, section "Critic". Variant S1-3C has one critic per region; here they are one
module whose convolutions are grouped by region, which computes exactly the three separate
networks (no weight or statistic is shared between groups) in a third of the calls.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from segan_ray.models.segmentor import LEAK


class CriticBank(nn.Module):
    """One critic per region, side by side.

    Args:
        channels: modalities of the image.
        regions: number of critics.
        depth: strided convolutions of each critic; it returns ``depth + 1`` scales.
        base_width: channels of each critic after its first convolution, doubled at each next.
    """

    def __init__(self, channels: int, regions: int, *, depth: int, base_width: int) -> None:
        super().__init__()
        widths = [channels, *(base_width * 2**level for level in range(depth))]
        self.blocks = nn.ModuleList(
            _block(widths[level], widths[level + 1], groups=regions, norm=level > 0)
            for level in range(depth)
        )

    def forward(
        self,
        image: Float[Tensor, "batch modality height width"],
        maps: Float[Tensor, "batch region height width"],
    ) -> list[Tensor]:
        """Return the features of ``image ∘ maps`` at every scale, the masked image first.

        Each has shape (batch, region × features, height / 2ⁱ, width / 2ⁱ); the channels of
        one region stand together.
        """
        features = mask_image(image, maps)
        scales = [features]
        for block in self.blocks:
            features = block(features)
            scales.append(features)
        return scales


def mask_image(
    image: Float[Tensor, "batch modality height width"],
    maps: Float[Tensor, "batch region height width"],
) -> Float[Tensor, "batch region*modality height width"]:
    """Return every modality multiplied by each region's map (``x ∘ y`` of the paper)."""
    return (maps[:, :, None] * image[:, None]).flatten(1, 2)


def _block(channels_in: int, channels_out: int, *, groups: int, norm: bool) -> nn.Sequential:
    convolution = nn.Conv2d(
        groups * channels_in,
        groups * channels_out,
        4,
        stride=2,
        padding=1,
        groups=groups,
        bias=not norm,
    )
    layers: list[nn.Module] = [convolution]
    if norm:
        layers.append(nn.BatchNorm2d(groups * channels_out))
    # Not in place: the loss reads every scale, so none may be overwritten.
    return nn.Sequential(*layers, nn.LeakyReLU(LEAK))
