"""The memory that training takes: estimated before, told in words where there was too little."""

from __future__ import annotations

import math
import re
from typing import Final

import torch
from torch import Tensor, nn

from segan_ray.brats import MODALITIES, REGIONS
from segan_ray.config import Experiment
from segan_ray.errors import SeganRayError
from segan_ray.models.build import build_critic, build_segmentor, downsampling_levels
from segan_ray.training.build_step import feature_distance, map_loss
from segan_ray.training.step import MicroBatch, loss_of_maps, lowered_distance, raised_distance

META: Final = torch.device("meta")
CPU_ALLOCATOR: Final = "DefaultCPUAllocator"
ASKED: Final = re.compile(r"[Tt]ri(?:ed|ing) to allocate ([\d.]+ ?\w+)|you tried to allocate (\d+)")


class OutOfMemoryError(SeganRayError):
    """A device had too little memory for a trial's settings; it would have again."""


def ran_out(error: BaseException) -> bool:
    """Tell whether an error is PyTorch's or Python's word for too little memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and CPU_ALLOCATOR in str(error)


def out_of_memory(
    error: BaseException, experiment: Experiment, device: torch.device
) -> OutOfMemoryError:
    """Return what was asked for, what there is, and what to lower."""
    found = ASKED.search(str(error))
    asked = found and (found[1] or f"{int(found[2]) / 2**30:.2f} GiB")
    training = experiment.training
    return OutOfMemoryError(
        f"out of memory{f': asked for {asked} more' if asked else ''}{_there_is(device)}. Lower "
        f"training.batch_size ({training.batch_size}), segmentor.base_width "
        f"({experiment.segmentor.base_width}), critic.base_width ({experiment.critic.base_width}) "
        f"or training.crop ({training.crop}), or raise training.accumulate ({training.accumulate})"
    )


def training_bytes(experiment: Experiment, crop: int, precision: torch.dtype) -> int:
    """Return about how many bytes a worker's networks, optimizers and kept activations take.

    The passes of a step run on tensors without content, and what they keep for gradients is added
    up. Kernels need some room beside that, so a device should have a quarter more.
    """
    with META:
        segmentor, critic = build_segmentor(experiment), build_critic(experiment)
    state = sum(
        parameter.numel() * 4 * (2 + (1 if settings.optimizer == "rmsprop" else 2))
        for network, settings in ((segmentor, experiment.segmentor), (critic, experiment.critic))
        if network is not None
        for parameter in network.parameters()
    )
    grid = 2 ** downsampling_levels(experiment)
    part = _part(experiment, math.ceil(crop / grid) * grid)
    of_maps, distance = map_loss(experiment.loss, META), feature_distance(experiment, META)
    maps, raised, lowered = _Kept(), _Kept(), _Kept()
    with maps:
        # The brain's mask is left out: a product more, of maps, is little.
        probability = segmentor(part.image)
        if of_maps is not None:
            loss_of_maps(part, probability, of_maps)
    # Nearly all that is kept are features, and they are in the precision of convolutions.
    share = precision.itemsize / torch.float32.itemsize
    if critic is None:
        return state + round(share * maps.bytes)
    with raised:
        raised_distance(critic, part, probability.detach(), distance)
    critic.requires_grad_(False)
    with lowered:
        lowered_distance(critic, part, probability, distance)
    # The maps' graph is kept while the critic is updated, unless the batch is cut into parts.
    before = maps.bytes if experiment.training.accumulate == 1 else 0
    return state + round(share * max(before + raised.bytes, maps.bytes + lowered.bytes))


def _part(experiment: Experiment, crop: int) -> MicroBatch:
    """Return the largest part of a batch that one worker has at a time, without content."""
    parts = experiment.resources.workers * experiment.training.accumulate
    slices = math.ceil(experiment.training.batch_size / parts)
    channels = len(MODALITIES) * (2 * experiment.data.neighbours + 1)
    shape = (slices, channels, crop, crop)
    truth = torch.empty(slices, len(REGIONS), crop, crop, device=META)
    return MicroBatch(torch.empty(shape, device=META), truth, None)


class _Kept(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that autograd keeps, each storage once, parameters left out."""

    def __init__(self) -> None:
        self.bytes = 0
        self._seen: dict[int, Tensor] = {}
        super().__init__(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if not isinstance(tensor, nn.Parameter) and storage._cdata not in self._seen:  # noqa: SLF001
            self._seen[storage._cdata] = tensor  # noqa: SLF001 - held, or another would get its address
            self.bytes += storage.nbytes()
        return tensor


def _there_is(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    return (
        f", {free / 2**30:.2f} of {total / 2**30:.1f} GiB free on "
        f"{torch.cuda.get_device_name(device)}"
    )
