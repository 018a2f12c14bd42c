from __future__ import annotations

import pytest
import torch

from segan_ray.config import load_experiment
from segan_ray.models.build import build_critic, build_segmentor, halvings
from segan_ray.models.critic import CriticBank, mask_image
from segan_ray.models.segmentor import Segmentor


@pytest.mark.parametrize("depth", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("skip", ["add", "concat"])
def test_the_segmentor_keeps_the_grid(depth: int, skip: str) -> None:
    network = Segmentor(4, 3, depth=depth, base_width=4, concat_skips=skip == "concat")
    side = 2**depth
    maps = network(torch.randn(2, 4, side, 2 * side))
    assert maps.shape == (2, 3, side, 2 * side)
    assert ((maps >= 0) & (maps <= 1)).all()


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6])
def test_the_critic_returns_every_scale(depth: int) -> None:
    critic = CriticBank(4, 3, depth=depth, base_width=2)
    image, maps = torch.randn(2, 4, 64, 64), torch.rand(2, 3, 64, 64)
    scales = critic(image, maps)
    assert len(scales) == depth + 1
    assert torch.equal(scales[0], mask_image(image, maps))
    for level, features in enumerate(scales[1:], start=1):
        assert features.shape == (2, 3 * 2 * 2 ** (level - 1), 64 >> level, 64 >> level)


def test_every_modality_is_multiplied_by_each_regions_map() -> None:
    image = torch.arange(2.0).view(1, 2, 1, 1) + 1
    maps = torch.tensor([3.0, 5.0, 7.0]).view(1, 3, 1, 1)
    assert mask_image(image, maps).flatten().tolist() == [3, 6, 5, 10, 7, 14]


def test_a_bank_is_as_many_critics_that_share_nothing() -> None:
    """The features of one region are those of a critic of its own, in value and gradient."""
    torch.manual_seed(0)
    bank, single = CriticBank(4, 3, depth=2, base_width=4), CriticBank(4, 1, depth=2, base_width=4)
    for region in range(3):
        weights = {
            name: tensor.chunk(3)[region] if tensor.dim() else tensor
            for name, tensor in bank.state_dict().items()
        }
        single.load_state_dict(weights)
        image, maps = torch.randn(2, 4, 16, 16), torch.rand(2, 3, 16, 16)
        for joined, alone in zip(
            bank(image, maps), single(image, maps[:, region : region + 1]), strict=True
        ):
            torch.testing.assert_close(joined.chunk(3, dim=1)[region], alone)


def test_variants_are_built_as_asked() -> None:
    segan = load_experiment(None, ["segmentor.depth=3", "critic.depth=5", "segmentor.base_width=4"])
    assert isinstance(build_segmentor(segan), Segmentor)
    assert isinstance(build_critic(segan), CriticBank)
    assert halvings(segan) == 5
    unet = load_experiment(None, ["variant=unet", "segmentor.depth=3", "segmentor.base_width=4"])
    assert build_critic(unet) is None
    assert halvings(unet) == 3
    maps = build_segmentor(unet)(torch.randn(1, 4, 16, 16))
    assert maps.shape == (1, 3, 16, 16)
    assert ((maps >= 0) & (maps <= 1)).all()
