from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from segan_ray.config import Experiment, SegmentorSettings, load_experiment
from segan_ray.errors import ConfigError
from segan_ray.models.authors import AuthorsSegmentor
from segan_ray.models.build import (
    build_critic,
    build_segmentor,
    downsampling_levels,
)
from segan_ray.models.critic import CriticBank
from segan_ray.models.numerics import choose_precision
from segan_ray.models.segmentor import Segmentor, double_by_neighbours

SMALL = ["segmentor.base_width=4", "critic.base_width=4", "segmentor.depth=2", "critic.depth=2"]


def parameters(network: nn.Module | None) -> int:
    assert network is not None
    return sum(parameter.numel() for parameter in network.parameters())


NETWORKS = [
    *(
        f"segmentor.network=segan segmentor.skip={skip} segmentor.full_resolution={full}"
        for skip in ("add", "concat")
        for full in ("true", "false")
    ),
    *(f"segmentor.network=authors segmentor.authors={which}" for which in ("brain", "skin")),
    *(f"segmentor.network={network}" for network in ("unet", "residual-unet", "segresnet")),
]


@pytest.mark.parametrize("depth", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("variant", ["s1-3c", "s3-3c"])
def test_every_segmentor_keeps_the_grid(depth: int, network: str, variant: str) -> None:
    settings = [f"variant={variant}", f"segmentor.depth={depth}", "segmentor.base_width=2"]
    experiment = load_experiment(None, [*settings, *network.split(), "critic.kind=none"])
    side = 2 ** downsampling_levels(experiment)
    network = build_segmentor(experiment)
    maps = network(torch.randn(2, 4, side, 2 * side))
    assert maps.shape == (2, 3, side, 2 * side)
    assert ((maps >= 0) & (maps <= 1)).all()


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_the_critic_returns_every_scale_of_every_region(depth: int, spectral_norm: bool) -> None:
    critic = CriticBank(4, 3, depth=depth, base_width=2, spectral_norm=spectral_norm)
    image, maps = torch.randn(2, 4, 64, 64), torch.rand(2, 3, 64, 64)
    regions = critic(image, maps)
    assert len(regions) == 3
    for region, scales in enumerate(regions):
        assert len(scales) == depth + 1
        assert torch.equal(scales[0], image * maps[:, region : region + 1])
        for level, features in enumerate(scales[1:], start=1):
            width = 2 * min(2 ** (level - 1), 8)
            assert features.shape == (2, width, 64 >> level, 64 >> level)


@pytest.mark.parametrize("kind", ["per-region", "joint"])
@pytest.mark.parametrize("takes", ["product", "concat"])
@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_a_critic_sees_image_and_maps(kind: str, takes: str, norm: str) -> None:
    settings = [f"critic.kind={kind}", f"critic.input={takes}", f"critic.norm={norm}"]
    experiment = load_experiment(None, [*SMALL, *settings])
    critic = build_critic(experiment)
    assert critic is not None
    image, maps = torch.randn(2, 4, 8, 8), torch.rand(2, 3, 8, 8)
    seen = [scales[0] for scales in critic(image, maps)]
    of_regions = maps.split(1, dim=1)
    expected = {
        ("per-region", "product"): [image * each for each in of_regions],
        ("per-region", "concat"): [torch.cat([image, each], 1) for each in of_regions],
        ("joint", "product"): [torch.cat([image * each for each in of_regions], 1)],
        ("joint", "concat"): [torch.cat([image, maps], 1)],
    }[kind, takes]
    assert len(seen) == len(expected)
    assert all(torch.equal(ours, truth) for ours, truth in zip(seen, expected, strict=True))
    norms = {"batch": nn.BatchNorm2d, "instance": nn.GroupNorm, "none": ()}[norm]
    count = sum(isinstance(module, norms) for module in critic.modules())
    assert count == (0 if norm == "none" else len(seen))


def test_instance_norm_is_that_of_each_channel() -> None:
    critic = build_critic(load_experiment(None, [*SMALL, "critic.norm=instance"]))
    assert isinstance(critic, CriticBank)
    norm = critic.critics[0].blocks[1][1]
    features = torch.randn(3, 8, 4, 4)
    torch.testing.assert_close(norm(features), functional.instance_norm(features))


def test_a_region_is_judged_by_its_own_critic_alone() -> None:
    critic = CriticBank(4, 3, depth=2, base_width=4)
    image, maps = torch.randn(2, 4, 16, 16), torch.rand(2, 3, 16, 16, requires_grad=True)
    critic(image, maps)[1][-1].sum().backward()
    assert maps.grad is not None
    assert [bool(gradient.any()) for gradient in maps.grad.unbind(1)] == [False, True, False]
    for region, own in enumerate(critic.critics):
        assert any(p.grad is not None for p in own.parameters()) == (region == 1)


def test_the_papers_networks_have_the_papers_sizes() -> None:
    """Four blocks of 64, 128, 256, 512 maps and back; a critic of 64, 128, 256.

    By hand, for four modalities and three maps: 4×4 kernels down (a bias on the first, two
    parameters a map of batch norm on the others), 3×3 up, skips doubling the input of all but
    the deepest, a bias on the last.
    """
    paper = load_experiment(None, preset="paper")
    down = (4 * 64 * 16 + 64) + (64 * 128 * 16 + 2 * 128) + (128 * 256 * 16 + 2 * 256)
    deepest = 256 * 512 * 16 + 2 * 512
    up = (512 * 256 * 9 + 2 * 256) + (2 * 256 * 128 * 9 + 2 * 128) + (2 * 128 * 64 * 9 + 2 * 64)
    head = 2 * 64 * 3 * 9 + 3
    assert parameters(build_segmentor(paper)) == down + deepest + up + head == 4_679_747
    assert parameters(build_critic(paper)) == 3 * down == 1_980_864

    shapes: list[tuple[int, ...]] = []
    segmentor = build_segmentor(paper).eval()
    assert isinstance(segmentor, Segmentor)
    for block in (*segmentor.down, *segmentor.up, segmentor.head):
        block.register_forward_hook(lambda module, given, output: shapes.append(output.shape[1:]))
    with torch.no_grad():
        segmentor(torch.zeros(1, 4, 160, 160))
    assert shapes == [
        (64, 80, 80), (128, 40, 40), (256, 20, 20), (512, 10, 10),
        (256, 20, 20), (128, 40, 40), (64, 80, 80), (3, 160, 160),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("variant", "segmentors", "critics"), [("s1-3c", 1, 3), ("s3-3c", 3, 3), ("s1-1c", 3, 3)]
)
def test_variants_have_as_many_networks_as_they_say(
    variant: str, segmentors: int, critics: int
) -> None:
    experiment = load_experiment(None, [*SMALL, f"variant={variant}", "segmentor.network=segan"])
    outputs = 3 // segmentors
    one = Segmentor(4, outputs, depth=2, base_width=4, concat_skips=True, full_resolution=True)
    assert parameters(build_segmentor(experiment)) == segmentors * parameters(one)
    critic = build_critic(experiment)
    assert isinstance(critic, CriticBank)
    assert len(critic.critics) == critics


@pytest.mark.parametrize(("published", "levels"), [("brain", 6), ("skin", 7)])
def test_the_authors_networks_have_their_levels(published: str, levels: int) -> None:
    """Levels, widths and kernels of the published code, at its width of 64."""
    experiment = load_experiment(
        None,
        ["segmentor.network=authors", f"segmentor.authors={published}", "segmentor.base_width=64"],
    )
    assert downsampling_levels(experiment) == levels
    with torch.device("meta"):
        network = build_segmentor(experiment)
    assert isinstance(network, AuthorsSegmentor)
    down = [(block[0].kernel_size[0], block[0].out_channels) for block in network.down]
    assert (
        down
        == {
            "brain": [(7, 64), (5, 128), (5, 256), (5, 512), (5, 1024), (4, 2048)],
            "skin": [(7, 64), (5, 128), (5, 256), (5, 512), (5, 512), (4, 1024), (3, 2048)],
        }[published]
    )
    up = [block[2].num_features for block in network.up]
    assert (
        up
        == {
            "brain": [1024, 512, 256, 128, 64],
            "skin": [1024, 512, 512, 256, 128, 64],
        }[published]
    )
    # The first convolution has no batch norm, nor has a residual block.
    assert not any(isinstance(each, nn.BatchNorm2d) for each in network.down[0].modules())


def test_the_authors_networks_are_initialised_as_published() -> None:
    torch.manual_seed(0)
    network = build_segmentor(load_experiment(None, ["segmentor.network=authors"]))
    assert isinstance(network, AuthorsSegmentor)
    first, norm = network.down[1][0], network.down[4][1]
    assert first.weight.std().item() == pytest.approx((2 / (25 * 32)) ** 0.5, rel=0.05)
    assert norm.weight.mean().item() == pytest.approx(1, abs=0.01)
    assert norm.weight.std().item() == pytest.approx(0.02, rel=0.2)
    assert not norm.bias.any()


def test_unet_is_short_for_a_network_without_critic() -> None:
    short = load_experiment(None, ["variant=unet"])
    assert (short.segmentor.network, short.critic.kind) == ("unet", "none")
    assert short.loss.ce_weight == 1
    assert load_experiment(None, ["variant=unet", "loss.ce_weight=0.5"]).loss.ce_weight == 0.5
    assert load_experiment(None, ["variant=unet", "segmentor.network=unet"]) == short
    assert Experiment.model_validate(short.model_dump()) == short
    assert Experiment(variant="unet", segmentor=SegmentorSettings(lr=0.1)).segmentor == (
        SegmentorSettings(lr=0.1, network="unet")
    )
    for other in ("segmentor.network=segresnet", "critic.kind=joint"):
        with pytest.raises(ConfigError, match=r"short for segmentor\.network unet"):
            load_experiment(None, ["variant=unet", other])


def test_unet_has_no_critic() -> None:
    unet = load_experiment(None, ["variant=unet", "segmentor.depth=3", "segmentor.base_width=4"])
    assert build_critic(unet) is None
    assert downsampling_levels(unet) == 3
    maps = build_segmentor(unet)(torch.randn(1, 4, 16, 16))
    assert maps.shape == (1, 3, 16, 16)
    assert ((maps >= 0) & (maps <= 1)).all()


def test_the_deeper_network_sets_the_crops_unit() -> None:
    assert downsampling_levels(load_experiment(None, ["segmentor.depth=3", "critic.depth=5"])) == 5


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 2, 5, 8), (2, 4, 16, 16)])
def test_doubling_by_neighbours_is_bilinear_resizing(shape: tuple[int, ...]) -> None:
    """CUDA uses it for its repeatable gradient, with the result of the other devices."""
    torch.manual_seed(0)
    image = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    ours = double_by_neighbours(image)
    library = functional.interpolate(image, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(ours, library)
    weight = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad((ours * weight).sum(), image),
        torch.autograd.grad((library * weight).sum(), image),
    )


def test_the_precision_is_chosen_or_set() -> None:
    cpu = torch.device("cpu")
    for precision in ("float32", "bfloat16"):
        asked = load_experiment(None, [f"training.precision={precision}"])
        assert choose_precision(asked.training, cpu) == getattr(torch, precision)
    able = torch.cpu.get_capabilities()
    fast = able.get("avx512_bf16") or able.get("amx_bf16")
    expected = torch.bfloat16 if fast else torch.float32
    assert choose_precision(Experiment().training, cpu) == expected
