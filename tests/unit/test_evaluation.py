"""Volume inference, the threshold reference and overlay pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from segan_ray.data.store import BRAIN_BIT, PreparedCase, TuningCases
from segan_ray.evaluation.inference import predict_box
from segan_ray.evaluation.metrics import overlap
from segan_ray.evaluation.overlays import COLOURS, draw_overlay
from segan_ray.evaluation.scoring import score_cases
from segan_ray.evaluation.threshold import CANDIDATES, FLAIR, tuned_threshold
from segan_ray.evaluation.validation import validate

CPU = torch.device("cpu")


class BrightFlair(nn.Module):
    """A segmentor one can check by hand: FLAIR above 1 is every region."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        assert image.shape[-1] % 16 == 0
        assert image.shape[-2] % 16 == 0
        return (image[:, FLAIR : FLAIR + 1] > 1).float().expand(-1, 3, -1, -1)


class Everything(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(image), 3, *image.shape[2:])


@pytest.fixture
def case(tuning_cases: TuningCases) -> PreparedCase:
    return tuning_cases.train[0]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_a_prediction_lands_on_the_voxels_it_came_from(case: PreparedCase, batch_size: int) -> None:
    found = predict_box(BrightFlair(), case, halvings=4, brain_mask=True, batch_size=batch_size)
    expected = (case.image()[:, FLAIR] > 1) & (case.mask() & BRAIN_BIT != 0)
    for region in found:
        np.testing.assert_array_equal(region, expected)


def test_predictions_are_confined_to_the_brain_if_asked(case: PreparedCase) -> None:
    confined = predict_box(Everything(), case, halvings=2, brain_mask=True)
    np.testing.assert_array_equal(confined[0], case.mask() & BRAIN_BIT != 0)
    assert predict_box(Everything(), case, halvings=2, brain_mask=False).all()


def test_a_perfect_prediction_scores_perfectly(tuning_cases: TuningCases) -> None:
    def truth(case: PreparedCase) -> np.ndarray:
        return np.stack([case.mask() & (1 << bit) != 0 for bit in range(3)])

    for scores in score_cases(truth, tuning_cases.val):
        for region in scores.regions.values():
            assert (region.dice, region.hd95) == (1.0, 0.0)


def test_validation_equals_the_scores_in_the_original_grid(tuning_cases: TuningCases) -> None:
    validation = validate(BrightFlair(), tuning_cases.val, halvings=4, brain_mask=True, device=CPU)
    found = validation.scores
    scores = score_cases(
        lambda case: predict_box(BrightFlair(), case, halvings=4, brain_mask=True),
        tuning_cases.val,
    )
    for region in ("whole", "core", "enhancing"):
        expected = np.mean([case.regions[region].dice for case in scores])
        assert found[f"val/dice_{region}"] == pytest.approx(expected)
    assert found["val/dice_mean"] == pytest.approx(
        np.mean([found[f"val/dice_{name}"] for name in ("whole", "core", "enhancing")])
    )


def test_workers_share_validation_and_agree(tuning_cases: TuningCases) -> None:
    options = {"halvings": 4, "brain_mask": True, "device": CPU}
    alone = validate(BrightFlair(), tuning_cases.val, **options)
    shares: list = []
    validate(
        BrightFlair(), tuning_cases.val, rank=1, workers=2,
        gather=lambda mine: shares.append(mine) or [mine], **options,
    )  # fmt: skip
    together = validate(
        BrightFlair(), tuning_cases.val, rank=0, workers=2,
        gather=lambda mine: [mine, *shares], **options,
    )  # fmt: skip
    assert together == pytest.approx(alone)


def test_the_threshold_is_the_best_of_its_candidates(tuning_cases: TuningCases) -> None:
    cases = tuning_cases.train[:2]
    predict = tuned_threshold(cases)

    def mean_dice(threshold: float) -> float:
        return float(
            np.mean(
                [
                    overlap(
                        (case.image()[:, FLAIR].astype(np.float32) > threshold)
                        & (case.mask() & BRAIN_BIT != 0),
                        case.mask() & 1 != 0,
                    ).dice
                    for case in cases
                ]
            )
        )

    best = max(mean_dice(threshold) for threshold in CANDIDATES)
    found = np.mean([overlap(predict(case)[0], case.mask() & 1 != 0).dice for case in cases])
    assert found == pytest.approx(best)


def test_the_overlay_shows_truth_and_prediction(tuning_cases: TuningCases, tmp_path: Path) -> None:
    picture = draw_overlay(BrightFlair(), tuning_cases.val, halvings=4, brain_mask=True, device=CPU)
    picture.save(tmp_path / "overlay.png")
    pixels = np.asarray(Image.open(tmp_path / "overlay.png"))
    left, right = np.array_split(pixels, 2, axis=1)
    for half in (left, right):
        outline = (half[:-30] == COLOURS["enhancing"]).all(axis=-1)
        assert outline.any()
