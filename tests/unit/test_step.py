from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import NamedTuple

import pytest
import torch
from torch import nn

from segan_ray.models.critic import CriticBank
from segan_ray.models.segmentor import Segmentor
from segan_ray.training.losses import multi_scale_l1, soft_dice_loss
from segan_ray.training.step import adversarial_step, supervised_step

WEIGHTS = (1.0, 2.0, 0.5)
LOSS = {"scale_weights": WEIGHTS, "dice_weight": 1.0, "dice_smoothing": 50.0, "clamp": None}


class Setup(NamedTuple):
    segmentor: nn.Module
    critic: nn.Module
    segmentor_optimizer: torch.optim.Optimizer
    critic_optimizer: torch.optim.Optimizer


class Slices(NamedTuple):
    image: torch.Tensor
    truth: torch.Tensor
    brain: torch.Tensor


def setup(optimizer=torch.optim.RMSprop, lr: float = 1e-3) -> Setup:
    torch.manual_seed(0)
    segmentor = Segmentor(4, 3, depth=2, base_width=4, concat_skips=True)
    critic = CriticBank(4, 3, depth=2, base_width=4)
    return Setup(
        segmentor,
        critic,
        optimizer(segmentor.parameters(), lr=lr),
        optimizer(critic.parameters(), lr=lr),
    )


def slices(seed: int = 0) -> Slices:
    torch.manual_seed(seed)
    brain = (torch.rand(3, 1, 16, 16) > 0.3).float()
    return Slices(
        torch.randn(3, 4, 16, 16) * brain,
        (torch.rand(3, 3, 16, 16) > 0.8).float() * brain,
        brain,
    )


def textbook_step(networks: Setup, batch: Slices) -> None:
    """Algorithm 1 as the paper writes it: the segmentor runs forward in each phase."""
    image, truth, brain = batch
    segmentor, critic, segmentor_optimizer, critic_optimizer = networks

    critic_optimizer.zero_grad()
    with torch.no_grad():
        fake = segmentor(image) * brain
    distance = multi_scale_l1(critic(image, fake), critic(image, truth), scale_weights=WEIGHTS)
    (-distance).backward()
    critic_optimizer.step()

    segmentor_optimizer.zero_grad()
    fake = segmentor(image) * brain
    loss = multi_scale_l1(critic(image, fake), critic(image, truth), scale_weights=WEIGHTS)
    loss = loss + soft_dice_loss(fake, truth, smoothing=50)
    loss.backward()
    segmentor_optimizer.step()


def test_one_forward_gives_the_parameters_of_the_textbook_order() -> None:
    ours, theirs = setup(), setup()
    for seed in range(5):
        adversarial_step(*ours, *slices(seed), **LOSS)
        textbook_step(theirs, slices(seed))
    for network, reference in ((ours.segmentor, theirs.segmentor), (ours.critic, theirs.critic)):
        for one, two in zip(network.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def distance(networks: Setup, batch: Slices) -> float:
    with torch.no_grad():
        fake = networks.segmentor(batch.image) * batch.brain
        return multi_scale_l1(
            networks.critic(batch.image, fake),
            networks.critic(batch.image, batch.truth),
            scale_weights=WEIGHTS,
        ).item()


def test_the_critics_half_raises_the_distance() -> None:
    networks = setup(lambda parameters, lr: torch.optim.SGD(parameters, lr=0.1))
    batch = slices()
    for group in networks.segmentor_optimizer.param_groups:
        group["lr"] = 0.0
    before = copy.deepcopy(networks.segmentor.state_dict())
    first = distance(networks, batch)
    adversarial_step(*networks, *batch, **LOSS)
    assert distance(networks, batch) > first
    for name, parameter in networks.segmentor.named_parameters():
        assert torch.equal(parameter, before[name])


def test_the_segmentors_half_lowers_it() -> None:
    networks = setup(lambda parameters, lr: torch.optim.SGD(parameters, lr=0.1))
    batch = slices()
    for group in networks.critic_optimizer.param_groups:
        group["lr"] = 0.0
    before = {name: tensor.clone() for name, tensor in networks.critic.named_parameters()}
    first = distance(networks, batch)
    for _ in range(3):
        adversarial_step(*networks, *batch, **{**LOSS, "dice_weight": 0.0})
    assert distance(networks, batch) < first
    for name, parameter in networks.critic.named_parameters():
        assert torch.equal(parameter, before[name])


def test_the_segmentors_half_leaves_no_gradient_in_the_critic() -> None:
    networks = setup()
    adversarial_step(*networks, *slices(), **LOSS)
    own = [parameter.grad.clone() for parameter in networks.critic.parameters()]
    assert all(parameter.requires_grad for parameter in networks.critic.parameters())
    # The gradients that stand are those of the critic's own half: redo it and compare.
    again = setup()
    fake = (again.segmentor(slices().image) * slices().brain).detach()
    image, truth, _ = slices()
    (-multi_scale_l1(
        again.critic(image, fake), again.critic(image, truth), scale_weights=WEIGHTS
    )).backward()  # fmt: skip
    for found, parameter in zip(own, again.critic.parameters(), strict=True):
        torch.testing.assert_close(found, parameter.grad)


def test_the_clamp_bounds_every_weight_of_the_critic() -> None:
    networks = setup()
    adversarial_step(*networks, *slices(), **{**LOSS, "clamp": 0.01})
    assert max(parameter.abs().max() for parameter in networks.critic.parameters()) <= 0.01


@pytest.mark.parametrize("masked", [True, False])
def test_outside_the_brain_the_map_is_confined_or_free(masked: bool) -> None:
    """Confined, what the segmentor says there costs nothing: gradients do not see it."""
    networks = setup()
    image, truth, brain = slices()
    outside = truth + (1 - brain)
    losses = [
        adversarial_step(*setup(), image, target, brain if masked else None, **LOSS).segmentor
        for target in (truth, outside)
    ]
    assert networks.segmentor is not None
    assert not torch.isclose(losses[0], losses[1])
    clean = adversarial_step(*setup(), image, truth, brain if masked else None, **LOSS)
    assert torch.isfinite(torch.stack(clean)).all()


def test_gradients_pass_through_the_averager() -> None:
    networks = setup()
    seen: list[int] = []

    def average(parameters: Iterable[nn.Parameter]) -> None:
        seen.append(sum(parameter.numel() for parameter in parameters))

    adversarial_step(*networks, *slices(), **LOSS, average_gradients=average)
    sizes = [
        sum(parameter.numel() for parameter in network.parameters())
        for network in (networks.critic, networks.segmentor)
    ]
    assert seen == sizes


def test_the_baseline_learns_a_batch() -> None:
    networks = setup(torch.optim.Adam, lr=1e-2)
    losses = [
        supervised_step(
            networks.segmentor, networks.segmentor_optimizer, *slices(), dice_smoothing=50.0
        ).segmentor.item()
        for _ in range(15)
    ]
    assert losses[-1] < losses[0]
