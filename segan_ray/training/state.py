"""What training carries from one epoch to the next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn
from torch.optim import Adam, Optimizer, RMSprop

from segan_ray.config import CriticSettings, Experiment, SegmentorSettings
from segan_ray.models.build import build_critic, build_segmentor, place
from segan_ray.training.scores import SCORE

POLY_POWER: Final = 0.9


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

    def set_learning_rates(self, experiment: Experiment, epoch: int) -> None:
        """Give both optimizers their rates for ``epoch``; nothing else of them changes."""
        factor = rate_factor(experiment, epoch)
        for group in self.segmentor_optimizer.param_groups:
            group["lr"] = experiment.segmentor.lr * factor
        if self.critic_optimizer is not None:
            for group in self.critic_optimizer.param_groups:
                group["lr"] = experiment.critic.lr * factor

    def remember(self, epoch: int, scores: Mapping[str, float]) -> bool:
        """Note a finished epoch; return whether it is the best so far, the later of equals."""
        self.epoch = epoch
        improved = self.best is None or scores[SCORE] >= self.best.score
        if improved:
            self.best = Best(epoch, dict(scores))
        return improved


def rate_factor(experiment: Experiment, epoch: int) -> float:
    """Return what learning rates are multiplied by in ``epoch``, which counts from 1.

    It depends on the epoch alone, so a resumed run needs no memory of it. ``poly`` is the
    schedule of Chen et al. 2017 (DeepLab), with their power.
    """
    if experiment.training.schedule == "constant":
        return 1.0
    left = 1 - (epoch - 1) / experiment.training.epochs
    return math.pow(left, POLY_POWER)


def new_state(experiment: Experiment, device: torch.device) -> TrainingState:
    """Build networks and optimizers, their weights drawn from the experiment's seed."""
    torch.manual_seed(experiment.seed)
    segmentor = place(build_segmentor(experiment), device)
    critic = build_critic(experiment)
    if critic is not None:
        place(critic, device)
    return TrainingState(
        segmentor,
        critic,
        _optimizer(segmentor, experiment.segmentor),
        None if critic is None else _optimizer(critic, experiment.critic),
    )


def _optimizer(network: nn.Module, settings: SegmentorSettings | CriticSettings) -> Optimizer:
    if settings.optimizer == "rmsprop":
        return RMSprop(network.parameters(), lr=settings.lr)
    return Adam(network.parameters(), lr=settings.lr, betas=(settings.beta1, 0.999))
