"""What training carries from one epoch to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import Adam, Optimizer, RMSprop

from segan_ray.config import CriticSettings, Experiment, SegmentorSettings
from segan_ray.models.build import build_critic, build_segmentor
from segan_ray.training.scores import SCORE


@dataclass(frozen=True)
class Best:
    """The best epoch so far and what validation said of it."""

    epoch: int
    scores: Mapping[str, float]

    @property
    def score(self) -> float:
        return self.scores[SCORE]


@dataclass
class TrainingState:
    """Both networks, both optimizers, and how far they have come. Epochs count from 1."""

    segmentor: nn.Module
    critic: nn.Module | None
    segmentor_optimizer: Optimizer
    critic_optimizer: Optimizer | None
    epoch: int = 0
    best: Best | None = None

    def remember(self, epoch: int, scores: Mapping[str, float]) -> bool:
        """Note a finished epoch; return whether it is the best so far."""
        self.epoch = epoch
        improved = self.best is None or scores[SCORE] > self.best.score
        if improved:
            self.best = Best(epoch, dict(scores))
        return improved


def new_state(experiment: Experiment, device: torch.device) -> TrainingState:
    """Build networks and optimizers, their weights drawn from the experiment's seed."""
    torch.manual_seed(experiment.seed)
    segmentor = _place(build_segmentor(experiment), device)
    critic = build_critic(experiment)
    if critic is not None:
        _place(critic, device)
    return TrainingState(
        segmentor,
        critic,
        _optimizer(segmentor, experiment.segmentor),
        None if critic is None else _optimizer(critic, experiment.critic),
    )


def _place(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to the device, channels last: convolutions are faster so."""
    network.to(device)
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def _optimizer(network: nn.Module, settings: SegmentorSettings | CriticSettings) -> Optimizer:
    if settings.optimizer == "rmsprop":
        return RMSprop(network.parameters(), lr=settings.lr)
    return Adam(network.parameters(), lr=settings.lr, betas=(settings.beta1, 0.999))
