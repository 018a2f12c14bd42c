"""Phantoms in every layout: written in its names and codes, and read back as they were."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segan_ray.brats import CODE_2017_TO_2021
from segan_ray.data.io.volumes import check_headers, read_volume
from segan_ray.data.layouts.cases import LAYOUTS, discover
from segan_ray.data.phantom import dataset
from segan_ray.data.phantom.dataset import PhantomCase, write_phantoms
from segan_ray.data.phantom.write_layouts import PHANTOM_LAYOUTS
from segan_ray.data.store import prepare_case
from segan_ray.data.store.opened_store import PrepareSettings

NAMES = tuple(layout.name for layout in LAYOUTS)
SPACING_MM = 8.0
# Two files of the first two cases, with the names of the year.
EXPECTED = {
    "brats2013": [
        "HG/0001/VSD.Brain.XX.O.MR_T1c/VSD.Brain.XX.O.MR_T1c.54513.mha",
        "LG/0002/VSD.Brain_3more.XX.XX.OT/VSD.Brain_3more.XX.XX.OT.54526.mha",
    ],
    "brats2015": [
        "HGG/brats_tcia_pat101_0001/VSD.Brain.XX.O.MR_T1c.54513/VSD.Brain.XX.O.MR_T1c.54513.mha",
        "HGG/brats_tcia_pat101_0002/VSD.Brain_3more.XX.O.OT.54521/VSD.Brain_3more.XX.O.OT.54521.mha",
    ],
    "brats2017": [
        "HGG/Brats17_TCIA_001_1/Brats17_TCIA_001_1_t1ce.nii.gz",
        "LGG/Brats17_TCIA_002_1/Brats17_TCIA_002_1_seg.nii.gz",
    ],
    "brats2018": [
        "HGG/Brats18_TCIA01_001_1/Brats18_TCIA01_001_1_t1ce.nii.gz",
        "LGG/Brats18_TCIA01_002_1/Brats18_TCIA01_002_1_seg.nii.gz",
    ],
    "brats2019": [
        "HGG/BraTS19_TCIA01_001_1/BraTS19_TCIA01_001_1_t1ce.nii.gz",
        "LGG/BraTS19_TCIA01_002_1/BraTS19_TCIA01_002_1_seg.nii.gz",
    ],
    "brats2020": [
        "BraTS20_Training_001/BraTS20_Training_001_t1ce.nii.gz",
        "BraTS20_Training_002/BraTS20_Training_002_seg.nii.gz",
    ],
    "brats2021": [
        "BraTS2021_00000/BraTS2021_00000_t1ce.nii.gz",
        "BraTS2021_00001/BraTS2021_00001_seg.nii.gz",
    ],
    "brats2023": [
        "BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1c.nii.gz",
        "BraTS-GLI-00000-001/BraTS-GLI-00000-001-seg.nii.gz",
    ],
    "brats2024": [
        "BraTS-GLI-00000-100/BraTS-GLI-00000-100-t1c.nii.gz",
        "BraTS-GLI-00000-101/BraTS-GLI-00000-101-seg.nii.gz",
    ],
    "msd": ["imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_002.nii.gz", "dataset.json"],
}
TIME_POINTS = {"brats2015", "brats2023", "brats2024"}


def patient(index: int, time_point: int) -> PhantomCase:
    """The patient as it is written in every layout."""
    return dataset.synthesize_patient(index, seed=0, spacing_mm=SPACING_MM, time_point=time_point)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_every_layout_that_is_read_is_written() -> None:
    assert set(PHANTOM_LAYOUTS) == set(NAMES) == set(EXPECTED)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_patient_comes_back(tmp_path: Path, name: str) -> None:
    names = write_phantoms(tmp_path, cases=2, layout=name, spacing_mm=SPACING_MM)
    discovery = discover(tmp_path, name if name == "brats2024" else None)
    assert discovery.layout.name == name
    assert tuple(case.case for case in discovery.cases) == names
    for index, case in enumerate(discovery.cases):
        who, time_point = (0, index) if name in TIME_POINTS else (index, 0)
        made = patient(who, time_point)
        assert check_headers(case) == ()
        volume = read_volume(case, discovery.layout.code)
        np.testing.assert_array_equal(volume.image, made.images)
        np.testing.assert_allclose(volume.affine, made.affine)
        np.testing.assert_array_equal(
            discovery.layout.code.regions(volume.label), CODE_2017_TO_2021.regions(made.label)
        )
        assert case.grade in {made.grade, None}
    assert len({case.patient for case in discovery.cases}) == (1 if name in TIME_POINTS else 2)
    assert set(EXPECTED[name]) <= set(contents(tmp_path))


@pytest.mark.parametrize("name", ["brats2013", "msd"])
def test_rerun_mends_missing_files_and_keeps_the_rest(tmp_path: Path, name: str) -> None:
    write_phantoms(tmp_path, cases=2, layout=name, spacing_mm=SPACING_MM)
    before = contents(tmp_path)
    lost, kept = (tmp_path / file for file in EXPECTED[name][:2])
    made_at = kept.stat().st_mtime_ns
    lost.unlink()
    write_phantoms(tmp_path, cases=2, layout=name, spacing_mm=SPACING_MM)
    assert contents(tmp_path) == before
    assert kept.stat().st_mtime_ns == made_at


@pytest.mark.parametrize("name", ["brats2013", "brats2015", "msd"])
def test_a_case_is_prepared_once_from_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_phantoms(tmp_path / "data", cases=1, layout=name, spacing_mm=SPACING_MM)
    (case,) = discover(tmp_path / "data").cases
    record = prepare_case.prepare_case(case, name, tmp_path / "work", PrepareSettings())
    assert (record.case, record.patient, record.grade) == (case.case, case.patient, case.grade)
    assert record.region_voxels["whole"] > 0
    monkeypatch.setattr(prepare_case, "read_volume", None)
    assert prepare_case.prepare_case(case, name, tmp_path / "work", PrepareSettings()) == record


def test_non_enhancing_tissue_and_necrosis_differ_until_2015(tmp_path: Path) -> None:
    write_phantoms(tmp_path, cases=6, layout="brats2013", spacing_mm=SPACING_MM)
    discovery = discover(tmp_path)
    labels = [read_volume(case, discovery.layout.code).label for case in discovery.cases]
    low = next(label for label in labels if 4 not in label)
    assert any(set(np.unique(label)) == {0, 1, 2, 3, 4} for label in labels)
    assert 3 in low


def test_the_decathlon_file_names_channels_labels_and_cases(tmp_path: Path) -> None:
    write_phantoms(tmp_path, cases=2, layout="msd", spacing_mm=SPACING_MM)
    document = json.loads((tmp_path / "dataset.json").read_text())
    assert document["modality"] == {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    assert list(document["labels"]) == ["0", "1", "2", "3"]
    assert document["numTraining"] == len(document["training"]) == 2
    assert document["training"][0] == {
        "image": "./imagesTr/BRATS_001.nii.gz",
        "label": "./labelsTr/BRATS_001.nii.gz",
    }


@pytest.mark.parametrize("name", NAMES)
def test_names_are_unique_and_some_patients_have_two_time_points(name: str) -> None:
    layout = PHANTOM_LAYOUTS[name]
    sessions = [layout.session(index) for index in range(40)]
    written = [layout.session_files(session, "HGG") for session in sessions]
    assert len({session_files.case for session_files in written}) == 40
    assert len(
        {file for session_files in written for file in session_files.files.values()}
    ) == 40 * len(layout.files)
    patients = Counter(session.patient for session in sessions)
    assert sorted(patients) == list(range(30 if name in TIME_POINTS else 40))
    assert Counter(patients.values()) == ({2: 10, 1: 20} if name in TIME_POINTS else {1: 40})


@given(
    st.sampled_from(LAYOUTS),
    arrays(np.uint8, (3, 4, 2), elements=st.sampled_from([0, 1, 2, 4])),
    arrays(np.bool_, (3, 4, 2)),
)
def test_every_year_says_the_same_of_a_region_in_its_own_code(
    layout, label: np.ndarray, solid: np.ndarray
) -> None:
    solid &= label == 1
    images = np.zeros((4, *label.shape), dtype=np.int16)
    case = PhantomCase("C", "P", "HGG", images, label, solid, np.eye(4))
    coded = case.label_in(layout.code)
    assert coded.dtype == np.uint8
    assert set(np.unique(coded)) <= {0, *layout.code.names}
    np.testing.assert_array_equal(layout.code.regions(coded), CODE_2017_TO_2021.regions(label))
    # Voxels of unlike values stay unlike: nothing but solid tissue is lost.
    assert len(np.unique(coded)) in {len(np.unique(label)), len(np.unique(label)) + 1}
