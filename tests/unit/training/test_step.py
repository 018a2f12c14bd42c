from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from segan_ray.config import load_experiment
from segan_ray.models.build import build_segmentor
from segan_ray.models.critic import CriticBank
from segan_ray.models.segmentor import Segmentor, SegmentorBank
from segan_ray.training.losses import (
    concatenated_l1,
    cross_entropy,
    multi_scale_l1,
    soft_dice_loss,
)
from segan_ray.training.step import (
    FeatureDistance,
    MicroBatch,
    adversarial_step,
    segment,
    supervised_step,
)

WEIGHTS = (1.0, 2.0, 0.5)
DISTANCE = partial(multi_scale_l1, scale_weights=torch.tensor(WEIGHTS))


def dice(probability: Tensor, truth: Tensor) -> Tensor:
    return soft_dice_loss(probability, truth, smoothing=50.0).mean()


def dice_and_entropy(probability: Tensor, truth: Tensor) -> Tensor:
    return dice(probability, truth) + cross_entropy(probability, truth)


LOSS: dict[str, Any] = {"distance": DISTANCE, "map_loss": dice}
SGD = partial(torch.optim.SGD, lr=0.1)
RMSPROP = partial(torch.optim.RMSprop, lr=1e-3)


class Networks(NamedTuple):
    segmentor: nn.Module
    critic: nn.Module
    segmentor_optimizer: torch.optim.Optimizer
    critic_optimizer: torch.optim.Optimizer


def networks(optimizer: Callable[..., Any] = RMSPROP, *, spectral_norm: bool = False) -> Networks:
    torch.manual_seed(0)
    segmentor = Segmentor(4, 3, depth=2, base_width=4, concat_skips=True, full_resolution=True)
    critic = CriticBank(4, 3, depth=2, base_width=4, spectral_norm=spectral_norm)
    return Networks(
        segmentor, critic, optimizer(segmentor.parameters()), optimizer(critic.parameters())
    )


def slices(seed: int = 0, count: int = 3) -> MicroBatch:
    torch.manual_seed(seed)
    brain = (torch.rand(count, 1, 16, 16) > 0.3).float()
    return MicroBatch(
        torch.randn(count, 4, 16, 16) * brain,
        (torch.rand(count, 3, 16, 16) > 0.8).float() * brain,
        brain,
    )


def cut(batch: MicroBatch, *sizes: int) -> list[MicroBatch]:
    assert batch.brain is not None
    tensors = (batch.image.split(sizes), batch.truth.split(sizes), batch.brain.split(sizes))
    return [
        MicroBatch(image, truth, brain, len(image) / sum(sizes))
        for image, truth, brain in zip(*tensors, strict=True)
    ]


