"""One adversarial iteration: raise the critic's multi-scale distance, then lower it.

Algorithm 1 of Xue et al. 2018. The segmentor runs forward once: its map is detached for the
critic's update and used with its graph for its own, since S has not changed in between. This
gives the parameters of the textbook order with two forwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from segan_ray.training.losses import dice_cross_entropy, multi_scale_l1, soft_dice_loss

AverageGradients = Callable[[Iterable[nn.Parameter]], None]
"""Averages gradients over the workers of a group, in place; the identity when alone."""


class StepLosses(NamedTuple):
    """The two losses of one iteration, detached. ``critic`` is the distance it raises."""

    critic: Float[Tensor, ""]
    segmentor: Float[Tensor, ""]


def keep_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Leave gradients as they are: the ``AverageGradients`` of a single process."""


def adversarial_step(
    segmentor: nn.Module,
    critic: nn.Module,
    segmentor_optimizer: Optimizer,
    critic_optimizer: Optimizer,
    image: Float[Tensor, "batch modality height width"],
    truth: Float[Tensor, "batch region height width"],
    brain: Float[Tensor, "batch 1 height width"] | None,
    *,
    scale_weights: Sequence[float],
    dice_weight: float,
    dice_smoothing: float,
    clamp: float | None,
    average_gradients: AverageGradients = keep_gradients,
) -> StepLosses:
    """Update the critic once, then the segmentor once, on one batch.

    ``brain`` confines the maps to where the product with the image can see (None: nowhere
    confined, the paper's letter). ``clamp`` bounds the critic's weights after its update.
    """
    probability = segmentor(image) if brain is None else segmentor(image) * brain

    # The critic ascends the distance; the segmentor's map is a constant to it.
    distance = multi_scale_l1(
        critic(image, probability.detach()), critic(image, truth), scale_weights=scale_weights
    )
    critic_optimizer.zero_grad(set_to_none=True)
    (-distance).backward()
    average_gradients(critic.parameters())
    critic_optimizer.step()
    if clamp is not None:
        clamp_weights(critic, clamp)

    # The segmentor descends it; the critic is a constant here, and so is the truth's side.
    critic.requires_grad_(False)
    with torch.no_grad():
        true_features = critic(image, truth)
    loss = multi_scale_l1(critic(image, probability), true_features, scale_weights=scale_weights)
    if dice_weight:
        loss = loss + dice_weight * soft_dice_loss(probability, truth, smoothing=dice_smoothing)
    segmentor_optimizer.zero_grad(set_to_none=True)
    loss.backward()
    average_gradients(segmentor.parameters())
    segmentor_optimizer.step()
    critic.requires_grad_(True)

    return StepLosses(distance.detach(), loss.detach())


def supervised_step(
    segmentor: nn.Module,
    optimizer: Optimizer,
    image: Float[Tensor, "batch modality height width"],
    truth: Float[Tensor, "batch region height width"],
    brain: Float[Tensor, "batch 1 height width"] | None,
    *,
    dice_smoothing: float,
    average_gradients: AverageGradients = keep_gradients,
) -> StepLosses:
    """Update a baseline without critic once on one batch, by Dice plus cross-entropy."""
    probability = segmentor(image) if brain is None else segmentor(image) * brain
    loss = dice_cross_entropy(probability, truth, smoothing=dice_smoothing)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    average_gradients(segmentor.parameters())
    optimizer.step()
    return StepLosses(loss.new_zeros(()), loss.detach())


@torch.no_grad()
def clamp_weights(network: nn.Module, bound: float) -> None:
    """Clamp every parameter of ``network`` to ±``bound`` (the authors' published code)."""
    for parameter in network.parameters():
        parameter.clamp_(-bound, bound)
