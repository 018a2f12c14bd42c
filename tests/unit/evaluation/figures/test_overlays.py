"""Pictures of slices with the outlines of truth and prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from segan_ray.data.store.opened_store import TuningCases
from segan_ray.evaluation.figures.overlays import COLOURS, draw_overlay
from segan_ray.evaluation.inference.inference_settings import Postprocessing
from tests.unit.segmentors import PLAIN, BrightFlair, Graded, settings


def test_the_overlay_shows_truth_and_prediction(tuning_cases: TuningCases, tmp_path: Path) -> None:
    picture = draw_overlay(BrightFlair(), tuning_cases.val, PLAIN)
    picture.save(tmp_path / "overlay.png")
    pixels = np.asarray(Image.open(tmp_path / "overlay.png"))
    left, right = np.array_split(pixels, 2, axis=1)
    for half in (left, right):
        outline = (half[:-30] == COLOURS["enhancing"]).all(axis=-1)
        assert outline.any()


def test_the_overlay_shows_regions_as_they_are_postprocessed(tuning_cases: TuningCases) -> None:
    def halves(after: Postprocessing) -> list[np.ndarray]:
        picture = draw_overlay(Graded(), tuning_cases.val, settings(postprocessing=after))
        return np.array_split(np.asarray(picture), 2, axis=1)

    regions = ("whole", "core", "enhancing")
    truth, predicted = halves(Postprocessing())
    higher = Postprocessing(thresholds=dict.fromkeys(regions, 0.8))
    larger = Postprocessing(smallest_mm3=dict.fromkeys(regions, 1e6))
    for after in (higher, larger):
        same, other = halves(after)
        np.testing.assert_array_equal(same, truth)
        assert not np.array_equal(other, predicted)
    nothing = (halves(larger)[1][:-30] == COLOURS["whole"]).all(axis=-1)
    assert not nothing.any()