def freeze_norms(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def over_regions(
    distance: FeatureDistance, ours: Sequence[Sequence[Tensor]], truth: Sequence[Sequence[Tensor]]
) -> Tensor:
    return sum(distance(a, b) for a, b in zip(ours, truth, strict=True)) / len(ours)  # type: ignore[return-value]


def textbook_step(
    nets: Networks, batch: MicroBatch, distance: FeatureDistance = DISTANCE, critic_steps: int = 1
) -> None:
    """Algorithm 1 as the paper writes it: the segmentor runs forward in each phase."""
    image, truth, brain, _ = batch
    segmentor, critic, segmentor_optimizer, critic_optimizer = nets

    with torch.no_grad():
        fake = segmentor(image) * brain
    for _ in range(critic_steps):
        critic_optimizer.zero_grad()
        (-over_regions(distance, critic(image, fake), critic(image, truth))).backward()
        critic_optimizer.step()

    segmentor_optimizer.zero_grad()
    fake = segmentor(image) * brain
    loss = over_regions(distance, critic(image, fake), critic(image, truth))
    (loss + dice(fake, truth)).backward()
    segmentor_optimizer.step()


def assert_same(ours: nn.Module, theirs: nn.Module, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    expected = theirs.state_dict()
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=rtol, atol=atol, msg=name)


@pytest.mark.parametrize("optimizer", [RMSPROP, partial(torch.optim.AdamW, lr=1e-3), SGD])
@pytest.mark.parametrize("spectral_norm", [False, True])
@pytest.mark.parametrize("reduction", [multi_scale_l1, concatenated_l1])
@pytest.mark.parametrize("critic_steps", [1, 2])
def test_one_forward_gives_the_result_of_the_textbook_order(
    optimizer: Callable[..., Any],
    spectral_norm: bool,
    reduction: Callable[..., Tensor],
    critic_steps: int,
) -> None:
    """Parameters and the critic's buffers; the segmentor's buffers up to the double update.

    Of two updates by the same statistics the running ones keep (1 − m)², so a textbook whose
    momentum m gives the square of ours must arrive at our buffers.
    """
    distance = partial(reduction, scale_weights=torch.tensor(WEIGHTS))
    ours = networks(optimizer, spectral_norm=spectral_norm)
    theirs = networks(optimizer, spectral_norm=spectral_norm)
    for module in theirs.segmentor.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.momentum is not None
            module.momentum = 1 - math.sqrt(1 - module.momentum)
    for seed in range(5):
        adversarial_step(
            *ours, [slices(seed)], distance=distance, map_loss=dice, critic_steps=critic_steps
        )
        textbook_step(theirs, slices(seed), distance, critic_steps)
    assert_same(ours.critic, theirs.critic)
    for module in (*ours.segmentor.modules(), *theirs.segmentor.modules()):
        if isinstance(module, nn.BatchNorm2d):
            assert module.num_batches_tracked is not None
            module.num_batches_tracked.zero_()
    assert_same(ours.segmentor, theirs.segmentor)


def distance_now(nets: Networks, batch: MicroBatch) -> float:
    with torch.no_grad():
        fake = nets.segmentor(batch.image) * batch.brain
        return over_regions(
            DISTANCE, nets.critic(batch.image, fake), nets.critic(batch.image, batch.truth)
        ).item()


def test_the_critics_half_raises_the_distance_and_leaves_the_segmentor() -> None:
    nets, batch = networks(SGD), slices()
    nets.segmentor_optimizer.param_groups[0]["lr"] = 0.0
    before = {name: tensor.clone() for name, tensor in nets.segmentor.named_parameters()}
    first = distance_now(nets, batch)
    adversarial_step(*nets, [batch], **LOSS)
    assert distance_now(nets, batch) > first
    for name, parameter in nets.segmentor.named_parameters():
        assert torch.equal(parameter, before[name])


def test_the_segmentors_half_lowers_the_distance_and_leaves_the_critic() -> None:
    nets, batch = networks(SGD), slices()
    nets.critic_optimizer.param_groups[0]["lr"] = 0.0
    before = {name: tensor.clone() for name, tensor in nets.critic.named_parameters()}
    first = distance_now(nets, batch)
    for _ in range(3):
        adversarial_step(*nets, [batch], distance=DISTANCE, map_loss=None)
    assert distance_now(nets, batch) < first
    for name, parameter in nets.critic.named_parameters():
        assert torch.equal(parameter, before[name])


def test_the_segmentors_half_leaves_no_gradient_in_the_critic() -> None:
    nets, batch = networks(), slices()
    adversarial_step(*nets, [batch], **LOSS)
    assert all(parameter.requires_grad for parameter in nets.critic.parameters())
    # The critic's gradients are still those of its own half: repeat that half and compare.
    again = networks()
    fake = (again.segmentor(batch.image) * batch.brain).detach()
    (
        -over_regions(
            DISTANCE, again.critic(batch.image, fake), again.critic(batch.image, batch.truth)
        )
    ).backward()
    for actual, expected in zip(nets.critic.parameters(), again.critic.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad)


def test_the_truths_side_carries_no_gradient_in_the_segmentors_half() -> None:
    """The segmentor's half computes the critic's features of the truth without a graph."""
    nets = networks()
    modes: list[tuple[bool, bool]] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, Tensor]) -> None:
        frozen = not next(module.parameters()).requires_grad
        modes.append((frozen, torch.is_grad_enabled()))

    nets.critic.register_forward_pre_hook(watch)
    adversarial_step(*nets, [slices()], **LOSS)
    assert modes == [(False, True), (False, True), (True, True), (True, False)]


@pytest.mark.parametrize("sizes", [(3, 3), (4, 2), (1, 3, 2)])
def test_parts_of_a_batch_add_up_to_it(sizes: tuple[int, ...]) -> None:
    """Norm layers are frozen, since they see one part at a time."""
    whole, parts = networks(SGD), networks(SGD)
    for nets in (whole, parts):
        freeze_norms(nets.segmentor)
        freeze_norms(nets.critic)
    for seed in range(3):
        batch = slices(seed, count=6)
        expected = adversarial_step(*whole, [batch], **LOSS)
        actual = adversarial_step(*parts, cut(batch, *sizes), **LOSS)
        torch.testing.assert_close(actual, expected)
    assert_same(parts.segmentor, whole.segmentor)
    assert_same(parts.critic, whole.critic)


