"""Pieces of maps, and the setting of them that is best on validation patients."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn

from segan_ray.brats import CODE_2023, REGIONS, as_written
from segan_ray.config import load_experiment
from segan_ray.data.store.opened_store import PreparedCase, TuningCases
from segan_ray.data.store.prepare_case import sha256
from segan_ray.evaluation.inference.components import pieces, without_small
from segan_ray.evaluation.inference.inference_settings import Postprocessing
from segan_ray.evaluation.inference.packaged_model import Model, TrainedSegmentor
from segan_ray.evaluation.inference.postprocessing import (
    SETTINGS,
    SMALLEST_MM3,
    THRESHOLDS,
    fit_postprocessing,
    mean_dice_by_settings,
)
from segan_ray.evaluation.inference.segment_volume import segment_case
from segan_ray.evaluation.metrics.region_metrics import overlap
from tests.unit.stored import ORIGIN, stored_case

GRIDS = arrays.arrays(bool, st.tuples(*[st.integers(1, 6)] * 3))


class Says(nn.Module):
    """A segmentor that says what a case's second modality holds, in every region."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image[:, 1:2].expand(-1, len(REGIONS), -1, -1)


def saying(after: Postprocessing = Postprocessing()) -> Model:  # noqa: B008 - frozen
    experiment = load_experiment(None, ["training.precision=float32"])
    return Model((TrainedSegmentor(Says().eval(), experiment),), ORIGIN, after)


def case_of(
    folder: Path, probability: np.ndarray, truth: np.ndarray, spacing_mm: float = 1.0
) -> PreparedCase:
    """Return a case whose second modality is ``probability``, true in every region alike."""
    case = stored_case(folder, (*probability.shape[1:], len(probability)))
    image = np.zeros((len(probability), 4, *probability.shape[1:]), np.float16)
    image[:, 1] = probability
    np.save(folder / "image.npy", image)
    np.save(folder / "mask.npy", (8 | 7 * truth).astype(np.uint8))
    checksums = {name: sha256(folder / name) for name in case.record.checksums}
    spacing = (spacing_mm,) * 3
    record = case.record.model_copy(update={"spacing_mm": spacing, "checksums": checksums})
    return replace(case, record=record)


def flooded(region: np.ndarray) -> list[set[tuple[int, ...]]]:
    """Return the pieces of ``region`` the slow way: voxel by voxel."""
    left = set(map(tuple, np.argwhere(region).tolist()))
    found = []
    while left:
        piece, edge = set(), [left.pop()]
        while edge:
            here = edge.pop()
            piece.add(here)
            near = {at for at in left if max(abs(a - b) for a, b in zip(at, here, strict=True)) < 2}
            left -= near
            edge.extend(near)
        found.append(piece)
    return found


@settings(deadline=None)
@given(region=GRIDS, smallest=st.floats(0, 12))
def test_small_pieces_are_dropped_and_others_kept(region: np.ndarray, smallest: float) -> None:
    expected = np.zeros_like(region)
    for piece in flooded(region):
        if len(piece) >= smallest:
            expected[tuple(np.array(sorted(piece)).T)] = True
    np.testing.assert_array_equal(without_small(region, smallest), expected)
    labels, sizes = pieces(region)
    assert sorted(sizes) == sorted(map(len, flooded(region)))
    np.testing.assert_array_equal(np.bincount(labels.ravel(), minlength=1)[1:], sizes)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_dice_of_settings_is_that_of_the_label_map_they_give(data: st.DataObject) -> None:
    grid = data.draw(st.tuples(*[st.integers(1, 5)] * 3))
    truth = as_written(data.draw(arrays.arrays(bool, (3, *grid))))
    elements = st.sampled_from([0, 0.25, 0.45, 0.55, 1])
    probability = data.draw(arrays.arrays(np.float32, (3, *grid), elements=elements))
    voxel_mm3 = data.draw(st.sampled_from([1.0, 9.0, 60.0]))
    found = mean_dice_by_settings(probability, truth, voxel_mm3)
    for indices in data.draw(st.lists(st.tuples(*[st.integers(0, len(SETTINGS) - 1)] * 3))):
        chosen = [SETTINGS[index] for index in indices]
        maps = [
            without_small(map_ > np.float32(threshold), smallest / voxel_mm3)
            for map_, (smallest, threshold) in zip(probability, chosen, strict=True)
        ]
        written = CODE_2023.regions(CODE_2023.labels(np.stack(maps)))
        expected = [overlap(*pair).dice for pair in zip(written, truth, strict=True)]
        assert found[indices] == pytest.approx(np.mean(expected))


