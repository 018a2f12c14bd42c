"""The networks of an experiment: the only module that knows which settings need which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from segan_ray.brats import MODALITIES, REGIONS
from segan_ray.config import Experiment, SegmentorSettings, TrainingSettings
from segan_ray.models.authors import AuthorsSegmentor, authors_levels
from segan_ray.models.critic import CriticBank, JointCritic
from segan_ray.models.segmentor import Segmentor, SegmentorBank


def build_segmentor(experiment: Experiment) -> nn.Module:
    """Return the network that maps slices, with context slices, to region probabilities."""
    channels = len(MODALITIES) * (2 * experiment.data.neighbours + 1)
    if experiment.has_bank:
        return SegmentorBank(_network(experiment.segmentor, channels, 1) for _ in REGIONS)
    return _network(experiment.segmentor, channels, len(REGIONS))


def build_critic(experiment: Experiment) -> CriticBank | JointCritic | None:
    """Return the critic, or None for an experiment without."""
    settings = experiment.critic
    if settings.kind == "none":
        return None
    kind = CriticBank if settings.kind == "per-region" else JointCritic
    return kind(
        len(MODALITIES),
        len(REGIONS),
        takes=settings.input,
        depth=settings.depth,
        base_width=settings.base_width,
        norm=settings.norm,
        spectral_norm=settings.spectral_norm,
    )


def downsampling_levels(experiment: Experiment) -> int:
    """Return how often the deepest network halves its input."""
    segmentor, critic = experiment.segmentor, experiment.critic
    levels = authors_levels(segmentor.authors) if segmentor.network == "authors" else None
    return max(levels or segmentor.depth, 0 if critic.kind == "none" else critic.depth)


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


def _network(settings: SegmentorSettings, channels: int, regions: int) -> nn.Module:
    if settings.network == "segan":
        return Segmentor(
            channels,
            regions,
            depth=settings.depth,
            base_width=settings.base_width,
            concat_skips=settings.skip == "concat",
            full_resolution=settings.full_resolution,
        )
    if settings.network == "authors":
        return AuthorsSegmentor(
            channels, regions, published=settings.authors, base_width=settings.base_width
        )
    # MONAI takes long to import, and most runs do not need it.
    from segan_ray.models.baselines import build_baseline

    return build_baseline(
        settings.network, channels, regions, depth=settings.depth, base_width=settings.base_width
    )
