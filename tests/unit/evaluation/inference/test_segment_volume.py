"""From a model and a case to regions: stored and raw cases agree, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from segan_ray.brats import as_written
from segan_ray.config import load_experiment
from segan_ray.data.io.volumes import Volume, read_volume
from segan_ray.data.layouts.cases import discover
from segan_ray.data.store.opened_store import PreparedCase, TuningCases
from segan_ray.data.store.origin import write_origin
from segan_ray.errors import DataError
from segan_ray.evaluation.inference.inference_settings import Postprocessing
from segan_ray.evaluation.inference.packaged_model import Model, load_model
from segan_ray.evaluation.inference.predict_box import BoxArrays, predict_box
from segan_ray.evaluation.inference.segment_volume import (
    probabilities_of_case,
    probabilities_of_volume,
    segment_case,
    segment_volume,
)
from segan_ray.evaluation.inference.validation import validation_settings
from segan_ray.training.checkpoints.checkpoint import save_checkpoint
from segan_ray.training.state import new_state
from tests.unit.stored import stored_case

CPU = torch.device("cpu")


def with_segmentor(model: Model, segmentor: nn.Module) -> Model:
    (member,) = model.members
    return replace(model, members=(replace(member, segmentor=segmentor),))


def model_of(folder: Path, cases: TuningCases, *changes: str) -> Model:
    """Return a model whose maps are neither empty nor full, through its checkpoint."""
    experiment = load_experiment(
        None,
        [
            "segmentor.depth=2", "segmentor.base_width=4", "critic.depth=2",
            "critic.base_width=4", "training.precision=float32", *changes,
        ],
    )  # fmt: skip
    save_checkpoint(folder, new_state(experiment, CPU), experiment)
    write_origin(folder, cases.origin)
    return load_model(folder)


@pytest.fixture
def model(tuning_cases: TuningCases, tmp_path: Path) -> Model:
    return model_of(tmp_path / "checkpoint", tuning_cases)


def volume_of(case: PreparedCase, folder: Path) -> Volume:
    found = discover(folder)
    (raw,) = [raw for raw in found.cases if raw.case == case.record.case]
    return read_volume(raw, found.layout.code)


@pytest.mark.parametrize("changes", [(), ("variant=unet",), ("data.neighbours=1",)], ids=str)
def test_a_raw_case_is_seen_as_the_stored_one(
    tuning_cases: TuningCases, phantom_folder: Path, tmp_path: Path, changes: tuple[str, ...]
) -> None:
    model = model_of(tmp_path, tuning_cases, *changes)
    for case in tuning_cases.val:
        stored = case.restore(segment_case(model, case))
        assert stored.any()
        raw = segment_volume(model, volume_of(case, phantom_folder))
        np.testing.assert_array_equal(raw, stored)


def test_regions_are_probabilities_above_their_thresholds(
    model: Model, tuning_cases: TuningCases, phantom_folder: Path
) -> None:
    volume = volume_of(tuning_cases.val[0], phantom_folder)
    probability = probabilities_of_volume(model, volume)
    assert probability.dtype == np.float32
    assert probability.shape == (3, *volume.image.shape[1:])
    np.testing.assert_array_equal(segment_volume(model, volume), as_written(probability > 0.5))


def test_an_empty_volume_is_refused_in_words(model: Model) -> None:
    empty = Volume(np.zeros((4, 8, 8, 8), np.float32), None, np.eye(4))
    for segment in (segment_volume, probabilities_of_volume):
        with pytest.raises(DataError, match="every voxel of every modality is zero"):
            segment(model, empty)


class Local(nn.Module):
    """A segmentor that a mirror cannot fool: each voxel by itself."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (image[:, :3] * 2 - image[:, 3:]) / 256 + 0.5


class Sided(nn.Module):
    """A segmentor that sees by where a voxel lies."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        side = torch.linspace(0, 1, image.shape[2])[None, None, :, None]
        return side.expand(len(image), 3, -1, image.shape[3])


def probability(model: Model, case: PreparedCase, *, flips: bool) -> np.ndarray:
    model = replace(model, postprocessing=Postprocessing(flips=flips))
    return probabilities_of_case(model, case)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20)),
    origin=st.tuples(*[st.integers(0, 4)] * 3),
)
def test_mirroring_changes_nothing_for_a_network_it_cannot_fool(
    model: Model, tmp_path: Path, size, origin
) -> None:
    model = with_segmentor(model, Local())
    case = stored_case(tmp_path / "case", size, origin)
    plain = probability(model, case, flips=False)
    np.testing.assert_array_equal(probability(model, case, flips=True), plain)
    image = np.moveaxis(np.asarray(case.image(), dtype=np.float32), 1, 0)
    np.testing.assert_array_equal(plain, (image[:3] * 2 - image[3:]) / 256 + 0.5)
    restored = case.restore(plain)
    assert restored.shape[1:] == case.record.shape
    assert np.count_nonzero(restored) == np.count_nonzero(plain)


def test_mirroring_averages_left_and_right(model: Model, tmp_path: Path) -> None:
    model = with_segmentor(model, Sided())
    case = stored_case(tmp_path / "case", (32, 20, 3))
    assert np.ptp(probability(model, case, flips=False)) > 0.5
    np.testing.assert_allclose(probability(model, case, flips=True), 0.5, atol=1e-6)


@pytest.mark.parametrize("variant", ["s1-3c", "s3-3c", "unet"])
def test_half_the_bits_say_nearly_the_same(
    tuning_cases: TuningCases, tmp_path: Path, variant: str
) -> None:
    single = model_of(tmp_path, tuning_cases, f"variant={variant}")
    (member,), (experiment,) = single.members, single.experiments
    training = experiment.training.model_copy(update={"precision": "bfloat16"})
    changed = experiment.model_copy(update={"training": training})
    half = replace(single, members=(replace(member, experiment=changed),))
    for case in tuning_cases.val:
        expected, found = (probability(model, case, flips=False) for model in (single, half))
        assert found.dtype == np.float32
        assert not np.array_equal(found, expected)
        np.testing.assert_allclose(found, expected, atol=0.02)
        clear = np.abs(expected - 0.5) > 0.02
        np.testing.assert_array_equal((found > 0.5)[clear], (expected > 0.5)[clear])


def test_regions_in_training_are_those_of_the_model(
    model: Model, tuning_cases: TuningCases
) -> None:
    case = tuning_cases.val[0]
    settings = validation_settings(model.experiments[0], CPU)
    in_training = predict_box(model.segmentor, BoxArrays.of_case(case), settings).regions
    np.testing.assert_array_equal(segment_case(model, case), in_training)


def test_a_truth_outside_the_brain_does_not_move_the_box(
    model: Model, tuning_cases: TuningCases, phantom_folder: Path
) -> None:
    volume = volume_of(tuning_cases.val[0], phantom_folder)
    assert volume.label is not None
    corner = volume.label.copy()
    corner[0, 0, 0] = 1
    for label in (None, corner):
        np.testing.assert_array_equal(
            segment_volume(model, replace(volume, label=label)), segment_volume(model, volume)
        )
