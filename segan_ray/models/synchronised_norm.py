"""Batch norm over the batch of a whole worker group.

PyTorch's own SyncBatchNorm needs CUDA, breaks a compiled graph at each layer and makes the CPU
wait for the GPU there. This one is two all-reduces of sums, each an operation that does not break
a graph.
"""

from __future__ import annotations

from typing import Any, Final, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional

AXES: Final = (0, 2, 3)


class SynchronisedBatchNorm(nn.BatchNorm2d):
    """Normalise by the mean and variance of the slices of all workers, however many each has.

    What it computes, and its parameters and buffers, are those of ``BatchNorm2d`` on the joined
    batch. Every worker must call it equally often, as it waits for the others in training.
    """

    def __init__(self, of: nn.BatchNorm2d, group: str) -> None:
        super().__init__(of.num_features, eps=of.eps, momentum=of.momentum, affine=of.affine)
        self.load_state_dict(of.state_dict())
        self.group = group

    def forward(self, image: Tensor) -> Tensor:
        """Return ``image`` (batch, channel, height, width) normalised, in its dtype."""
        if not self.training:
            return super().forward(image)
        normalised, mean, variance, count = _Normalise.apply(
            image, self.weight, self.bias, self.eps, self.group
        )  # type: ignore[no-untyped-call]
        self._remember(mean, variance * (count / (count - 1)))
        return cast("Tensor", normalised)

    @torch.no_grad()
    def _remember(self, mean: Tensor, unbiased: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased, self.momentum)


def synchronise_norms(network: nn.Module) -> None:
    """Put a ``SynchronisedBatchNorm`` of the default process group at each batch norm's place."""
    world = dist.group.WORLD
    assert world is not None, "workers that train together have a process group"
    for module in network.modules():
        for name, child in module.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(module, name, SynchronisedBatchNorm(child, world.group_name))


class _Normalise(torch.autograd.Function):
    """Ioffe and Szegedy 2015, with every sum over the workers' batches together.

    Gradients are those of the sum of the workers' losses, of which each worker's parameters get
    its own part; averaging them over workers then gives those of the mean loss.
    """

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, weight: Tensor, bias: Tensor, eps: float, group: str
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, variance = (each.double() for each in _moments(image))
        count = mean.new_full((1,), image.numel() // image.shape[1])
        # Double precision, or a mean far above the deviation would cancel it.
        sums = torch.cat([count * mean, count * (variance + mean * mean), count])
        first, second, total = _all_sum(sums, group).split([len(mean), len(mean), 1])
        mean = first / total
        variance = (second / total - mean * mean).clamp_min_(0).float()
        mean, total = mean.float(), total.float()
        ctx.save_for_backward(image, weight, mean, (variance + eps).rsqrt(), total)
        ctx.group, ctx.eps = group, eps
        normalised = functional.batch_norm(image, mean, variance, weight, bias, eps=eps)
        ctx.mark_non_differentiable(mean, variance, total)
        return normalised, mean, variance, total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        image, weight, mean, inverse, total = ctx.saved_tensors
        wanted = ctx.needs_input_grad[0]
        # PyTorch's own, as if this worker's batch were all there is.
        local, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, image, weight, None, None, mean, inverse, True, ctx.eps, [wanted, True, True]
        )
        if not wanted:
            return None, of_weight, of_bias, None, None
        ours = torch.stack([of_weight, of_bias])
        count = image.numel() // image.shape[1]
        along, plain = weight * inverse * (ours / count - _all_sum(ours, ctx.group) / total)
        # What it lacks of the batch of all workers is linear in the image.
        one = torch.full_like(mean, 1.0 - ctx.eps)
        missing = functional.batch_norm(image, mean, one, along * inverse, plain, eps=ctx.eps)
        return local + missing, of_weight, of_bias, None, None


def _moments(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and variance of each channel, as PyTorch's own batch norm takes them.

    On a CPU, in channels last, its ``var_mean`` takes ten times as long; compiled it is fused.
    """
    if image.device.type == "cpu" and not torch.compiler.is_compiling():
        return torch.batch_norm_update_stats(image, None, None, 0.0)
    variance, mean = torch.var_mean(image.float(), AXES, unbiased=False)
    return mean, variance


@torch.library.custom_op("segan_ray::all_sum", mutates_args=())
def _all_sum(tensor: Tensor, group: str) -> Tensor:
    """Return the sum over a process group.

    Opaque to PyTorch's compiler, which gives wrong sums where it plans the memory of its own
    collectives beside that of features that are joined later (2.13, U-Net's skip connections).
    """
    summed = tensor.clone()
    resolve = torch._C._distributed_c10d._resolve_process_group  # noqa: SLF001
    dist.all_reduce(summed, group=resolve(cast("Any", group)))
    return summed


@_all_sum.register_fake
def _(tensor: Tensor, group: str) -> Tensor:  # noqa: ARG001
    return torch.empty_like(tensor)
