from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from segan_ray.training.losses import (
    concatenated_l1,
    cross_entropy,
    multi_scale_l1,
    single_scale_l1,
    soft_dice_loss,
    weighted_mean,
)


def test_the_multi_scale_loss_worked_out_by_hand() -> None:
    """Scale 0 differs by 1 in one of four values, scale 1 by 2 in both: 0.25 and 2."""
    predicted = [torch.tensor([1.0, 0, 0, 0]), torch.tensor([3.0, 1.0])]
    true = [torch.tensor([0.0, 0, 0, 0]), torch.tensor([1.0, -1.0])]
    equal = multi_scale_l1(predicted, true, scale_weights=torch.tensor([1, 1]))
    assert equal.item() == pytest.approx((0.25 + 2) / 2)
    weighted = multi_scale_l1(predicted, true, scale_weights=torch.tensor([3, 1]))
    assert weighted.item() == pytest.approx((3 * 0.25 + 1 * 2) / 4)
    deepest = multi_scale_l1(predicted, true, scale_weights=torch.tensor([0, 1]))
    assert deepest.item() == pytest.approx(2)


def test_the_concatenated_loss_worked_out_by_hand() -> None:
    """Differences 1 (of four values) and 2, 2 (of two): sums 1 and 4 over six values."""
    predicted = [torch.tensor([1.0, 0, 0, 0]), torch.tensor([3.0, 1.0])]
    true = [torch.tensor([0.0, 0, 0, 0]), torch.tensor([1.0, -1.0])]
    equal = concatenated_l1(predicted, true, scale_weights=torch.tensor([1, 1]))
    assert equal.item() == pytest.approx((1 + 4) / 6)
    weighted = concatenated_l1(predicted, true, scale_weights=torch.tensor([1, 2]))
    assert weighted.item() == pytest.approx((1 + 2 * 4) / 6)


def test_the_concatenated_loss_is_the_mean_over_weighted_features() -> None:
    """As the authors' code writes it, with its weights."""
    torch.manual_seed(0)
    shapes = [(4, 64), (8, 32), (16, 16), (16, 8), (16, 4), (16, 2), (16, 1)]
    weights = torch.tensor([1, 1, 2, 2, 2, 2, 4])
    ours, truth = ([torch.randn(2, c, s, s) for c, s in shapes] for _ in range(2))
    flat = [
        torch.cat([w * f.flatten(1) for w, f in zip(weights, scales, strict=True)], dim=1)
        for scales in (ours, truth)
    ]
    torch.testing.assert_close(
        concatenated_l1(ours, truth, scale_weights=weights),
        (flat[0] - flat[1]).abs().mean(),
    )


def test_a_single_scale_is_the_deepest() -> None:
    predicted = [torch.tensor([9.0]), torch.tensor([3.0, 1.0])]
    true = [torch.tensor([0.0]), torch.tensor([1.0, -1.0])]
    assert single_scale_l1(predicted, true).item() == pytest.approx(2)


def test_two_black_images_are_at_no_distance() -> None:
    features = [torch.zeros(2, 3, 4, 4), torch.randn(2, 6, 2, 2)]
    for loss in (multi_scale_l1, concatenated_l1):
        assert loss(features, features, scale_weights=torch.tensor([1, 1])).item() == 0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_come_in_the_layout_of_the_features(layout: torch.memory_format) -> None:
    one, two = (torch.randn(2, 8, 4, 4).contiguous(memory_format=layout) for _ in range(2))
    one.requires_grad_()
    gradients: list[torch.Tensor] = []
    (through := one * 1).register_hook(gradients.append)
    multi_scale_l1([through], [two], scale_weights=torch.tensor([1])).backward()
    assert gradients[0].is_contiguous(memory_format=layout)


def test_the_scale_of_the_weights_does_not_matter() -> None:
    features = [torch.randn(2, 3, 4, 4), torch.randn(2, 6, 2, 2)]
    other = [torch.randn_like(scale) for scale in features]
    one = multi_scale_l1(features, other, scale_weights=torch.tensor([1, 2]))
    ten = multi_scale_l1(features, other, scale_weights=torch.tensor([10, 20]))
    torch.testing.assert_close(one, ten)


def test_a_weight_missing_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        multi_scale_l1([torch.zeros(1)] * 2, [torch.zeros(1)] * 2, scale_weights=torch.ones(1))


def test_soft_dice_worked_out_by_hand() -> None:
    truth = torch.tensor([1.0, 1, 0, 0]).view(1, 1, 2, 2)
    half = torch.full((1, 1, 2, 2), 0.5)
    # shared 1, size 2 + 2: Dice (2·1 + s) / (4 + s)
    assert soft_dice_loss(half, truth, smoothing=1).item() == pytest.approx(1 - 3 / 5)
    assert soft_dice_loss(truth, truth, smoothing=1).item() == 0
    empty = torch.zeros_like(truth)
    assert soft_dice_loss(empty, empty, smoothing=1).item() == 0
    assert soft_dice_loss(half, empty, smoothing=2).item() == pytest.approx(1 - 2 / 4)


def test_dice_with_squares_worked_out_by_hand() -> None:
    """V-Net's form: Σpy = 1, Σp² = 1, Σy² = 2."""
    truth = torch.tensor([1.0, 1, 0, 0]).view(1, 1, 2, 2)
    half = torch.full((1, 1, 2, 2), 0.5)
    actual = soft_dice_loss(half, truth, smoothing=1e-6, power=2).item()
    assert actual == pytest.approx(1 - 2 / 3, abs=1e-6)


def test_two_halves_average_to_the_whole() -> None:
    torch.manual_seed(0)
    probability, truth = torch.rand(6, 3, 8, 8), (torch.rand(6, 3, 8, 8) > 0.7).float()
    whole = soft_dice_loss(probability, truth, smoothing=50)
    halves = [
        soft_dice_loss(probability[part], truth[part], smoothing=50)
        for part in (slice(0, 3), slice(3, 6))
    ]
    torch.testing.assert_close(whole, sum(halves) / 2)


def test_the_baselines_loss_is_finite_at_the_ends() -> None:
    truth = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    wrong = (1 - truth).requires_grad_()
    loss = soft_dice_loss(wrong, truth, smoothing=1).mean() + cross_entropy(wrong, truth)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(wrong.grad).all()


def test_regions_count_by_their_weights() -> None:
    losses = torch.tensor([1.0, 2.0, 6.0])
    assert weighted_mean(losses, None).item() == 3
    assert weighted_mean(losses, torch.tensor([2.0, 1.0, 1.0])).item() == 2.5


def test_cross_entropy_is_torchs_with_weighted_regions() -> None:
    torch.manual_seed(0)
    probability, truth = torch.rand(2, 3, 4, 4), (torch.rand(2, 3, 4, 4) > 0.5).float()
    library = torch.stack(
        [
            functional.binary_cross_entropy(probability[:, region], truth[:, region])
            for region in range(3)
        ]
    )
    for weights in (None, torch.tensor([2.0, 1.0, 1.0])):
        expected = weighted_mean(library, weights)
        torch.testing.assert_close(cross_entropy(probability, truth, weights), expected)


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 3.0])])
def test_maps_that_are_no_numbers_make_a_loss_that_is_none(weights) -> None:
    probability = torch.full((1, 3, 2, 2), 0.5)
    probability[0, 1, 0, 0] = torch.nan
    assert cross_entropy(probability, torch.zeros(1, 3, 2, 2), weights).isnan()
