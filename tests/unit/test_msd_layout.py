"""The Decathlon's Task01: four modalities in one file, in the order dataset.json gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from segan_ray.brats import CODE_MSD, MODALITIES
from segan_ray.data.cases import Case, discover
from segan_ray.data.inspection import inspect_case
from segan_ray.data.prepare_case import signature
from segan_ray.data.volumes import check_headers, read_volume
from segan_ray.errors import CaseError, DataError

PUBLISHED = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
SHAPE = (5, 6, 7)
AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])


def write(path: Path, voxels: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, AFFINE), path)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """One case with truth and one without; channel c holds 100 c and more."""
    rng = np.random.default_rng(0)
    root = tmp_path / "Task01_BrainTumour"
    root.mkdir()
    stack = rng.integers(1, 99, (*SHAPE, 4)).astype(np.float32) + 100 * np.arange(4)
    for image in ("imagesTr/BRATS_001.nii.gz", "imagesTs/BRATS_485.nii.gz"):
        write(root / image, stack.astype(np.float32))
    label = rng.integers(0, 4, SHAPE).astype(np.uint8)
    write(root / "labelsTr/BRATS_001.nii.gz", label)
    describe(root, {"name": "BRATS", "modality": PUBLISHED})
    return root


def describe(root: Path, document: Any) -> None:
    (root / "dataset.json").write_text(json.dumps(document))


def first(root: Path) -> Case:
    return discover(root).cases[0]


@pytest.mark.parametrize("where", ["..", ".", "imagesTr"])
def test_a_task_is_found_from_above_and_within(task: Path, where: str) -> None:
    found = discover((task / where).resolve())
    assert found.layout.name == "msd"
    case = found.cases[0]
    assert (case.case, case.patient, case.grade) == ("BRATS_001", "BRATS_001", None)
    assert set(case.images.values()) == {task / "imagesTr/BRATS_001.nii.gz"}
    assert case.label == task / "labelsTr/BRATS_001.nii.gz"
    if where != "imagesTr":
        assert (found.cases[1].case, found.cases[1].label) == ("BRATS_485", None)


def test_macos_twins_are_passed_over(task: Path) -> None:
    for folder in ("imagesTr", "labelsTr"):
        (task / folder / "._BRATS_001.nii.gz").write_bytes(b"x")
    assert len(discover(task).cases) == 2
    assert first(task).problems == ()


@pytest.mark.parametrize(
    ("modality", "hundreds"),
    [
        (PUBLISHED, {"flair": 0, "t1": 1, "t1ce": 2, "t2": 3}),
        (
            {"3": "FLAIR", "0": "t1gd", "2": "T2w", "1": "T1w"},
            {"flair": 3, "t1": 1, "t1ce": 0, "t2": 2},
        ),
        (None, {"flair": 0, "t1": 1, "t1ce": 2, "t2": 3}),
    ],
)
def test_channels_come_in_the_order_of_the_dataset_file(
    task: Path, modality: dict[str, str] | None, hundreds: dict[str, int]
) -> None:
    describe(task, {"name": "BRATS"} | ({"modality": modality} if modality else {}))
    volume = read_volume(first(task), CODE_MSD)
    assert volume.image.shape == (4, *SHAPE)
    for name, voxels in zip(MODALITIES, volume.image, strict=True):
        assert set((voxels // 100).flat) == {hundreds[name]}
    assert volume.spacing_mm == pytest.approx((2, 2, 3))


def test_without_a_dataset_file_the_published_order_holds(task: Path) -> None:
    (task / "dataset.json").unlink()
    assert first(task).channels == {"flair": 0, "t1": 1, "t1ce": 2, "t2": 3}


def test_files_are_those_of_the_folders_whatever_the_dataset_file_names(task: Path) -> None:
    before = discover(task)
    elsewhere = {"image": "../../secret.nii.gz", "label": "/etc/hostname"}
    listed = {"modality": PUBLISHED, "training": [elsewhere], "test": ["../../secret.nii.gz"]}
    describe(task, listed)
    assert discover(task) == before


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            {"modality": PUBLISHED | {"2": "PD"}},
            "of channel 2 is 'PD'; expected FLAIR, T1w",
        ),
        ({"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd"}}, "names no channel for T2w"),
        ({"modality": PUBLISHED | {"2": "T1w"}}, "names T1w twice"),
        ({"modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "7": "T2w"}}, "names channels 0, 1"),
        ({"modality": ["FLAIR", "T1w"]}, "must map channels to names"),
        ({"modality": {"first": "FLAIR"}}, "must map channels to names"),
        ([], "holds no JSON object"),
    ],
)
def test_other_modalities_are_an_error_in_words(task: Path, document: Any, words: str) -> None:
    describe(task, document)
    with pytest.raises(DataError, match=words) as caught:
        discover(task)
    assert str(task / "dataset.json") in str(caught.value)


def test_a_dataset_file_that_is_no_json(task: Path) -> None:
    (task / "dataset.json").write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        discover(task)


def test_another_task_beside_it_is_passed_over(task: Path) -> None:
    other = task.parent / "Task04_Hippocampus"
    (other / "imagesTr").mkdir(parents=True)
    (other / "imagesTr" / "hippocampus_001.nii.gz").write_bytes(b"x")
    describe(other, {"modality": {"0": "MRI"}})
    assert len(discover(task.parent).cases) == 2


def test_truth_without_images_is_a_problem(task: Path) -> None:
    (task / "imagesTr/BRATS_001.nii.gz").unlink()
    (problem,) = check_headers(first(task))
    assert problem == f"the images are missing: expected BRATS_001.nii.gz in {task / 'imagesTr'}."


def test_one_name_in_both_folders_is_refused(task: Path) -> None:
    (task / "imagesTs/BRATS_485.nii.gz").rename(task / "imagesTs/BRATS_001.nii.gz")
    with pytest.raises(DataError, match="two cases are called BRATS_001"):
        discover(task)


@pytest.mark.parametrize("channels", [0, 2])
def test_a_file_of_other_channels_is_a_problem(task: Path, channels: int) -> None:
    shape = (*SHAPE, channels) if channels else SHAPE
    write(task / "imagesTr/BRATS_001.nii.gz", np.ones(shape, dtype=np.float32))
    (problem,) = check_headers(first(task))
    assert f"has {'×'.join(map(str, shape))} voxels; expected a 4-D file of 4 channels" in problem


def test_a_constant_channel_is_named(task: Path) -> None:
    path = task / "imagesTr/BRATS_001.nii.gz"
    voxels = np.asarray(nib.load(path).dataobj).copy()
    voxels[..., 2] = 7
    write(path, voxels)
    with pytest.raises(CaseError, match=r"\(channel 2, t1ce\): every voxel is 7"):
        read_volume(first(task), CODE_MSD)


def test_grids_that_differ(task: Path) -> None:
    write(task / "labelsTr/BRATS_001.nii.gz", np.zeros((5, 6, 6), dtype=np.uint8))
    (problem,) = check_headers(first(task))
    assert "(images) has 5×6×7 voxels, BRATS_001.nii.gz (segmentation) 5×6×6" in problem


def test_a_case_is_inspected_and_reads_every_file_once(
    task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segan_ray.data import nifti

    read = []
    original = nifti.read_image
    monkeypatch.setattr(nifti, "read_image", lambda p, **k: read.append(p) or original(p, **k))
    report = inspect_case(first(task), "msd")
    assert report.ok
    assert report.shape == SHAPE
    label = np.asarray(nib.load(task / "labelsTr/BRATS_001.nii.gz").dataobj)
    assert report.regions == {
        "whole": (label > 0).sum(),
        "core": (label > 1).sum(),
        "enhancing": (label == 3).sum(),
    }
    assert len(read) == len(set(read)) == 2


def test_the_signature_tells_image_truth_and_order_apart(task: Path) -> None:
    signed = signature(first(task))
    assert set(signed) == {"imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz", "channels"}
    describe(task, {"modality": {"0": "T1w", "1": "FLAIR", "2": "t1gd", "3": "T2w"}})
    changed = signature(first(task))
    assert {key for key in signed if signed[key] != changed[key]} == {"channels"}
