"""How networks compute on a device: precision, memory layout, norms over a worker group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from segan_ray.config import TrainingSettings
from segan_ray.models.synchronised_norm import synchronise_norms


def choose_precision(settings: TrainingSettings, device: torch.device) -> torch.dtype:
    """Return the precision of convolutions on ``device``.

    At ``auto`` it is bfloat16 where the processor multiplies that faster than float32: every CUDA
    device that has it, and CPUs with AVX-512 BF16 or AMX.
    """
    if settings.precision == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    return torch.bfloat16 if settings.precision == "bfloat16" else torch.float32


def fastest_device() -> torch.device:
    """Return the device for a process that has the machine to itself: a GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def move_to_device(
    networks: Sequence[nn.Module], device: torch.device, *, synchronised: bool = False
) -> None:
    """Move networks to the device in their fastest form; the names in their state stay.

    Weights are channels last, since convolutions are faster so. ``synchronised`` takes the
    statistics of batch norm over the workers of the process group.
    """
    for network in networks:
        if synchronised:
            synchronise_norms(network)
        network.to(device)
        for parameter in network.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
