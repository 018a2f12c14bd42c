"""Prediction: label maps for every layout, a bad case beside good ones, nothing half-written."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from segan_ray.cli.models import _show_predictions
from segan_ray.data.io.label_maps import outputs
from segan_ray.data.io.volumes import check_headers, read_volume
from segan_ray.data.layouts.cases import Case, discover
from segan_ray.data.phantom.dataset import write_phantoms
from segan_ray.data.store.manifest import PrepareSettings
from segan_ray.data.store.opened_store import TuningCases
from segan_ray.errors import DataError, NotInstalledError, RegistryError
from segan_ray.evaluation.inference import prediction
from segan_ray.evaluation.inference.packaged_model import Model, load_model
from segan_ray.evaluation.inference.prediction import predict_cases
from segan_ray.evaluation.inference.segment_volume import probabilities_of_volume, segment_volume
from segan_ray.home import Home
from segan_ray.workflows.predict import predict
from tests.unit.command_line import refused, segan
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


def doubled(truth: Path) -> None:
    if truth.suffix == ".mha":
        shutil.copytree(truth.parent, truth.parent.with_suffix(".9"))
    else:
        truth.with_name(truth.name.removesuffix(".gz")).write_bytes(b"x")


def of_another_grid(truth: Path) -> None:
    image = sitk.GetImageFromArray(np.ones((3, 4, 5), dtype=np.uint8))
    sitk.WriteImage(image, str(truth))


BAD_TRUTHS = {
    "doubled": doubled,
    "damaged": lambda truth: truth.write_bytes(b"x"),
    "gone": lambda truth: truth.unlink(),
    "dangling": lambda truth: (truth.unlink(), truth.symlink_to("nowhere")),
    "a folder": lambda truth: (truth.unlink(), truth.mkdir()),
    "another grid": of_another_grid,
}


@pytest.mark.parametrize("layout", ["brats2015", "brats2021", "msd"])
@pytest.mark.parametrize("kind", BAD_TRUTHS)
def test_a_bad_truth_stops_no_prediction(
    model: Model, tmp_path: Path, layout: str, kind: str
) -> None:
    write_phantoms(tmp_path / "data", cases=1, layout=layout, spacing_mm=8.0)
    truth = discover(tmp_path / "data", layout).cases[0].label
    assert truth is not None
    BAD_TRUTHS[kind](truth)
    found = discover(tmp_path / "data", layout)
    (one,) = predict_cases(model, found, outputs(found, tmp_path / "out"))
    assert one.ok, one.problems
    if kind in {"doubled", "damaged", "another grid"}:
        assert check_headers(found.cases[0])


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


@pytest.mark.parametrize("what", ["N4", "MetaImage"])
def test_a_package_that_is_missing_is_said_once_for_all(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    layout = "brats2021" if what == "N4" else "brats2013"
    write_phantoms(tmp_path / "data", cases=3, spacing_mm=8.0, layout=layout)
    if what == "N4":
        corrected = model.origin.model_copy(update={"preparation": PrepareSettings(n4=True)})
        model = replace(model, origin=corrected)
    # None in its place makes Python say that there is no such module.
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    found = discover(tmp_path / "data")
    with pytest.raises(NotInstalledError, match=rf"{what}.* needs SimpleITK.*segan-ray\[itk\]"):
        predict_cases(model, found, outputs(found, tmp_path / "out"))
    assert [*(tmp_path / "out").rglob("*.*")] == []


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


def test_results_are_written_over_only_where_that_is_asked_for(
    folder_of_model: Path, data: Path, tmp_path: Path
) -> None:
    found, home = discover(data / "BraTS2021_00000"), Home(tmp_path / "home")
    model, out = str(folder_of_model), tmp_path / "out"
    (one,) = predict(home, model, found, out)
    assert one.label is not None
    fresh = one.label.read_bytes()
    one.label.write_bytes(b"mine")
    # Before a model is looked for, so before any work.
    with pytest.raises(DataError, match=r"BraTS2021_00000.nii.gz: exists\. .*--overwrite"):
        predict(home, "nobody", found, out)
    assert one.label.read_bytes() == b"mine"
    (again,) = predict(home, model, found, out, overwrite=True)
    assert again.ok
    assert one.label.read_bytes() == fresh
    # A folder of a checkpoint needs no home.
    assert not home.folder.exists()


def test_a_file_that_comes_to_be_there_meanwhile_is_kept(
    model: Model, data: Path, tmp_path: Path
) -> None:
    found = discover(data)
    targets = outputs(found, tmp_path / "out")

    def write_next(case: str) -> None:
        if case == "BraTS2021_00000":
            targets[1].label.write_bytes(b"mine")

    predictions = predict_cases(model, found, targets, on_case=write_next)
    assert [one.ok for one in predictions] == [True, False, True]
    assert targets[1].label.read_bytes() == b"mine"


def test_voxels_unlike_those_of_training_are_said(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert model.origin.spacing_mm == ((4.0, 4.0, 4.0), (4.0, 4.0, 4.0))
    for spacing_mm, warned in ((4.0, False), (4.3, False), (8.0, True)):
        data = tmp_path / f"data-{spacing_mm}"
        write_phantoms(data, cases=2, spacing_mm=spacing_mm)
        found = discover(data)
        predictions = predict_cases(model, found, outputs(found, data / "out"))
        assert ["warnings" in one.document() for one in predictions] == [warned, warned]
    assert (
        predictions[0]
        .warnings[0]
        .startswith("voxels of 8×8×8 mm; the model was trained on 4×4×4 mm")
    )
    _show_predictions(predictions, data / "out")
    said = capsys.readouterr().err
    assert said.count("Note: BraTS2021_00000 and 1 more: voxels of 8×8×8 mm") == 1


def test_a_guessed_orientation_is_said(model: Model, data: Path, tmp_path: Path) -> None:
    for path in (data / "BraTS2021_00001").iterdir():
        image = nib.load(path)
        # nibabel's guess: axes to the left, front and head, the origin in the middle.
        affine = nib.Nifti1Header.get_best_affine(without_codes(image.header))
        bare = nib.Nifti1Image(np.asarray(image.dataobj), affine)
        bare.set_sform(None, code=0)
        bare.set_qform(None, code=0)
        nib.save(bare, path)
    found = discover(data)
    first, second, _ = predict_cases(model, found, outputs(found, tmp_path / "out"))
    assert not any("qform" in warning for warning in first.warnings)
    (said,) = (warning for warning in second.warnings if "qform" in warning)
    assert "are taken to run to LAS" in said
    written = nib.load(second.label)
    assert (written.header["qform_code"], written.header["sform_code"]) == (0, 0)


def without_codes(header: nib.Nifti1Header) -> nib.Nifti1Header:
    bare = header.copy()
    bare["qform_code"] = bare["sform_code"] = 0
    return bare


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
    again = segan("predict", folder_of_model, data, "out", "--probabilities", cwd=tmp_path)
    refused(again, "BraTS2021_00000.nii.gz: exists (6 of 6 files to write do).")
    (data / "BraTS2021_00002" / "BraTS2021_00002_t1.nii.gz").unlink()
    some = segan("predict", folder_of_model, data, "out", "--overwrite", cwd=tmp_path)
    assert some.returncode == 1
    assert "BraTS2021_00002: the t1 volume is missing" in some.stderr
    assert some.stdout == "2 label maps in out; 1 failed\n"
    among = segan("predict", folder_of_model, data, data / "BraTS2021_00000", cwd=tmp_path)
    refused(among, "which is input")
    (tmp_path / "empty").mkdir()
    refused(segan("predict", folder_of_model, "empty", "out", cwd=tmp_path), "no BRATS case found")
    refused(segan("predict", folder_of_model, "none", "out", cwd=tmp_path), "found nothing")
