"""From settings to networks: the one place that knows which variant needs which."""

from __future__ import annotations

import torch
from torch import nn

from segan_ray.brats import MODALITIES, REGIONS
from segan_ray.config import CriticSettings, Experiment, SegmentorSettings
from segan_ray.models.critic import CriticBank
from segan_ray.models.segmentor import Segmentor


def build_segmentor(experiment: Experiment) -> nn.Module:
    """Return the network that maps slices to region probabilities."""
    if experiment.variant == "unet":
        from segan_ray.models.unet import build_unet

        settings = experiment.segmentor
        return build_unet(
            len(MODALITIES), len(REGIONS), depth=settings.depth, base_width=settings.base_width
        )
    return _segan_segmentor(experiment.segmentor)


def build_critic(experiment: Experiment) -> CriticBank | None:
    """Return the critics, one a region, or None for a variant trained without."""
    return None if experiment.variant == "unet" else _critics(experiment.critic)


def halvings(experiment: Experiment) -> int:
    """Return how often the deepest network halves its input."""
    if experiment.variant == "unet":
        return experiment.segmentor.depth
    return max(experiment.segmentor.depth, experiment.critic.depth)


def place(network: nn.Module, device: torch.device) -> nn.Module:
    """Move a network to the device, channels last: convolutions are faster so."""
    network.to(device)
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def _segan_segmentor(settings: SegmentorSettings) -> Segmentor:
    return Segmentor(
        len(MODALITIES),
        len(REGIONS),
        depth=settings.depth,
        base_width=settings.base_width,
        concat_skips=settings.skip == "concat",
    )


def _critics(settings: CriticSettings) -> CriticBank:
    return CriticBank(
        len(MODALITIES), len(REGIONS), depth=settings.depth, base_width=settings.base_width
    )
