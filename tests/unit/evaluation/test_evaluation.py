"""Volume inference, the threshold reference and overlay pictures."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from segan_ray.brats import as_written
from segan_ray.data.layouts.cases import layout_named
from segan_ray.data.store.opened_store import BRAIN_BIT, PreparedCase, TuningCases
from segan_ray.evaluation.figures.overlays import COLOURS, draw_overlay
from segan_ray.evaluation.inference.slicewise import predict_box
from segan_ray.evaluation.inference.validation import validate
from segan_ray.evaluation.metrics.lesions import score_case_lesions
from segan_ray.evaluation.metrics.region_metrics import overlap, score_case
from segan_ray.evaluation.scoring.score_cases import score_cases
from segan_ray.evaluation.scoring.threshold import CANDIDATES, FLAIR, tuned_threshold

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
    found = predict_box(
        BrightFlair(), case, downsampling_levels=4, brain_mask=True, batch_size=batch_size
    )
    expected = (case.image()[:, FLAIR] > 1) & (case.mask() & BRAIN_BIT != 0)
    for region in found:
        np.testing.assert_array_equal(region, expected)


def test_predictions_are_confined_to_the_brain_if_asked(case: PreparedCase) -> None:
    confined = predict_box(Everything(), case, downsampling_levels=2, brain_mask=True)
    np.testing.assert_array_equal(confined[0], case.mask() & BRAIN_BIT != 0)
    assert predict_box(Everything(), case, downsampling_levels=2, brain_mask=False).all()


def test_a_perfect_prediction_scores_perfectly(tuning_cases: TuningCases) -> None:
    def truth(case: PreparedCase) -> np.ndarray:
        return np.stack([case.mask() & (1 << bit) != 0 for bit in range(3)])

    for scores in score_cases(truth, tuning_cases.val):
        for region in scores.regions.values():
            assert (region.dice, region.hd95) == (1.0, 0.0)


def test_validation_equals_the_scores_in_the_original_grid(tuning_cases: TuningCases) -> None:
    validation = validate(
        BrightFlair(), tuning_cases.val, downsampling_levels=4, brain_mask=True, device=CPU
    )
    found = validation.scores
    scores = score_cases(
        lambda case: predict_box(BrightFlair(), case, downsampling_levels=4, brain_mask=True),
        tuning_cases.val,
    )
    for region in ("whole", "core", "enhancing"):
        expected = np.mean([case.regions[region].dice for case in scores])
        assert found[f"val/dice_{region}"] == pytest.approx(expected)
    assert found["val/dice_mean"] == pytest.approx(
        np.mean([found[f"val/dice_{name}"] for name in ("whole", "core", "enhancing")])
    )


def test_workers_share_validation_and_agree(tuning_cases: TuningCases) -> None:
    options = {"downsampling_levels": 4, "brain_mask": True, "device": CPU}
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


def test_thresholds_are_the_best_of_those_that_give_nested_regions(
    tuning_cases: TuningCases,
) -> None:
    cases = tuning_cases.train[:2]
    predict = tuned_threshold(cases)

    def dice(region: int, found: Callable[[PreparedCase], np.ndarray]) -> float:
        pairs = [(found(case), case.mask() & (1 << region) != 0) for case in cases]
        return float(np.mean([overlap(*pair).dice for pair in pairs]))

    def above(threshold: float) -> Callable[[PreparedCase], np.ndarray]:
        return lambda case: (
            (case.image()[:, FLAIR].astype(np.float32) > threshold) & (case.mask() & BRAIN_BIT != 0)
        )

    tried = CANDIDATES[::6]
    by_region = [[dice(region, above(threshold)) for threshold in tried] for region in range(3)]
    best = max(
        sum(by_region[region][index] for region, index in enumerate(indices))
        for indices in combinations_with_replacement(range(len(tried)), 3)
    )
    assert (
        sum(dice(region, lambda case, at=region: predict(case)[at]) for region in range(3)) >= best
    )
    for case in cases:
        np.testing.assert_array_equal(predict(case), as_written(predict(case)))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.0, 0.02, 0.4]))
def test_what_is_scored_is_what_a_label_map_says(
    tuning_cases: TuningCases, seed: int, share: float
) -> None:
    case = tuning_cases.val[0]
    maps = np.random.default_rng(seed).random((3, *case.mask().shape)) < share
    code = layout_named("brats2021").code
    written = code.regions(code.labels(case.restore(maps)))
    expected = score_case(written, case.truth(), case.record.spacing_mm)
    (found,) = score_cases(lambda _: maps, [case], lesion_wise=share < 0.4)
    assert found.regions == expected
    if found.lesions is not None:
        assert found.lesions == score_case_lesions(written, case.truth(), case.record.spacing_mm)


class Unnested(nn.Module):
    """A segmentor whose three maps have little to do with each other."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (image[:, :3] > 1).float()


def test_validation_and_pictures_show_what_is_written(tuning_cases: TuningCases) -> None:
    case = tuning_cases.val[0]
    raw = (np.moveaxis(np.array(case.image()[:, :3]), 1, 0) > 1) & (case.mask() & BRAIN_BIT != 0)
    assert not np.array_equal(raw, as_written(raw))
    predicted = predict_box(Unnested(), case, downsampling_levels=2, brain_mask=True)
    np.testing.assert_array_equal(predicted, as_written(raw))
    found = validate(Unnested(), [case], downsampling_levels=2, brain_mask=True, device=CPU).scores
    (scores,) = score_cases(lambda _: raw, [case])
    for region, of_region in scores.regions.items():
        assert found[f"val/dice_{region}"] == of_region.dice
        assert found[f"val/precision_{region}"] == of_region.precision


def test_the_overlay_shows_truth_and_prediction(tuning_cases: TuningCases, tmp_path: Path) -> None:
    picture = draw_overlay(
        BrightFlair(), tuning_cases.val, downsampling_levels=4, brain_mask=True, device=CPU
    )
    picture.save(tmp_path / "overlay.png")
    pixels = np.asarray(Image.open(tmp_path / "overlay.png"))
    left, right = np.array_split(pixels, 2, axis=1)
    for half in (left, right):
        outline = (half[:-30] == COLOURS["enhancing"]).all(axis=-1)
        assert outline.any()
