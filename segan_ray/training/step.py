"""One adversarial iteration: raise the critic's multi-scale distance, then lower it.

Algorithm 1 of Xue et al. 2018. The segmentor runs forward once: its map is detached for the
critic's update and used with its graph for the segmentor's, since S has not changed in between.
This gives the parameters of the textbook order with two forwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from segan_ray.brats import MODALITIES

FeatureDistance = Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]
"""Compares one critic's features, scale by scale, of two masked images."""

MapLoss = Callable[[Tensor, Tensor], Tensor]
"""Compares a map with the truth directly."""

NORMS: Final = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)  # noqa: SLF001
"""What ``clamp_norm`` spares."""

Average = Callable[[Sequence[Tensor]], None]
"""Averages tensors over the workers of a group, in place; does nothing when alone."""


class MicroBatch(NamedTuple):
    """Slices that go through the networks together: a worker's batch, or a piece of it.

    ``image`` holds the modalities of each slice, amid its context slices if there are any.
    ``brain`` confines the maps to the brain, outside which the product with the image is 0 anyway
    (None: not confined, as in the paper). ``share`` is the weight of the part: the average over
    workers of the sum over parts is the mean over all slices of the batch.
    """

    image: Float[Tensor, "batch channel height width"]
    truth: Float[Tensor, "batch region height width"]
    brain: Float[Tensor, "batch 1 height width"] | None
    share: float = 1.0

    @property
    def centre(self) -> Float[Tensor, "batch modality height width"]:
        """The slice to be segmented, without its context slices, as the critics see it."""
        first = (self.image.shape[1] - len(MODALITIES)) // 2
        return self.image[:, first : first + len(MODALITIES)]


class StepLosses(NamedTuple):
    """The losses of one iteration, detached.

    ``critic`` is the distance that the critic raises, ``adversarial`` the weighted distance in the
    loss of the segmentor.
    """

    critic: Float[Tensor, ""]
    segmentor: Float[Tensor, ""]
    adversarial: Float[Tensor, ""]


def keep(tensors: Sequence[Tensor]) -> None:
    """Leave tensors as they are: the ``Average`` of a single process."""


def segment(
    segmentor: nn.Module, part: MicroBatch, *, precision: torch.dtype = torch.float32
) -> Float[Tensor, "batch region height width"]:
    """Return the maps of a part."""
    with _convolutions_in(precision, part):
        probability: Tensor = segmentor(part.image)
    return probability if part.brain is None else probability * part.brain


def raised_distance(
    critic: nn.Module,
    part: MicroBatch,
    probability: Tensor,
    distance: FeatureDistance,
    *,
    precision: torch.dtype = torch.float32,
) -> Float[Tensor, ""]:
    """Return what the critic raises: how far apart it holds maps and truth."""
    with _convolutions_in(precision, part):
        predicted = critic(part.centre, probability)
        true = critic(part.centre, part.truth)
    return _over_regions(distance, predicted, true)


def lowered_distance(
    critic: nn.Module,
    part: MicroBatch,
    probability: Tensor,
    distance: FeatureDistance,
    *,
    precision: torch.dtype = torch.float32,
) -> Float[Tensor, ""]:
    """Return what the segmentor lowers: the truth's features are constants to it."""
    with _convolutions_in(precision, part):
        predicted = critic(part.centre, probability)
        with torch.no_grad():
            true = critic(part.centre, part.truth)
    return _over_regions(distance, predicted, true)


def loss_of_maps(part: MicroBatch, probability: Tensor, map_loss: MapLoss) -> Float[Tensor, ""]:
    """Return the loss that compares maps and truth directly."""
    return map_loss(probability, part.truth)


@dataclass(frozen=True)
class Passes:
    """The passes through networks and losses that an iteration is made of.

    Each is one function, so that a compiler sees a network together with the loss behind it.
    """

    segment: Callable[..., Tensor]
    raised_distance: Callable[..., Tensor]
    lowered_distance: Callable[..., Tensor]
    loss_of_maps: Callable[[MicroBatch, Tensor, MapLoss], Tensor]


EAGER: Final = Passes(segment, raised_distance, lowered_distance, loss_of_maps)
"""In single precision."""


def in_precision(passes: Passes, precision: torch.dtype) -> Passes:
    """Return the passes with convolutions in ``precision``; losses stay in single precision."""
    return Passes(
        partial(passes.segment, precision=precision),
        partial(passes.raised_distance, precision=precision),
        partial(passes.lowered_distance, precision=precision),
        passes.loss_of_maps,
    )