def test_pieces_are_measured_in_mm(tmp_path: Path) -> None:
    probability = np.zeros((6, 8, 8))
    probability[0, 0, :3] = 1  # 24 mm³ at 2 mm
    probability[3:, 4:6, 4] = 1  # 48 mm³
    case = case_of(tmp_path, probability, probability > 0, spacing_mm=2.0)
    for smallest, voxels in ((0, 9), (24, 9), (24.1, 6), (48, 6), (49, 0)):
        after = Postprocessing(smallest_mm3=dict.fromkeys(REGIONS, smallest))
        found = segment_case(saying(after), case)
        assert [region.sum() for region in found] == [voxels] * 3


def test_what_fits_validation_patients_is_found(tmp_path: Path) -> None:
    truth = np.zeros((6, 16, 16), dtype=bool)
    truth[1:4, 4:10, 4:10] = True
    probability = np.where(truth, 0.36, 0.0)
    probability[0, 15, :] = 0.9  # 16 voxels that are none
    probability[5, :8, 14:] = 0.33  # below what fits
    val = tuple(case_of(tmp_path / name, probability, truth) for name in "ab")
    found = fit_postprocessing([(saying(), val)])
    # 0.3 would keep what is wrong unless it is small, 0.5 nothing: no setting has all right but
    # those that drop 16 voxels, and the plainest is the least that does. What is enhancing is core
    # and whole too, so they need no threshold of their own to hold it.
    assert found.smallest_mm3 == dict.fromkeys(REGIONS, 25.0)
    assert found.thresholds == {"whole": 0.5, "core": 0.5, "enhancing": 0.3}
    for region in segment_case(saying(found), val[0]):
        np.testing.assert_array_equal(region, truth)


def test_where_nothing_helps_the_plain_setting_stays(tmp_path: Path) -> None:
    truth = np.zeros((4, 16, 16), dtype=bool)
    truth[1:3, 4:12, 4:12] = True
    cases = TuningCases(ORIGIN, (), (case_of(tmp_path, truth.astype(float), truth),))
    assert fit_postprocessing([(saying(), cases.val)]) == Postprocessing()
    assert fit_postprocessing([(saying(), cases.val)], flips=True) == Postprocessing(flips=True)
    assert (THRESHOLDS[0], SMALLEST_MM3[0]) == (0.5, 0.0)


def test_it_is_fitted_on_validation_patients_alone(
    tuning_cases: TuningCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()
    opened = PreparedCase.image
    monkeypatch.setattr(
        PreparedCase, "image", lambda case: (read.add(case.record.case), opened(case))[1]
    )
    told: list[str] = []
    fit_postprocessing([(saying(), tuning_cases.val)], on_case=told.append)
    assert read == set(told) == {case.record.case for case in tuning_cases.val}


def test_each_of_several_models_is_fitted_on_its_own_cases(tmp_path: Path) -> None:
    truth = np.zeros((6, 16, 16), dtype=bool)
    truth[1:4, 4:10, 4:10] = True
    sure, unsure = (
        case_of(tmp_path / name, np.where(truth, seen, 0.1), truth)
        for name, seen in (("a", 0.9), ("b", 0.45))
    )
    assert fit_postprocessing([(saying(), [sure])]).thresholds["enhancing"] == 0.5
    both = fit_postprocessing([(saying(), [sure]), (saying(), [unsure])])
    assert both.thresholds["enhancing"] == 0.4


def test_fitting_holds_one_case_however_many_there_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((16, 64, 64), dtype=bool)
    truth[4:9, 20:40, 20:40] = True
    case = case_of(tmp_path, np.where(truth, 0.8, rng.random(truth.shape) * 0.3), truth)

    def peak(count: int) -> int:
        tracemalloc.start()
        fit_postprocessing([(saying(), (case,) * count)])
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    peak(1)
    one_map = truth.size * 3 * 4
    assert peak(12) - peak(2) < one_map / 4
