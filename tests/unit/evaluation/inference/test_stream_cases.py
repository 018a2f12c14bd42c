"""Many raw cases, one after another: in order, whatever is wrong with some, in little memory."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest

from segan_ray.brats import CODE_2017_TO_2021
from segan_ray.data.io import volumes
from segan_ray.data.io.nifti import read_image
from segan_ray.data.layouts.cases import Case, discover
from segan_ray.data.store.opened_store import TuningCases
from segan_ray.errors import CaseError
from segan_ray.evaluation.inference import stream_cases
from segan_ray.evaluation.inference.packaged_model import Model
from segan_ray.evaluation.inference.segment_volume import probabilities_of_volume, segment_volume
from segan_ray.evaluation.inference.stream_cases import AHEAD, segment_stream
from tests.unit.evaluation.inference.test_segment_volume import model_of


@pytest.fixture
def model(tuning_cases: TuningCases, tmp_path: Path) -> Model:
    return model_of(tmp_path / "checkpoint", tuning_cases)


def test_every_case_comes_in_its_order(model: Model, phantom_folder: Path) -> None:
    cases = discover(phantom_folder).cases[:4]
    found = list(segment_stream(model, cases, CODE_2017_TO_2021, probabilities=True))
    assert [one.case for one in found] == list(cases)
    for one in found:
        assert one.error is None
        volume = volumes.read_volume(one.case, CODE_2017_TO_2021)
        np.testing.assert_array_equal(one.regions, segment_volume(model, volume))
        np.testing.assert_array_equal(one.probabilities, probabilities_of_volume(model, volume))
        np.testing.assert_array_equal(one.affine, volume.affine)
    (plain,) = segment_stream(model, cases[:1], CODE_2017_TO_2021)
    assert plain.probabilities is None


def test_bad_cases_stop_no_other(model: Model, folder: Path) -> None:
    import nibabel as nib

    names = [path.name for path in sorted(folder.iterdir())][:4]
    cut = folder / names[0] / f"{names[0]}_t1.nii.gz"
    cut.write_bytes(cut.read_bytes()[:5000])
    for path in (folder / names[2]).glob("*.nii.gz"):
        scan, affine = read_image(path)
        voxels = np.zeros(scan.shape, np.float32)
        voxels[0, 0, 0] = np.nan
        nib.save(nib.Nifti1Image(voxels, affine), path)
    cases = discover(folder).cases[:4]
    (folder / names[3] / f"{names[3]}_seg.nii.gz").write_bytes(b"no image, and nobody reads it")
    found = list(segment_stream(model, cases, CODE_2017_TO_2021))
    assert [one.error is None for one in found] == [False, True, False, True]
    assert [one.regions is None for one in found] == [True, False, True, False]
    for at in (0, 2):
        assert isinstance(found[at].error, CaseError)
        assert names[at] in str(found[at].error)


def test_a_file_that_went_away_is_that_cases_error(model: Model, folder: Path) -> None:
    cases = discover(folder).cases[:2]
    next(iter(cases[0].images.values())).unlink()
    first, second = segment_stream(model, cases, CODE_2017_TO_2021)
    assert first.error is not None
    assert second.error is None


@pytest.mark.slow
def test_few_cases_are_in_memory_however_many_there_are(
    model: Model, phantom_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: weakref.WeakSet = weakref.WeakSet()
    most = 0
    prepared = stream_cases.boxed_arrays

    def counted(*args: object) -> object:
        nonlocal most
        boxed = prepared(*args)  # type: ignore[arg-type]
        alive.add(boxed)
        gc.collect()
        most = max(most, len(alive))
        return boxed

    monkeypatch.setattr(stream_cases, "boxed_arrays", counted)
    taken: list[str] = []

    def endless() -> object:
        for case in discover(phantom_folder).cases[:1] * 12:
            taken.append(case.case)
            yield case

    for index, found in enumerate(segment_stream(model, endless(), CODE_2017_TO_2021), start=1):
        assert found.regions is not None
        assert len(taken) <= index + AHEAD
    assert len(taken) == 12
    assert most <= AHEAD + 1


def test_one_who_leaves_early_waits_for_nothing_more(model: Model, phantom_folder: Path) -> None:
    cases: list[Case] = [*discover(phantom_folder).cases]
    coming = iter(cases)
    found = segment_stream(model, coming, CODE_2017_TO_2021)
    next(found)
    found.close()
    assert len(list(coming)) >= len(cases) - 1 - AHEAD
