"""The state that training carries from one epoch to the next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn
from torch.optim import Adam, AdamW, Optimizer, RMSprop
from torch.optim.swa_utils import get_ema_multi_avg_fn

from segan_ray.config import CriticSettings, Experiment, SegmentorSettings
from segan_ray.models.build import build_critic, build_segmentor
from segan_ray.models.numerics import move_to_device
from segan_ray.training.epoch_record import improves
from segan_ray.training.validation_scores import SCORE

POLY_POWER: Final = 0.9


@dataclass(frozen=True)
class Best:
    """The best epoch so far and its validation scores."""

    epoch: int
    scores: Mapping[str, float]

    @property
    def score(self) -> float:
        return self.scores[SCORE]


@dataclass
class TrainingState:
    """Both networks, both optimizers, and how far they have come. Epochs count from 1.

    ``mean`` is the exponential mean of the segmentor's weights, where ``training.ema`` is set.
    ``collapsed`` is how many validations in a row have found every map empty or full.
    """

    segmentor: nn.Module
    critic: nn.Module | None
    segmentor_optimizer: Optimizer
    critic_optimizer: Optimizer | None
    mean: nn.Module | None = None
    epoch: int = 0
    best: Best | None = None
    collapsed: int = 0

    @property
    def in_use(self) -> nn.Module:
        """The segmentor to validate and to keep: the mean, if there is one."""
        return self.segmentor if self.mean is None else self.mean

    @property
    def device(self) -> torch.device:
        """The device that it trains on."""
        return next(self.segmentor.parameters()).device

    @torch.no_grad()
    def update_mean(self, decay: float) -> None:
        """Move the mean towards the segmentor's weights and buffers after an update.

        In the first epoch the mean is a copy, or it would hold the random weights long after.
        """
        if self.mean is None:
            return
        means, current = (list(each.state_dict().values()) for each in (self.mean, self.segmentor))
        numbers = [index for index, tensor in enumerate(means) if tensor.is_floating_point()]
        move = get_ema_multi_avg_fn(decay if self.epoch else 0.0)
        move([means[index] for index in numbers], [current[index] for index in numbers], 0)
        for index in set(range(len(means))) - set(numbers):
            means[index].copy_(current[index])

    def set_learning_rates(self, experiment: Experiment, epoch: int) -> None:
        """Give both optimizers their rates for ``epoch``; nothing else of them changes."""
        for group in self.segmentor_optimizer.param_groups:
            group["lr"] = learning_rate(experiment, experiment.segmentor.lr, epoch)
        if self.critic_optimizer is not None:
            for group in self.critic_optimizer.param_groups:
                group["lr"] = learning_rate(experiment, experiment.critic.lr, epoch)

    def remember(self, epoch: int, scores: Mapping[str, float]) -> bool:
        """Note a finished epoch; return whether it is the best so far."""
        self.epoch = epoch
        improved = improves(scores[SCORE], None if self.best is None else self.best.score, "max")
        if improved:
            self.best = Best(epoch, dict(scores))
        return improved


def learning_rate(experiment: Experiment, first: float, epoch: int) -> float:
    """Return the rate in ``epoch`` if it begins at ``first``; ``min_lr`` never raises it."""
    lowest = min(first, experiment.training.min_lr)
    return max(lowest, first * rate_factor(experiment, epoch))


def rate_factor(experiment: Experiment, epoch: int) -> float:
    """Return the factor of learning rates in ``epoch``, which counts from 1.

    It depends on the epoch alone, so a resumed run needs no memory of it. ``poly`` is the
    schedule of Chen et al. 2017 (DeepLab), with their power; ``halving`` is the schedule of the
    authors' published code, which also resets the optimizer's state.
    """
    training = experiment.training
    done = (epoch - 1) / training.epochs
    if training.schedule == "poly":
        return math.pow(1 - done, POLY_POWER)
    if training.schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    if training.schedule == "halving":
        first = training.halve_after or training.halve_every
        return math.pow(0.5, max(0, (epoch - 1 - first) // training.halve_every + 1))
    return 1.0


def new_state(
    experiment: Experiment, device: torch.device, *, synchronised: bool = False
) -> TrainingState:
    """Build networks and optimizers, their weights drawn from the experiment's seed."""
    torch.manual_seed(experiment.seed)
    segmentor = build_segmentor(experiment)
    critic = build_critic(experiment)
    mean = None
    if experiment.training.ema is not None:
        mean = build_segmentor(experiment).requires_grad_(False)
        mean.load_state_dict(segmentor.state_dict())
    move_to_device(
        [network for network in (segmentor, critic, mean) if network is not None],
        device,
        synchronised=synchronised,
    )
    return TrainingState(
        segmentor,
        critic,
        _optimizer(segmentor, experiment.segmentor, device),
        None if critic is None else _optimizer(critic, experiment.critic, device),
        mean,
    )


def _optimizer(
    network: nn.Module, settings: SegmentorSettings | CriticSettings, device: torch.device
) -> Optimizer:
    if settings.optimizer == "rmsprop":
        return RMSprop(network.parameters(), lr=settings.lr)
    kind = AdamW if settings.optimizer == "adamw" else Adam
    return kind(
        network.parameters(),
        lr=settings.lr,
        betas=(settings.beta1, 0.999),
        # One kernel for all tensors. On a CPU it gains next to nothing.
        fused=device.type == "cuda",
    )
