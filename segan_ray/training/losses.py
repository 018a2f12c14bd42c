"""The losses, each a small function that cites its equation.

Weights are tensors, so that one compiled graph serves all of their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def multi_scale_l1(
    predicted: Sequence[Tensor], true: Sequence[Tensor], *, scale_weights: Float[Tensor, "scale"]
) -> Float[Tensor, ""]:
    """Return Σᵢ wᵢ · mean|fᵢ(x∘S(x)) − fᵢ(x∘y)| / Σᵢ wᵢ.

    Equation 2 of Xue et al. 2018 with a weight for each scale (equal weights give the
    paper's mean over scales). ``predicted`` and ``true`` are one critic's features of one
    batch, one tensor a scale. An empty map has the features of a black image, so two
    empty maps are at distance 0.

    Raises:
        ValueError: if the three sequences differ in length.
    """
    means = [
        weight * _absolute_sum(ours, truth) / ours.numel()
        for weight, ours, truth in zip(scale_weights.unbind(), predicted, true, strict=True)
    ]
    return torch.stack(means).sum() / scale_weights.sum()


def concatenated_l1(
    predicted: Sequence[Tensor], true: Sequence[Tensor], *, scale_weights: Float[Tensor, "scale"]
) -> Float[Tensor, ""]:
    """Return the mean of |wᵢ fᵢ(x∘S(x)) − wᵢ fᵢ(x∘y)| over the features of all scales at once.

    The authors' published code computes this, with the weights 1, 1, 2, 2, 2, 2, 4. A scale
    counts by its size, so the large early maps dominate, and doubling the weights doubles the
    loss.

    Raises:
        ValueError: if the three sequences differ in length.
    """
    sums = [
        weight * _absolute_sum(ours, truth)
        for weight, ours, truth in zip(scale_weights.unbind(), predicted, true, strict=True)
    ]
    return torch.stack(sums).sum() / sum(features.numel() for features in predicted)


def single_scale_l1(predicted: Sequence[Tensor], true: Sequence[Tensor]) -> Float[Tensor, ""]:
    """Return mean|f(x∘S(x)) − f(x∘y)| of the deepest scale alone, the paper's comparison."""
    return _absolute_sum(predicted[-1], true[-1]) / predicted[-1].numel()


class _AbsoluteSum(torch.autograd.Function):
    """Σ|a − b| in single precision, with a gradient in the memory layout of the features.

    The gradient that PyTorch derives for ``l1_loss``, or for a sum in another precision, comes
    in its default layout, and every layer behind it then waits for channels to be moved.
    """

    @staticmethod
    def forward(ctx: Any, ours: Tensor, truth: Tensor) -> Tensor:
        difference = ours - truth
        ctx.save_for_backward(difference)
        # Rows first: a CPU would copy half-precision features whole to sum them in single.
        return difference.abs().sum(-1).sum(dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        (difference,) = ctx.saved_tensors
        slope = difference.sgn().mul_(gradient)
        return slope, -slope if ctx.needs_input_grad[1] else None


def _absolute_sum(ours: Tensor, truth: Tensor) -> Tensor:
    total: Tensor = _AbsoluteSum.apply(ours, truth)  # type: ignore[no-untyped-call]
    return total


def soft_dice_loss(
    probability: Float[Tensor, "batch region height width"],
    truth: Float[Tensor, "batch region height width"],
    *,
    smoothing: float,
    power: int = 1,
) -> Float[Tensor, "region"]:
    """Return 1 − (2·Σpy + s) / (Σpᵏ + Σyᵏ + s) of each region, averaged over slices.

    ``power`` k is 1, or 2 as in V-Net (Milletari et al. 2016) and the authors' published
    code. Each slice counts alike, so the mean over two half batches is the whole batch's. An
    empty truth gives a loss that falls to 0 as the prediction empties, the more gently the
    larger ``smoothing`` is (in voxels).
    """
    voxels = (-2, -1)
    shared = (probability * truth).sum(voxels)
    size = probability.pow(power).sum(voxels) + truth.pow(power).sum(voxels)
    return (1 - (2 * shared + smoothing) / (size + smoothing)).mean(0)


def cross_entropy(
    probability: Float[Tensor, "batch region height width"],
    truth: Float[Tensor, "batch region height width"],
    weights: Float[Tensor, "region"] | None = None,
) -> Float[Tensor, ""]:
    """Return −(y·log p + (1 − y)·log(1 − p)), averaged over voxels, slices and regions.

    Each region counts with its weight; None weighs all alike. A map with a value that is no number
    makes the loss no number.
    """
    bounded = probability.clamp(1e-6, 1 - 1e-6)
    # PyTorch's function raises where a diverged network's maps are no numbers. The sum keeps that.
    numbers, no_number = bounded.nan_to_num(nan=0.5), 0.0 * bounded.sum()
    if weights is None:
        return functional.binary_cross_entropy(numbers, truth) + no_number
    weight = weights[:, None, None] * len(weights) / weights.sum()
    return functional.binary_cross_entropy(numbers, truth, weight) + no_number


def weighted_mean(
    per_region: Float[Tensor, "region"], weights: Float[Tensor, "region"] | None
) -> Float[Tensor, ""]:
    """Return the mean over regions, each with its weight; None weighs all alike."""
    if weights is None:
        return per_region.mean()
    return (per_region * weights).sum() / weights.sum()


def weighted_map_loss(
    probability: Float[Tensor, "batch region height width"],
    truth: Float[Tensor, "batch region height width"],
    *,
    ce_weight: Float[Tensor, ""] | None,
    dice_weight: Float[Tensor, ""] | None,
    class_weights: Float[Tensor, "region"] | None,
    smoothing: float,
    power: int,
) -> Float[Tensor, ""]:
    """Return the weighted sum of cross-entropy and Dice; a weight that is None leaves one out."""
    total = probability.new_zeros(())
    if ce_weight is not None:
        total = total + ce_weight * cross_entropy(probability, truth, class_weights)
    if dice_weight is not None:
        dice = soft_dice_loss(probability, truth, smoothing=smoothing, power=power)
        total = total + dice_weight * weighted_mean(dice, class_weights)
    return total


def no_loss(
    probability: Float[Tensor, "batch region height width"],
    truth: Float[Tensor, "batch region height width"],
) -> Float[Tensor, ""]:
    """Return 0, of the maps: before the critic comes in, the segmentor stays as it is."""
    return 0.0 * (probability - truth).sum()