def test_pairs_side_by_side_are_pairs_trained_alone() -> None:
    """S1-1C: a pair becomes what it would become without the others, on its own region."""
    torch.manual_seed(0)
    segmentors = SegmentorBank(
        Segmentor(4, 1, depth=2, base_width=4, concat_skips=False, full_resolution=False)
        for _ in range(3)
    )
    critics = CriticBank(4, 3, depth=2, base_width=4)
    alone = []
    for region in range(3):
        segmentor = copy.deepcopy(segmentors.segmentors[region])
        critic = CriticBank(4, 1, depth=2, base_width=4)
        critic.critics[0] = copy.deepcopy(critics.critics[region])
        alone.append(
            Networks(segmentor, critic, SGD(segmentor.parameters()), SGD(critic.parameters()))
        )
    together = Networks(
        segmentors, critics, SGD(segmentors.parameters()), SGD(critics.parameters())
    )
    for seed in range(3):
        batch = slices(seed)
        adversarial_step(*together, [batch], **LOSS, pairs=3)
        for region, nets in enumerate(alone):
            own = batch._replace(truth=batch.truth[:, region : region + 1])
            adversarial_step(*nets, [own], **LOSS)
    for region, nets in enumerate(alone):
        assert_same(nets.segmentor, segmentors.segmentors[region])
        assert_same(nets.critic.critics[0], critics.critics[region])


def test_the_clamp_bounds_every_weight_of_the_critic() -> None:
    nets = networks()
    adversarial_step(*nets, [slices()], **LOSS, clamp=0.01, critic_steps=2)
    assert max(parameter.abs().max() for parameter in nets.critic.parameters()) <= 0.01


def test_spectral_norm_holds_every_convolution_at_one() -> None:
    nets = networks(SGD, spectral_norm=True)
    for seed in range(5):
        adversarial_step(*nets, [slices(seed)], **LOSS)
    for critic in nets.critic.critics:
        for block in critic.blocks:
            with torch.no_grad():
                for _ in range(30):
                    block[0].weight  # noqa: B018 each look is one more power iteration
                largest = torch.linalg.matrix_norm(block[0].weight.flatten(1), ord=2)
            assert largest.item() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("masked", [True, False])
def test_outside_the_brain_the_map_is_confined_or_free(masked: bool) -> None:
    """A confined map is 0 outside the brain, so it misses a truth there completely."""
    batch = slices()
    assert batch.brain is not None
    outside = batch._replace(truth=batch.truth + (1 - batch.brain))
    used = [part if masked else part._replace(brain=None) for part in (batch, outside)]
    losses = [adversarial_step(*networks(), [part], **LOSS).segmentor for part in used]
    assert not torch.isclose(losses[0], losses[1])
    assert torch.isfinite(torch.stack(losses)).all()


def test_gradients_of_both_networks_are_averaged_before_they_are_used() -> None:
    nets = networks(SGD)
    seen: list[int] = []

    def average(gradients: Sequence[Tensor]) -> None:
        seen.append(sum(gradient.numel() for gradient in gradients))
        for gradient in gradients:
            gradient.zero_()

    before = copy.deepcopy((nets.segmentor, nets.critic))
    adversarial_step(*nets, [slices()], **LOSS, average=average)
    sizes = [sum(p.numel() for p in network.parameters()) for network in before[::-1]]
    assert seen == sizes
    for one, two in zip(before, (nets.segmentor, nets.critic), strict=True):
        for old, new in zip(one.parameters(), two.parameters(), strict=True):
            assert torch.equal(old, new)


def test_the_baseline_learns_a_batch() -> None:
    nets = networks(partial(torch.optim.Adam, lr=1e-2))
    losses = [
        supervised_step(
            nets.segmentor,
            nets.segmentor_optimizer,
            [slices()],
            map_loss=dice_and_entropy,
        ).segmentor.item()
        for _ in range(15)
    ]
    assert losses[-1] < losses[0]


def test_the_distance_counts_by_its_weight() -> None:
    """A weight of 0 is the update without critic; the adversarial part is told by itself."""
    parts = [slices()]
    none, half, whole = networks(), networks(), networks()
    without = supervised_step(none.segmentor, none.segmentor_optimizer, parts, map_loss=dice)
    lost = [
        adversarial_step(*nets, parts, **LOSS, distance_weight=weight)
        for nets, weight in ((half, 0.5), (whole, 1.0))
    ]
    torch.testing.assert_close(lost[1].adversarial, 2 * lost[0].adversarial)
    for losses in lost:
        torch.testing.assert_close(losses.segmentor - losses.adversarial, without.segmentor)
    assert without.adversarial == 0


def test_clamping_may_spare_the_norms() -> None:
    nets = networks()
    adversarial_step(*nets, [slices()], **LOSS, clamp=0.01, clamp_norm=False)
    for critic in nets.critic.critics:
        assert critic.blocks[1][0].weight.abs().max() <= 0.01
        assert critic.blocks[1][1].weight.min() > 0.9


@pytest.mark.parametrize("variant", ["s1-3c", "s3-3c", "unet"])
def test_half_precision_gives_nearly_the_same_maps_in_single_precision(variant: str) -> None:
    experiment = load_experiment(None, ["segmentor.base_width=4", f"variant={variant}"])
    torch.manual_seed(0)
    network = build_segmentor(experiment)
    whole, half = (
        segment(network, slices(), precision=each) for each in (torch.float32, torch.bfloat16)
    )
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, whole, atol=0.05, rtol=0.05)
    assert not torch.equal(half, whole)
