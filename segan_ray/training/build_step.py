"""The update that an experiment's settings select: its step, losses and constraint."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from segan_ray.brats import REGIONS
from segan_ray.config import Experiment, LossSettings
from segan_ray.training.losses import (
    concatenated_l1,
    cross_entropy,
    multi_scale_l1,
    single_scale_l1,
    soft_dice_loss,
    weighted_mean,
)
from segan_ray.training.state import TrainingState
from segan_ray.training.step import (
    Average,
    FeatureDistance,
    MapLoss,
    MicroBatch,
    StepLosses,
    adversarial_step,
    supervised_step,
)

Step = Callable[[TrainingState, list[MicroBatch], Average], StepLosses]
"""Updates every network of a state once on one batch, given in parts."""


def make_step(experiment: Experiment) -> Step:
    """Return the update that the experiment's critic and losses make.

    Until the epoch ``adversarial_from`` the critic stays as it is.
    """
    loss = experiment.loss
    supervised = _supervised(experiment)
    if experiment.critic.kind == "none" or not loss.adversarial_weight:
        return supervised
    adversarial = _adversarial(experiment)

    def update(state: TrainingState, parts: list[MicroBatch], average: Average) -> StepLosses:
        weight = adversarial_weight(loss, state.epoch + 1)
        return (adversarial if weight else supervised)(state, parts, average)

    return update


def adversarial_weight(loss: LossSettings, epoch: int) -> float:
    """Return the weight of the multi-scale loss in ``epoch``, which counts from 1.

    It is 0 before ``adversarial_from``, rises by equal steps in the ``adversarial_ramp`` epochs
    from there on, and then stays.
    """
    since = epoch - loss.adversarial_from + 1
    if since <= 0:
        return 0.0
    return loss.adversarial_weight * min(1.0, since / (loss.adversarial_ramp + 1))


def feature_distance(experiment: Experiment) -> FeatureDistance:
    """Return the distance that the critics raise and the segmentor lowers."""
    loss, critic = experiment.loss, experiment.critic
    if critic.scales == "single-scale":
        return single_scale_l1
    weights = loss.scale_weights or (1.0,) * critic.scale_count
    if loss.reduction == "concatenated":
        return partial(concatenated_l1, scale_weights=weights)
    return partial(multi_scale_l1, scale_weights=weights)


def map_loss(loss: LossSettings) -> MapLoss | None:
    """Return the weighted sum of Dice and cross-entropy, or None without either."""
    if not loss.dice_weight and not loss.ce_weight:
        return None

    def weighted(probability: Tensor, truth: Tensor) -> Tensor:
        total = torch.zeros((), device=probability.device)
        if loss.ce_weight:
            entropy = cross_entropy(probability, truth, loss.class_weights)
            total = total + loss.ce_weight * entropy
        if loss.dice_weight:
            dice = soft_dice_loss(
                probability, truth, smoothing=loss.dice_smoothing, power=loss.dice_power
            )
            total = total + loss.dice_weight * weighted_mean(dice, loss.class_weights)
        return total

    return weighted


def _pairs(experiment: Experiment) -> int:
    """Return how many segmentors are trained by themselves."""
    return len(REGIONS) if experiment.variant == "s1-1c" else 1


def _adversarial(experiment: Experiment) -> Step:
    critic, loss = experiment.critic, experiment.loss
    distance, of_maps, pairs = feature_distance(experiment), map_loss(loss), _pairs(experiment)

    def alternate(state: TrainingState, parts: list[MicroBatch], average: Average) -> StepLosses:
        assert state.critic is not None, "an experiment with this step has a critic"
        assert state.critic_optimizer is not None
        return adversarial_step(
            state.segmentor,
            state.critic,
            state.segmentor_optimizer,
            state.critic_optimizer,
            parts,
            distance=distance,
            distance_weight=adversarial_weight(loss, state.epoch + 1),
            map_loss=of_maps,
            critic_steps=critic.steps,
            clamp=critic.clamp,
            clamp_norm=critic.clamp_norm,
            pairs=pairs,
            average=average,
        )

    return alternate


def _supervised(experiment: Experiment) -> Step:
    of_maps, pairs = map_loss(experiment.loss) or _no_loss, _pairs(experiment)

    def supervise(state: TrainingState, parts: list[MicroBatch], average: Average) -> StepLosses:
        return supervised_step(
            state.segmentor,
            state.segmentor_optimizer,
            parts,
            map_loss=of_maps,
            pairs=pairs,
            average=average,
        )

    return supervise


def _no_loss(probability: Tensor, truth: Tensor) -> Tensor:
    """Return 0, of the maps: before the critic comes in, the segmentor stays as it is."""
    return 0.0 * (probability - truth).sum()
