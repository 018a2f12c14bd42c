"""Prediction: label maps for every layout, a bad case beside good ones, nothing half-written."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from segan_ray.data.cases import Case, discover
from segan_ray.data.label_maps import outputs
from segan_ray.data.phantom import write_phantoms
from segan_ray.data.store import TuningCases
from segan_ray.data.volumes import read_volume
from segan_ray.errors import DataError, RegistryError
from segan_ray.evaluation import prediction
from segan_ray.evaluation.model import Model, load_model
from segan_ray.evaluation.prediction import predict_cases
from segan_ray.evaluation.segment import probabilities_of_volume, segment_volume
from segan_ray.home import Home
from segan_ray.tracking.predict import predict
from tests.unit.test_cli import refused, segan
from tests.unit.trained import checkpoint


@pytest.fixture(scope="module")
def folder_of_model(tuning_cases: TuningCases, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("model") / "checkpoint", tuning_cases.origin)


@pytest.fixture(scope="module")
def model(folder_of_model: Path) -> Model:
    return load_model(folder_of_model)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_phantoms(tmp_path / "data", cases=3, spacing_mm=8.0)
    return tmp_path / "data"


def without_truth(data: Path) -> None:
    for path in data.rglob("*_seg.nii.gz"):
        path.unlink()


@pytest.mark.parametrize("layout", ["brats2013", "brats2015", "brats2021", "brats2024", "msd"])
def test_what_the_model_sees_is_what_the_file_says(
    model: Model, tmp_path: Path, layout: str
) -> None:
    write_phantoms(tmp_path / "data", cases=2, layout=layout, spacing_mm=8.0)
    found = discover(tmp_path / "data", layout)
    out = tmp_path / "out"
    done: list[str] = []
    for one in predict_cases(model, found, outputs(found, out), on_case=done.append):
        assert one.ok, one.problems
        assert one.label is not None
        case = next(case for case in found.cases if case.case == one.case)
        regions = segment_volume(model, read_volume(case, found.layout.code))
        assert regions.any()
        written = sitk.ReadImage(str(one.label))
        values = set(np.unique(sitk.GetArrayFromImage(written)).tolist())
        assert values <= {0, *found.layout.code.names}
        # Read back as its truth, it says what the model said, region within region.
        label = tmp_path / ("label.mha" if one.label.suffix == ".mha" else "label.nii.gz")
        shutil.copyfile(one.label, label)
        again = read_volume(replace(case, label=label), found.layout.code).label
        assert again is not None
        np.testing.assert_array_equal(again, found.layout.code.labels(regions))
    assert done == [case.case for case in found.cases]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        found.layout.upload_name(case) for case in found.cases
    )


def test_probabilities_on_request(model: Model, data: Path, tmp_path: Path) -> None:
    found = discover(data / "BraTS2021_00001")
    (one,) = predict_cases(model, found, outputs(found, tmp_path / "out"), probabilities=True)
    assert one.document()["probabilities"] == str(one.probabilities)
    image = nib.load(one.probabilities)
    expected = probabilities_of_volume(model, read_volume(found.cases[0], found.layout.code))
    scan = nib.load(found.cases[0].images["t1"])
    np.testing.assert_array_equal(image.affine, scan.affine)
    # These phantoms are stored along the axes that volumes have, or turned in place.
    assert image.shape == (*scan.shape, 3)
    assert np.asarray(image.dataobj).sum() == pytest.approx(expected.sum(), rel=1e-5)


def test_a_bad_case_does_not_stop_the_rest(model: Model, data: Path, tmp_path: Path) -> None:
    without_truth(data)
    bad = data / "BraTS2021_00001"
    (bad / f"{bad.name}_t2.nii.gz").write_bytes(b"")
    found = discover(data)
    first, second, third = predict_cases(model, found, outputs(found, tmp_path / "out"))
    assert (first.ok, second.ok, third.ok) == (True, False, True)
    assert second.document() == {
        "case": "BraTS2021_00001",
        "ok": False,
        "output": None,
        "problems": [
            f"{bad}/{bad.name}_t2.nii.gz: the file is empty. Copy it again from the source."
        ],
    }
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.parametrize("error", [DataError("no room"), RuntimeError("odd")], ids=["ours", "odd"])
def test_a_case_that_cannot_be_written(
    model: Model, data: Path, tmp_path: Path, monkeypatch, error: Exception
) -> None:
    write = prediction.write_label

    def failing(path: Path, label: np.ndarray, case: Case) -> None:
        if case.case == "BraTS2021_00000":
            raise error
        write(path, label, case)

    monkeypatch.setattr(prediction, "write_label", failing)
    found = discover(data)
    first, *others = predict_cases(model, found, outputs(found, tmp_path / "out"))
    assert str(error) in first.problems[0]
    assert all(one.ok for one in others)


def test_a_network_that_fails_on_one_case(
    model: Model, data: Path, tmp_path: Path, monkeypatch
) -> None:
    forward, calls = model.segmentor.forward, []

    def failing(image):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        return forward(image)

    monkeypatch.setattr(model.segmentor, "forward", failing)
    found = discover(data)
    predictions = predict_cases(model, found, outputs(found, tmp_path / "out"))
    assert [one.ok for one in predictions] == [False, True, True]
    assert "RuntimeError: out of memory" in predictions[0].problems[0]


def test_own_results_are_written_over(model: Model, data: Path, tmp_path: Path) -> None:
    found = discover(data / "BraTS2021_00000")
    targets = outputs(found, tmp_path / "out")
    predict_cases(model, found, targets)
    fresh = targets[0].label.read_bytes()
    targets[0].label.write_bytes(b"half")
    predict_cases(model, found, targets)
    assert targets[0].label.read_bytes() == fresh


def test_nothing_is_made_for_a_model_that_is_not_there(
    data: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(RegistryError, match="'nobody' is no checkpoint folder"):
        predict(Home(tmp_path / "home"), "nobody", discover(data), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_predict_as_a_command(folder_of_model: Path, data: Path, tmp_path: Path) -> None:
    without_truth(data)
    good = segan(
        "predict", folder_of_model, data, "out", "--probabilities", "--json", cwd=tmp_path
    )  # fmt: skip
    assert good.returncode == 0, good.stderr
    entries = json.loads(good.stdout)["cases"]
    assert [entry["case"] for entry in entries] == [f"BraTS2021_0000{i}" for i in range(3)]
    assert entries[0]["output"] == "out/BraTS2021_00000.nii.gz"
    assert (tmp_path / entries[0]["probabilities"]).is_file()
    (data / "BraTS2021_00002" / "BraTS2021_00002_t1.nii.gz").unlink()
    some = segan("predict", folder_of_model, data, "out", cwd=tmp_path)
    assert some.returncode == 1
    assert "BraTS2021_00002: the t1 volume is missing" in some.stderr
    assert some.stdout == "2 label maps in out; 1 failed\n"
    among = segan("predict", folder_of_model, data, data / "BraTS2021_00000", cwd=tmp_path)
    refused(among, "which is input")
    (tmp_path / "empty").mkdir()
    refused(segan("predict", folder_of_model, "empty", "out", cwd=tmp_path), "no BRATS case found")
    refused(segan("predict", folder_of_model, "none", "out", cwd=tmp_path), "found nothing")
