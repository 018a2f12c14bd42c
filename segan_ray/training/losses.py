"""The losses, each a small function that cites its equation."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def multi_scale_l1(
    predicted: Sequence[Tensor], true: Sequence[Tensor], *, scale_weights: Sequence[float]
) -> Float[Tensor, ""]:
    """Return Σᵢ wᵢ · mean|fᵢ(x∘S(x)) − fᵢ(x∘y)| / Σᵢ wᵢ.

    Equation 2 of Xue et al. 2018 with a weight for each scale (equal weights give the
    paper's mean over scales). ``predicted`` and ``true`` are a critic's features of one
    batch, one tensor a scale. Where a map is empty its features are those of a black image,
    so two empty maps are at distance 0.

    Raises:
        ValueError: if the three sequences differ in length.
    """
    total = predicted[0].new_zeros(())
    for weight, ours, truth in zip(scale_weights, predicted, true, strict=True):
        if weight:
            total = total + weight * functional.l1_loss(ours, truth)
    return total / sum(scale_weights)


def soft_dice_loss(
    probability: Float[Tensor, "batch region height width"],
    truth: Float[Tensor, "batch region height width"],
    *,
    smoothing: float,
) -> Float[Tensor, ""]:
    """Return 1 − (2·Σpy + s) / (Σp + Σy + s), averaged over slices and regions.

    Averaged per slice so that the mean over two half batches is the whole batch's. An empty
    truth gives a loss that falls to 0 as the prediction empties, the more gently the larger
    ``smoothing`` is (in voxels).
    """
    voxels = (-2, -1)
    shared = (probability * truth).sum(voxels)
    size = probability.sum(voxels) + truth.sum(voxels)
    return (1 - (2 * shared + smoothing) / (size + smoothing)).mean()


def dice_cross_entropy(
    probability: Float[Tensor, "batch region height width"],
    truth: Float[Tensor, "batch region height width"],
    *,
    smoothing: float,
) -> Float[Tensor, ""]:
    """Return soft Dice plus binary cross-entropy, the loss of the U-Net baseline."""
    entropy = functional.binary_cross_entropy(probability.clamp(1e-6, 1 - 1e-6), truth)
    return soft_dice_loss(probability, truth, smoothing=smoothing) + entropy
