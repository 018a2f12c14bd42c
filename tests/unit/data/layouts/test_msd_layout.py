"""The Decathlon's Task01: four modalities in one file, in the order dataset.json gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from segan_ray.brats import CODE_MSD, MODALITIES
from segan_ray.data.inspection.inspect_folder import inspect_case
from segan_ray.data.io.volumes import check_headers, read_volume
from segan_ray.data.layouts.cases import Case, discover
from segan_ray.data.store.prepare_case import signature
from segan_ray.errors import CaseError, DataError, NoCasesError

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
    discovery = discover((task / where).resolve())
    assert discovery.layout.name == "msd"
    case = discovery.cases[0]
    assert (case.case, case.patient, case.grade) == ("BRATS_001", "BRATS_001", None)
    assert set(case.images.values()) == {task / "imagesTr/BRATS_001.nii.gz"}
    assert case.label == task / "labelsTr/BRATS_001.nii.gz"
    if where != "imagesTr":
        assert (discovery.cases[1].case, discovery.cases[1].label) == ("BRATS_485", None)


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


def test_the_folders_decide_which_files_are_read(task: Path) -> None:
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
    assert problem.endswith("channels, which are its last axis. Re-export it so.")


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
    from segan_ray.data.io import nifti

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


NNU_NET = {"0": "T1", "1": "T1ce", "2": "T2", "3": "Flair"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_channels_come_by_the_name_that_nnu_net_has_for_them_too(task: Path, encoding: str) -> None:
    document = json.dumps({"channel_names": NNU_NET, "description": "\u00e9"}, ensure_ascii=False)
    (task / "dataset.json").write_bytes(document.encode(encoding))
    volume = read_volume(first(task), CODE_MSD)
    hundreds = {"t1": 0, "t1ce": 1, "t2": 2, "flair": 3}
    for name, voxels in zip(MODALITIES, volume.image, strict=True):
        assert set((voxels // 100).flat) == {hundreds[name]}
    assert discover(task).notes == ()


@pytest.mark.parametrize(
    ("name", "modality"),
    [
        ("T1Gd", "t1ce"), ("T1c", "t1ce"), ("t1-ce", "t1ce"), ("T1 Gd", "t1ce"), ("flair", "flair"),
        ("T2-FLAIR", "flair"), ("T1n", "t1"), ("T2W", "t2"),
    ],
)  # fmt: skip
def test_a_modality_goes_by_several_names(task: Path, name: str, modality: str) -> None:
    others = {"flair": "FLAIR", "t1": "T1w", "t1ce": "t1gd", "t2": "T2w"}
    names = [name, *(other for key, other in others.items() if key != modality)]
    describe(task, {"channel_names": dict(zip("0123", names, strict=True))})
    assert first(task).channels[modality] == 0


def test_two_orders_of_channels_are_refused_unless_they_agree(task: Path) -> None:
    describe(task, {"modality": PUBLISHED, "channel_names": PUBLISHED})
    assert first(task).channels["flair"] == 0
    describe(task, {"modality": PUBLISHED, "channel_names": NNU_NET})
    with pytest.raises(DataError, match="order the channels differently"):
        discover(task)


def test_a_guessed_order_of_channels_is_noted(task: Path) -> None:
    describe(task, {"name": "BRATS"})
    (note,) = discover(task).notes
    assert "names no channels; the channels are taken in the Decathlon's order, FLAIR" in note
    (task / "dataset.json").unlink()
    (note,) = discover(task).notes
    assert "dataset.json: is missing; the channels" in note


@pytest.mark.parametrize("content", [b"[" * 100_000, '{"name": "\u00e9"}'.encode("latin-1")])
def test_an_unreadable_dataset_file(task: Path, content: bytes) -> None:
    (task / "dataset.json").write_bytes(content)
    with pytest.raises(DataError, match="is not JSON"):
        discover(task)


def test_a_dataset_file_that_is_a_broken_link(task: Path) -> None:
    (task / "dataset.json").unlink()
    (task / "dataset.json").symlink_to("not-here")
    with pytest.raises(DataError, match="cannot be read"):
        discover(task)


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
        {"background": 0, "edema": 1, "non-enhancing": 2, "enhancing": 3},
        {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]},
        {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3},
        {"background": "0", "edema": "1", "non-enhancing": "2", "enhancing": "3"},
        {"0": "0", "1": "1"},
        ["edema"],
    ],
)
def test_labels_with_the_meaning_of_the_decathlon(task: Path, labels: object) -> None:
    describe(task, {"modality": PUBLISHED, "labels": labels})
    assert len(discover(task).cases) == 2


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"background": 0, "NCR": 1, "ED": 2, "ET": 3}, "label 1 is 'NCR'"),
        ({"background": "0", "NCR": "1", "ED": "2", "ET": "3"}, "label 1 is 'NCR'"),
        ({"background": 0, "core": ["1", "3"]}, "label 1, 3 is 'core'"),
        ({"0": "background", "2": "peritumoral edema"}, "label 2 is 'peritumoral edema'"),
        ({"2": "surrounding non-enhancing FLAIR hyperintensity"}, "so edema is another"),
        ({"4": "enhancing tumor"}, "label 4 is 'enhancing tumor'"),
        ({"tumor core": [1, 3]}, "label 1, 3 is 'tumor core'"),
    ],
)
def test_labels_in_another_code_are_refused(task: Path, labels: object, words: str) -> None:
    describe(task, {"modality": PUBLISHED, "labels": labels})
    with pytest.raises(DataError, match=words) as caught:
        discover(task)
    assert "1 edema, 2 non-enhancing, 3 enhancing" in str(caught.value)


def listing(*numbers: int) -> list[dict[str, str]]:
    names = [f"BRATS_{number:03d}.nii.gz" for number in numbers]
    return [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names]


def test_a_label_that_is_listed_and_absent_makes_its_case_bad(task: Path) -> None:
    describe(task, {"modality": PUBLISHED, "training": listing(1, 2)})
    (task / "labelsTr/BRATS_001.nii.gz").unlink()
    discovery = discover(task)
    case = discovery.cases[0]
    (problem,) = check_headers(case)
    assert problem.startswith(
        "the segmentation is missing: dataset.json lists it; expected BRATS_001"
    )
    assert case.without_truth().label_problems == ()
    (note,) = discovery.notes
    assert "lists 1 images that are not in" in note
    assert note.endswith("first BRATS_002.")


def test_a_label_that_is_a_broken_link_makes_its_case_bad(task: Path) -> None:
    (task / "labelsTr/BRATS_001.nii.gz").unlink()
    (task / "labelsTr/BRATS_001.nii.gz").symlink_to("not-here")
    (problem,) = first(task).label_problems
    assert "labelsTr/BRATS_001.nii.gz: is a link to a file that is not here" in problem


def test_spellings_and_folders_of_single_images(task: Path) -> None:
    image, label = task / "imagesTr/BRATS_001.nii.gz", task / "labelsTr/BRATS_001.nii.gz"
    image.rename(task / "imagesTr/BRATS_001.NII.GZ")
    label.rename(task / "labelsTr/x")
    label.mkdir()
    (task / "labelsTr/x").rename(label / "brats_001.nii.gz")
    case = first(task)
    assert (case.case, case.problems, case.label_problems) == ("BRATS_001", (), ())
    assert case.label == label / "brats_001.nii.gz"
    assert case.images["t1"] == task / "imagesTr/BRATS_001.NII.GZ"


def test_files_that_are_called_like_no_case_are_named(task: Path) -> None:
    (task / "labelsTr/BRATS_001.nii.gz").rename(task / "labelsTr/BRATS_001_gt.nii.gz")
    discovery = discover(task)
    assert discovery.untold == ("2 of 2 cases have no segmentation.",)
    (note,) = discovery.notes
    assert "labelsTr: not read: 1 images called unlike BRATS_ddd.nii.gz, first BRATS_001_gt" in note


def test_single_channel_files_of_nnu_net_are_refused_by_name(task: Path) -> None:
    for path in task.glob("images*/*"):
        path.unlink()
    (task / "labelsTr/BRATS_001.nii.gz").rename(task / "labelsTr/BraTS2021_00000.nii.gz")
    for channel in range(4):
        (task / f"imagesTr/BraTS2021_00000_000{channel}.nii.gz").write_bytes(b"x")
    with pytest.raises(NoCasesError, match="4 single-channel files of nnU-Net"):
        discover(task)
