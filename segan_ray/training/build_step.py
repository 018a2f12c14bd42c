"""The update that an experiment's settings select: its step, losses and constraint."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from segan_ray.brats import REGIONS
from segan_ray.config import Experiment, LossSettings
from segan_ray.training.losses import (
    concatenated_l1,
    dice_cross_entropy,
    multi_scale_l1,
    single_scale_l1,
    soft_dice_loss,
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
    """Return the update of the experiment's variant, with its losses."""
    return _supervised(experiment) if experiment.variant == "unet" else _adversarial(experiment)


def feature_distance(experiment: Experiment) -> FeatureDistance:
    """Return the distance that the critics raise and the segmentor lowers."""
    loss, critic = experiment.loss, experiment.critic
    if critic.scales == "single-scale":
        return single_scale_l1
    weights = loss.scale_weights or (1.0,) * critic.scale_count
    if loss.reduction == "concatenated":
        return partial(concatenated_l1, scale_weights=weights)
    return partial(multi_scale_l1, scale_weights=weights)


def dice_term(loss: LossSettings) -> MapLoss | None:
    """Return the weighted Dice term beside the distance, or None without one."""
    if not loss.dice_weight:
        return None

    def weighted(probability: Tensor, truth: Tensor) -> Tensor:
        dice = soft_dice_loss(
            probability, truth, smoothing=loss.dice_smoothing, power=loss.dice_power
        )
        return loss.dice_weight * dice

    return weighted


def _adversarial(experiment: Experiment) -> Step:
    critic = experiment.critic
    distance, map_loss = feature_distance(experiment), dice_term(experiment.loss)
    pairs = len(REGIONS) if experiment.variant == "s1-1c" else 1

    def alternate(state: TrainingState, parts: list[MicroBatch], average: Average) -> StepLosses:
        assert state.critic is not None, "only U-Net has no critic"
        assert state.critic_optimizer is not None
        return adversarial_step(
            state.segmentor,
            state.critic,
            state.segmentor_optimizer,
            state.critic_optimizer,
            parts,
            distance=distance,
            map_loss=map_loss,
            critic_steps=critic.steps,
            clamp=critic.clamp,
            pairs=pairs,
            average=average,
        )

    return alternate


def _supervised(experiment: Experiment) -> Step:
    map_loss = partial(dice_cross_entropy, smoothing=experiment.loss.dice_smoothing)

    def supervise(state: TrainingState, parts: list[MicroBatch], average: Average) -> StepLosses:
        return supervised_step(
            state.segmentor,
            state.segmentor_optimizer,
            parts,
            map_loss=map_loss,
            average=average,
        )

    return supervise
