"""The update that an experiment's settings select: its step, losses and constraint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from segan_ray.brats import REGIONS
from segan_ray.config import Experiment, LossSettings
from segan_ray.models.numerics import choose_precision
from segan_ray.training.losses import (
    concatenated_l1,
    multi_scale_l1,
    no_loss,
    single_scale_l1,
    weighted_map_loss,
)
from segan_ray.training.state import TrainingState
from segan_ray.training.step import (
    EAGER,
    Average,
    FeatureDistance,
    MapLoss,
    MicroBatch,
    Passes,
    StepLosses,
    adversarial_step,
    in_precision,
    supervised_step,
)

Step = Callable[[TrainingState, list[MicroBatch], Average], StepLosses]
"""Updates every network of a state once on one batch, given in parts."""


def make_step(experiment: Experiment, device: torch.device, passes: Passes = EAGER) -> Step:
    """Return the update that the experiment's critic and losses make on ``device``.

    Until the epoch ``adversarial_from`` the critic stays as it is.
    """
    loss = experiment.loss
    passes = in_precision(passes, choose_precision(experiment.training, device))
    supervised = _supervised(experiment, device, passes)
    if experiment.critic.kind == "none" or not loss.adversarial_weight:
        return supervised
    adversarial = _adversarial(experiment, device, passes)

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


def feature_distance(experiment: Experiment, device: torch.device) -> FeatureDistance:
    """Return the distance that the critics raise and the segmentor lowers."""
    loss, critic = experiment.loss, experiment.critic
    if critic.scales == "single-scale":
        return single_scale_l1
    weights = loss.scale_weights or (1.0,) * critic.scale_count
    reduction = concatenated_l1 if loss.reduction == "concatenated" else multi_scale_l1
    return partial(reduction, scale_weights=_on(device, weights))


def map_loss(loss: LossSettings, device: torch.device) -> MapLoss | None:
    """Return the weighted sum of Dice and cross-entropy, or None without either."""
    if not loss.dice_weight and not loss.ce_weight:
        return None
    weights = loss.class_weights
    return partial(
        weighted_map_loss,
        ce_weight=_on(device, loss.ce_weight) if loss.ce_weight else None,
        dice_weight=_on(device, loss.dice_weight) if loss.dice_weight else None,
        class_weights=None if weights is None else _on(device, weights),
        smoothing=loss.dice_smoothing,
        power=loss.dice_power,
    )


def _on(device: torch.device, weights: float | Sequence[float]) -> Tensor:
    return torch.tensor(weights, dtype=torch.float32, device=device)


def _pairs(experiment: Experiment) -> int:
    """Return how many segmentors are trained by themselves."""
    return len(REGIONS) if experiment.variant == "s1-1c" else 1


def _adversarial(experiment: Experiment, device: torch.device, passes: Passes) -> Step:
    critic, loss, pairs = experiment.critic, experiment.loss, _pairs(experiment)
    distance, of_maps = feature_distance(experiment, device), map_loss(loss, device)

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
            passes=passes,
        )

    return alternate


def _supervised(experiment: Experiment, device: torch.device, passes: Passes) -> Step:
    of_maps = map_loss(experiment.loss, device) or no_loss
    pairs = _pairs(experiment)

    def supervise(state: TrainingState, parts: list[MicroBatch], average: Average) -> StepLosses:
        return supervised_step(
            state.segmentor,
            state.segmentor_optimizer,
            parts,
            map_loss=of_maps,
            pairs=pairs,
            average=average,
            passes=passes,
        )

    return supervise
