"""From a box to maps: where voxels land, and which settings change what."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from segan_ray.brats import as_written
from segan_ray.config import load_experiment
from segan_ray.data.store.opened_store import BRAIN_BIT, PreparedCase, TuningCases
from segan_ray.evaluation.inference.inference_settings import InferenceSettings, Postprocessing
from segan_ray.evaluation.inference.predict_box import (
    BoxArrays,
    predict_box,
    predict_slice,
    probabilities_of_box,
)
from segan_ray.evaluation.scoring.threshold import FLAIR
from tests.unit.segmentors import CPU, PLAIN, BrightFlair, Everything, Graded, Unnested, settings

FITTED = Postprocessing(
    thresholds={"whole": 0.4, "core": 0.6, "enhancing": 0.7},
    smallest_mm3={"whole": 1000.0, "core": 200.0, "enhancing": 0.0},
)


@pytest.fixture
def case(tuning_cases: TuningCases) -> PreparedCase:
    return tuning_cases.train[0]


@pytest.fixture
def box(case: PreparedCase) -> BoxArrays:
    return BoxArrays.of_case(case)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_a_prediction_lands_on_the_voxels_it_came_from(box: BoxArrays, batch_size: int) -> None:
    found = predict_box(BrightFlair(), box, settings(batch_size=batch_size)).regions
    expected = (box.image[:, FLAIR] > 1) & (box.mask & BRAIN_BIT != 0)
    for region in found:
        np.testing.assert_array_equal(region, expected)


def test_predictions_are_confined_to_the_brain_if_asked(box: BoxArrays) -> None:
    confined = predict_box(Everything(), box, PLAIN).regions
    np.testing.assert_array_equal(confined[0], box.mask & BRAIN_BIT != 0)
    assert predict_box(Everything(), box, settings(brain_mask=False)).regions.all()


def test_regions_are_those_of_a_label_map(box: BoxArrays) -> None:
    raw = (np.moveaxis(np.array(box.image[:, :3]), 1, 0) > 1) & (box.mask & BRAIN_BIT != 0)
    assert not np.array_equal(raw, as_written(raw))
    found = predict_box(Unnested(), box, PLAIN).regions
    np.testing.assert_array_equal(found, as_written(raw))


@pytest.mark.parametrize("after", [Postprocessing(), FITTED], ids=["plain", "fitted"])
def test_regions_and_probabilities_come_of_one_pass(box: BoxArrays, after: Postprocessing) -> None:
    asked = settings(postprocessing=after, batch_size=5)
    maps = predict_box(Graded(), box, asked, keep_probabilities=True)
    plain = predict_box(Graded(), box, asked)
    np.testing.assert_array_equal(maps.regions, plain.regions)
    assert plain.probabilities is None
    assert maps.probabilities is not None
    np.testing.assert_array_equal(maps.probabilities, probabilities_of_box(Graded(), box, asked))


@pytest.mark.parametrize("after", [Postprocessing(), FITTED], ids=["plain", "fitted"])
def test_a_slice_is_that_of_the_whole_box(box: BoxArrays, after: Postprocessing) -> None:
    asked = settings(postprocessing=after)
    whole = predict_box(Graded(), box, asked).regions
    assert whole.any()
    for position in range(0, len(box.mask), 3):
        found = predict_slice(Graded(), box, asked, position)
        np.testing.assert_array_equal(found, whole[:, position])


def test_a_part_of_a_box_is_predicted_where_it_lies(box: BoxArrays) -> None:
    whole = predict_box(Graded(), box, PLAIN, keep_probabilities=True)
    part = predict_box(
        Graded(), box, settings(batch_size=2), positions=slice(3, 8), keep_probabilities=True
    )
    np.testing.assert_array_equal(part.regions, whole.regions[:, 3:8])
    assert whole.probabilities is not None
    np.testing.assert_array_equal(part.probabilities, whole.probabilities[:, 3:8])


DIFFERENT = {
    "precision": "training.precision=bfloat16",
    "downsampling_levels": "critic.depth=5",
    "context_slices": "data.neighbours=2",
    "brain_mask": "training.brain_mask=false",
}
"""A setting of an experiment that changes each of those that follow from it."""


def test_settings_follow_from_the_experiment() -> None:
    plain = load_experiment(None, ["training.precision=float32"])
    usual = InferenceSettings.of((plain,), CPU)
    assert usual.postprocessing == Postprocessing()
    assert usual.batch_size == 8
    assert InferenceSettings.of((plain,), torch.device("cuda")).batch_size == 32
    assert InferenceSettings.of((plain,), CPU, postprocessing=FITTED).postprocessing == FITTED
    for name, change in DIFFERENT.items():
        other = InferenceSettings.of(
            (load_experiment(None, ["training.precision=float32", change]),), CPU
        )
        changed = {
            field.name
            for field in fields(InferenceSettings)
            if getattr(other, field.name) != getattr(usual, field.name)
        }
        assert changed == {name}