def adversarial_step(
    segmentor: nn.Module,
    critic: nn.Module,
    segmentor_optimizer: Optimizer,
    critic_optimizer: Optimizer,
    parts: Sequence[MicroBatch],
    *,
    distance: FeatureDistance,
    map_loss: MapLoss | None,
    distance_weight: float = 1.0,
    critic_steps: int = 1,
    clamp: float | None = None,
    clamp_norm: bool = True,
    pairs: int = 1,
    average: Average = keep,
    passes: Passes = EAGER,
) -> StepLosses:
    """Update the critic ``critic_steps`` times, then the segmentor once, on one batch.

    The segmentor lowers ``distance_weight`` times the distance plus ``map_loss``. ``clamp`` bounds
    the critic's weights after each of its updates, also those of its norms if ``clamp_norm`` is
    set. ``pairs`` is how many segmentors and critics are trained side by side, each pair on its
    own loss; 1 trains all on the mean over regions.
    """
    # With several parts the segmentor runs forward again: keeping all their graphs until the
    # critic is updated would take the very memory that cutting the batch saves.
    whole = len(parts) == 1
    with torch.set_grad_enabled(whole):
        maps = [passes.segment(segmentor, part) for part in parts]

    # The critic ascends the distance; the segmentor's maps are constants to it.
    for _ in range(critic_steps):
        raised = []
        critic_optimizer.zero_grad(set_to_none=True)
        for part, probability in zip(parts, maps, strict=True):
            constant = probability.detach()
            loss = part.share * passes.raised_distance(critic, part, constant, distance)
            (-pairs * loss).backward()
            raised.append(loss.detach())
        _update(critic_optimizer, average)
        if clamp is not None:
            clamp_weights(critic, clamp, norms=clamp_norm)

    # The segmentor descends the distance; the critic's weights are constants to it.
    lowered, adversarial = [], []
    critic.requires_grad_(False)
    segmentor_optimizer.zero_grad(set_to_none=True)
    for part, with_graph in zip(parts, maps, strict=True):
        probability = with_graph if whole else passes.segment(segmentor, part)
        loss = distance_weight * passes.lowered_distance(critic, part, probability, distance)
        adversarial.append(part.share * loss.detach())
        if map_loss is not None:
            loss = loss + passes.loss_of_maps(part, probability, map_loss)
        loss = part.share * loss
        (pairs * loss).backward()
        lowered.append(loss.detach())
    _update(segmentor_optimizer, average)
    critic.requires_grad_(True)

    return StepLosses(*(torch.stack(each).sum() for each in (raised, lowered, adversarial)))


def supervised_step(
    segmentor: nn.Module,
    optimizer: Optimizer,
    parts: Sequence[MicroBatch],
    *,
    map_loss: MapLoss,
    pairs: int = 1,
    average: Average = keep,
    passes: Passes = EAGER,
) -> StepLosses:
    """Update a segmentor without critic once on one batch; ``pairs`` as in ``adversarial_step``."""
    lowered = []
    optimizer.zero_grad(set_to_none=True)
    for part in parts:
        probability = passes.segment(segmentor, part)
        loss = part.share * passes.loss_of_maps(part, probability, map_loss)
        (pairs * loss).backward()
        lowered.append(loss.detach())
    _update(optimizer, average)
    total = torch.stack(lowered).sum()
    return StepLosses(torch.zeros_like(total), total, torch.zeros_like(total))


@torch.no_grad()
def clamp_weights(network: nn.Module, bound: float, *, norms: bool = True) -> None:
    """Clamp every parameter of ``network`` to ±``bound`` (the authors' published code).

    Without ``norms`` the weights of norms stay: at 0.05 they nearly turn a critic off.
    """
    weights: list[Tensor] = [
        parameter
        for module in network.modules()
        if norms or not isinstance(module, NORMS)
        for parameter in module.parameters(recurse=False)
    ]
    if not weights:
        return
    # All in one kernel on a GPU, rather than one each.
    torch._foreach_clamp_min_(weights, -bound)
    torch._foreach_clamp_max_(weights, bound)


def _convolutions_in(precision: torch.dtype, part: MicroBatch) -> AbstractContextManager[object]:
    if precision == torch.float32:
        return nullcontext()
    return torch.autocast(part.image.device.type, precision)


def _over_regions(
    distance: FeatureDistance,
    predicted: Sequence[Sequence[Tensor]],
    true: Sequence[Sequence[Tensor]],
) -> Tensor:
    """Return the mean over the critics, one a region (Xue et al. 2018, S1-3C)."""
    regions = [distance(ours, truth) for ours, truth in zip(predicted, true, strict=True)]
    return torch.stack(regions).mean()


def _update(optimizer: Optimizer, average: Average) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    average([parameter.grad for parameter in parameters if parameter.grad is not None])
    optimizer.step()
