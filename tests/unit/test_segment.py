"""From a model and a case to regions: stored and raw cases agree, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segan_ray.config import load_experiment
from segan_ray.data.cases import discover
from segan_ray.data.origin import write_origin
from segan_ray.data.store import PreparedCase, TuningCases
from segan_ray.data.volumes import Volume, read_volume
from segan_ray.errors import DataError
from segan_ray.evaluation.model import Model, load_model
from segan_ray.evaluation.segment import probabilities_of_volume, segment_case, segment_volume
from segan_ray.training.checkpoint import save_checkpoint
from segan_ray.training.state import new_state

CPU = torch.device("cpu")


def model_of(folder: Path, cases: TuningCases, *settings: str) -> Model:
    """Return a model whose maps are neither empty nor full, through its checkpoint."""
    experiment = load_experiment(
        None,
        [
            "segmentor.depth=2", "segmentor.base_width=4", "critic.depth=2",
            "critic.base_width=4", "training.precision=float32", *settings,
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


@pytest.mark.parametrize("settings", [(), ("variant=unet",), ("data.neighbours=1",)], ids=str)
def test_a_raw_case_is_seen_as_the_stored_one(
    tuning_cases: TuningCases, phantom_folder: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    model = model_of(tmp_path, tuning_cases, *settings)
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
    np.testing.assert_array_equal(segment_volume(model, volume), probability > 0.5)


def test_an_empty_volume_is_refused_in_words(model: Model) -> None:
    empty = Volume(np.zeros((4, 8, 8, 8), np.float32), None, np.eye(4))
    for segment in (segment_volume, probabilities_of_volume):
        with pytest.raises(DataError, match="every voxel of every modality is zero"):
            segment(model, empty)
