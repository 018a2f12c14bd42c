"""The networks of an experiment: the only module that knows which variant needs which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from segan_ray.brats import MODALITIES, REGIONS
from segan_ray.config import CriticSettings, Experiment, SegmentorSettings, TrainingSettings
from segan_ray.models.critic import CriticBank
from segan_ray.models.segmentor import Segmentor, SegmentorBank


def build_segmentor(experiment: Experiment) -> nn.Module:
    """Return the network that maps slices, with context slices, to region probabilities."""
    settings = experiment.segmentor
    channels = len(MODALITIES) * (2 * experiment.data.neighbours + 1)
    if experiment.variant == "unet":
        from segan_ray.models.unet import build_unet

        return build_unet(
            channels, len(REGIONS), depth=settings.depth, base_width=settings.base_width
        )
    kind = Segmentor if experiment.variant == "s1-3c" else SegmentorBank
    return _segan_segmentor(kind, channels, settings)


def build_critic(experiment: Experiment) -> CriticBank | None:
    """Return the critics, one a region, or None for a variant without critic."""
    return None if experiment.variant == "unet" else _critics(experiment.critic)


def downsampling_levels(experiment: Experiment) -> int:
    """Return how often the deepest network halves its input."""
    if experiment.variant == "unet":
        return experiment.segmentor.depth
    return max(experiment.segmentor.depth, experiment.critic.depth)


@dataclass(frozen=True)
class Numerics:
    """How networks compute: the convolutions' precision, and whether they are compiled."""

    precision: torch.dtype
    compiled: bool


def choose_numerics(settings: TrainingSettings, device: torch.device) -> Numerics:
    """Return the numerics of ``settings``, chosen for ``device`` where they are ``auto``.

    The choice is bfloat16 where the processor multiplies it faster than float32: every CUDA device
    that has it, and CPUs with AVX-512 BF16 or AMX. Networks are compiled on CUDA alone.
    """
    precisions = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    fast = torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    compiled = device.type == "cuda" if settings.compile == "auto" else settings.compile
    return Numerics(precisions.get(settings.precision, fast), compiled)


def fastest_device() -> torch.device:
    """Return the device for a process that has the machine to itself: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def move_to_device(
    networks: Sequence[nn.Module], device: torch.device, numerics: Numerics, *, synchronised: bool
) -> None:
    """Move networks to the device in their fastest form; the names in their state stay.

    Weights are channels last, since convolutions are faster so. ``synchronised`` shares the
    statistics of batch norm among the workers of a group, which needs CUDA.
    """
    for network in networks:
        if synchronised:
            nn.SyncBatchNorm.convert_sync_batchnorm(network)
        network.to(device)
        for parameter in network.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        if numerics.precision != torch.float32:
            cast = torch.autocast(device.type, dtype=numerics.precision)
            network.forward = cast(network.forward)
        if numerics.compiled:
            network.compile()


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _segan_segmentor(
    kind: type[Segmentor | SegmentorBank], channels: int, settings: SegmentorSettings
) -> Segmentor | SegmentorBank:
    return kind(
        channels,
        len(REGIONS),
        depth=settings.depth,
        base_width=settings.base_width,
        concat_skips=settings.skip == "concat",
    )


def _critics(settings: CriticSettings) -> CriticBank:
    return CriticBank(
        len(MODALITIES),
        len(REGIONS),
        depth=settings.depth,
        base_width=settings.base_width,
        spectral_norm=settings.spectral_norm,
    )
