from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segan_ray.data.io.volumes import check_headers
from segan_ray.data.layouts.cases import Case, discover, discover_input
from segan_ray.errors import DataError, NoCasesError

CLASSIC = ("t1", "t1ce", "t2", "flair", "seg")
MODERN = ("t1n", "t1c", "t2w", "t2f", "seg")


def make(root: Path, case: str, names: tuple[str, ...], separator: str, ending: str) -> None:
    (root / case).mkdir(parents=True)
    for name in names:
        (root / case / f"{case.split('/')[-1]}{separator}{name}{ending}").write_bytes(b"x")


@pytest.mark.parametrize(
    ("layout", "case", "names", "separator"),
    [
        ("brats2017", "HGG/Brats17_TCIA_167_1", CLASSIC, "_"),
        ("brats2018", "LGG/Brats18_2013_0_1", CLASSIC, "_"),
        ("brats2019", "HGG/BraTS19_CBICA_AAB_1", CLASSIC, "_"),
        ("brats2020", "BraTS20_Training_001", CLASSIC, "_"),
        ("brats2021", "BraTS2021_00000", CLASSIC, "_"),
        ("brats2023", "BraTS-GLI-00005-000", MODERN, "-"),
    ],
)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_layouts_are_recognised_by_name(
    tmp_path: Path, layout: str, case: str, names: tuple[str, ...], separator: str, ending: str
) -> None:
    make(tmp_path, case, names, separator, ending)
    discovery = discover(tmp_path)
    assert discovery.layout.name == layout
    (only,) = discovery.cases
    assert only.problems == ()
    assert len(only.images) == 4
    assert only.label is not None
    assert only.grade == (case[:3] if case[:3] in {"HGG", "LGG"} else None)


def test_the_case_folder_itself_may_be_given(tmp_path: Path) -> None:
    make(tmp_path, "BraTS2021_00000", CLASSIC, "_", ".nii.gz")
    assert len(discover(tmp_path / "BraTS2021_00000").cases) == 1


def test_time_points_share_a_patient(tmp_path: Path) -> None:
    for case in ("BraTS-GLI-00005-000", "BraTS-GLI-00005-001"):
        make(tmp_path, case, MODERN, "-", ".nii.gz")
    discovery = discover(tmp_path)
    assert {case.patient for case in discovery.cases} == {"BraTS-GLI-00005"}
    assert discover(tmp_path, "brats2024").layout.name == "brats2024"


def test_a_missing_modality_is_a_problem_of_its_case(tmp_path: Path) -> None:
    make(tmp_path, "BraTS2021_00000", ("t1", "t2", "flair"), "_", ".nii.gz")
    (case,) = discover(tmp_path).cases
    assert case.problems[0].startswith("the t1ce volume is missing")
    assert case.label is None


def test_two_files_of_one_modality(tmp_path: Path) -> None:
    make(tmp_path, "BraTS2021_00000", CLASSIC, "_", ".nii.gz")
    (tmp_path / "BraTS2021_00000" / "BraTS2021_00000_t1.nii").write_bytes(b"x")
    (case,) = discover(tmp_path).cases
    assert "both exist" in case.problems[0]


def test_the_misnamed_mask_is_found(tmp_path: Path) -> None:
    make(tmp_path, "BraTS20_Training_355", CLASSIC[:4], "_", ".nii")
    mask = tmp_path / "BraTS20_Training_355" / "W39_1998.09.19_Segm.nii"
    mask.write_bytes(b"x")
    (case,) = discover(tmp_path).cases
    assert case.label == mask


def test_twins_that_macos_leaves_are_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "BraTS20_Training_355", CLASSIC[:4], "_", ".nii")
    folder = tmp_path / "BraTS20_Training_355"
    mask = folder / "W39_1998.09.19_Segm.nii"
    for path in (mask, folder / f"._{mask.name}", folder / "._BraTS20_Training_355_t1.nii"):
        path.write_bytes(b"x")
    (case,) = discover(tmp_path).cases
    assert case.label == mask
    assert case.problems == ()


def test_endings_may_differ_from_file_to_file(tmp_path: Path) -> None:
    make(tmp_path, "HGG/Brats17_2013_2_1", CLASSIC[:2], "_", ".nii")
    for name in CLASSIC[2:]:
        (tmp_path / f"HGG/Brats17_2013_2_1/Brats17_2013_2_1_{name}.nii.gz").write_bytes(b"x")
    (case,) = discover(tmp_path).cases
    assert case.problems == ()
    assert case.images["t1"].suffix == ".nii"
    assert case.label is not None


@pytest.mark.parametrize("given", [".", ".."])
def test_the_folder_may_be_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    make(tmp_path, "BraTS2021_00000", CLASSIC, "_", ".nii.gz")
    (tmp_path / "BraTS2021_00000" / "deeper").mkdir()
    monkeypatch.chdir(tmp_path / "BraTS2021_00000" / ("deeper" if given == ".." else ""))
    (case,) = discover(Path(given)).cases
    assert case.case == "BraTS2021_00000"
    assert case.problems == ()


def test_hidden_folders_are_passed_over(tmp_path: Path) -> None:
    make(tmp_path, "BraTS2021_00000", CLASSIC, "_", ".nii.gz")
    make(tmp_path, ".trash/BraTS2021_00001", CLASSIC, "_", ".nii.gz")
    assert len(discover(tmp_path).cases) == 1


@pytest.mark.parametrize("what", ["nothing", "file", "empty"])
def test_no_cases(tmp_path: Path, what: str) -> None:
    path = tmp_path / "data"
    if what == "file":
        path.write_text("x")
    elif what == "empty":
        path.mkdir()
    with pytest.raises(NoCasesError, match=str(path)):
        discover(path)


def test_two_layouts_in_one_folder(tmp_path: Path) -> None:
    make(tmp_path, "BraTS2021_00000", CLASSIC, "_", ".nii.gz")
    make(tmp_path, "BraTS20_Training_001", CLASSIC, "_", ".nii.gz")
    with pytest.raises(DataError, match="several layouts"):
        discover(tmp_path)
    assert discover(tmp_path, "brats2020").layout.name == "brats2020"


def test_an_unknown_layout_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Did you mean 'brats2021'"):
        discover(tmp_path, "brats-2021")


def test_the_same_case_twice(tmp_path: Path) -> None:
    for grade in ("HGG", "LGG"):
        make(tmp_path, f"{grade}/Brats18_2013_0_1", CLASSIC, "_", ".nii.gz")
    with pytest.raises(DataError, match=r"two folders are called Brats18_2013_0_1: .*HGG.*LGG"):
        discover(tmp_path)


# ------------------------------------------------------- names that differ, and folders around


def case_of(root: Path, names: tuple[str, ...] = CLASSIC, case: str = "BraTS2021_00000") -> Path:
    make(root, case, names, "_", ".nii.gz")
    return root / case


def only(root: Path) -> Case:
    (case,) = discover(root).cases
    return case


@pytest.mark.parametrize(
    "name",
    [
        "BraTS2021_00000_Seg.nii.gz",
        "BraTS2021_00000_SEG.NII.GZ",
        "BraTS2021_00000-seg.nii",
        "brats2021_00000_seg.nii.gz",
        "BraTS2021_00000_seg .nii.gz",
        "BraTS2021_00000_seg.nii/00000057_final_seg.nii",
        "BraTS2021_00000_SEG.NII.GZ/a.nii.gz",
        "BraTS2021_00000_Seg/truth.nii.gz",
        "seg/BraTS2021_00000_seg.nii.gz",
    ],
)
def test_a_truth_is_read_in_any_spelling_and_in_a_folder_of_its_own(
    tmp_path: Path, name: str
) -> None:
    path = case_of(tmp_path, CLASSIC[:4]) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    case = only(tmp_path)
    assert case.label == path
    assert case.problems == case.label_problems == case.warnings == ()


def test_a_truth_of_2023_with_the_separator_of_2021(tmp_path: Path) -> None:
    make(tmp_path, "BraTS-GLI-00005-000", MODERN, "_", ".nii.gz")
    assert only(tmp_path).label is not None
    assert only(tmp_path).problems == ()


@pytest.mark.parametrize("ending", ["", ".nii", ".nii.gz"])
def test_every_volume_in_a_folder_of_its_own(tmp_path: Path, ending: str) -> None:
    for name in CLASSIC:
        folder = tmp_path / "BraTS20_Training_001" / f"BraTS20_Training_001_{name}{ending}"
        folder.mkdir(parents=True)
        (folder / f"00000057_brain_{name}.nii").write_bytes(b"x")
        (folder / "._twin.nii").write_bytes(b"x")
    case = only(tmp_path)
    assert case.problems == ()
    assert {path.name for path in (*case.images.values(), case.label)} == {
        f"00000057_brain_{name}.nii" for name in CLASSIC
    }


def _empty_folder(path: Path) -> None:
    path.mkdir()


def _two_images(path: Path) -> None:
    path.mkdir()
    for name in ("a.nii", "b.nii"):
        (path / name).write_bytes(b"x")


def _dangling(path: Path) -> None:
    path.symlink_to("../.git/annex/objects/not-here")


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_empty_folder, "is a folder without an image"),
        (_two_images, "is a folder of 2 images; expected one"),
        (_dangling, "is a link to a file that is not here. Fetch it"),
        (_loop, "is a link to a file that is not here"),
        (os.mkfifo, "is no regular file"),
    ],
)
def test_entries_with_an_images_name_that_are_no_image(
    tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    folder = case_of(tmp_path, ("t1ce", "t2", "flair"))
    for name in ("t1", "seg"):
        damage(folder / f"BraTS2021_00000_{name}.nii.gz")
    case = only(tmp_path)
    assert case.label is None
    assert "t1" not in case.images
    (problem,), (label_problem,) = case.problems, case.label_problems
    assert problem.startswith(f"{folder / 'BraTS2021_00000_t1.nii.gz'}: {words}")
    assert label_problem.startswith(f"{folder / 'BraTS2021_00000_seg.nii.gz'}: {words}")
    assert check_headers(case)[:2] == (problem, label_problem)
    assert discover(tmp_path).untold == ()


def test_a_dangling_link_beside_the_file_itself(tmp_path: Path) -> None:
    folder = case_of(tmp_path)
    _dangling(folder / "BraTS2021_00000_seg.nii")
    case = only(tmp_path)
    assert case.label == folder / "BraTS2021_00000_seg.nii.gz"
    assert case.label_problems == ()
    assert "BraTS2021_00000_seg.nii: not read: is a link" in case.warnings[0]


def test_two_spellings_of_one_truth_are_a_problem(tmp_path: Path) -> None:
    folder = case_of(tmp_path)
    (folder / "BraTS2021_00000_SEG.nii.gz").write_bytes(b"x")
    (problem,) = only(tmp_path).label_problems
    assert "BraTS2021_00000_SEG.nii.gz and BraTS2021_00000_seg.nii.gz both exist" in problem


@pytest.mark.parametrize(
    "name",
    [
        "BraTS2021_00000_label.nii.gz", "mask.nii", "brain.nii.gz", "truth.mha",
        "BraTS2021_00000_seg.nrrd", "BraTS2021_00000_seg.nii.gz.part", "GT.mgz",
    ],
)  # fmt: skip
def test_a_truth_of_another_name_is_named_and_not_read(tmp_path: Path, name: str) -> None:
    folder = case_of(tmp_path, CLASSIC[:4])
    (folder / name).write_bytes(b"x")
    discovery = discover(tmp_path)
    (case,) = discovery.cases
    assert case.label is None
    assert case.problems == case.label_problems == ()
    (warning,) = case.warnings
    assert f"no BraTS2021_00000_seg.nii.gz, but {name}, which is not read" in warning
    assert discovery.untold == ("1 of 1 cases have no segmentation.",)
    (folder / "BraTS2021_00000_seg.nii.gz").write_bytes(b"x")
    assert only(tmp_path).warnings == ()


def test_notes_that_lie_there_are_no_truth(tmp_path: Path) -> None:
    folder = case_of(tmp_path, CLASSIC[:4])
    for name in ("README.txt", "segments_of_the_road.txt", ".BraTS2021_00000_seg.nii.gz"):
        (folder / name).write_bytes(b"x")
    assert only(tmp_path).warnings == ()


def test_a_case_unpacked_into_its_own_name(tmp_path: Path) -> None:
    for around in ("BraTS2021_00000/BraTS2021_00000", "BraTS20_Training/BraTS20_Training_001"):
        root = tmp_path / around.split("/")[0]
        make(tmp_path, around, CLASSIC, "_", ".nii.gz")
        assert only(root).case == around.split("/")[1]
        assert only(root).problems == ()


def test_files_of_another_case_are_named(tmp_path: Path) -> None:
    folder = case_of(tmp_path)
    folder.rename(tmp_path / "BraTS2021_00007")
    problem = only(tmp_path).problems[0]
    assert "expected BraTS2021_00007_t1.nii.gz" in problem
    assert "Found instead: BraTS2021_00000_flair.nii.gz" in problem


def dicom(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"\0" * 128 + b"DICM")


def test_dicom_in_the_folder_of_a_case(tmp_path: Path) -> None:
    dicom(tmp_path / "BraTS2021_00000", "IM1", "IM2", "3.dcm")
    assert "Found instead: 3 DICOM files (convert" in only(tmp_path).problems[0]


# ------------------------------------------------------------------- folders that are no case


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("brats2021_00001", "other capitals than brats2021 has, such as BraTS2021_00000"),
        ("BRATS2021_00001", "other capitals"),
        ("BraTS2021_1", "other digits or separators than brats2021 has"),
        ("BraTS2021_000011", "other digits"),
        ("BraTS2021-00001", "other digits or separators"),
        ("BraTS2021_00000 - Copy", "goes on after BraTS2021_00000 (' - Copy')"),
        ("BraTS2021_00000_copy", "goes on after BraTS2021_00000"),
        ("BraTS2021_00000(1)", "goes on after BraTS2021_00000"),
        ("BraTS2021_00001 ", "begins or ends with a space. Rename it BraTS2021_00001"),
        (" BraTS2021_00001", "begins or ends with a space"),
        ("BraTS-PED-00001-000", "is of pediatric tumours (BraTS-PED)"),
        ("brats-ped-00001-000", "is of pediatric tumours (BraTS-PED)"),
        ("BraTS-MEN-RT-0001-1", "(BraTS-MEN-RT), which has T1c alone"),
        ("BraTS-XYZ-00001-000", "is of BraTS-XYZ, whose label code is unknown"),
        ("BraTS-GLI-00001", "other digits or separators than brats2023 has"),
        ("patient", "its name is not that of a case of any BraTS year"),
        ("BRATS_HG0001", "its name is not that of a case"),
    ],
)
def test_a_folder_with_images_that_is_no_case_is_named(
    tmp_path: Path, name: str, words: str
) -> None:
    case_of(tmp_path)
    make(tmp_path, name, CLASSIC, "_", ".nii.gz")
    discovery = discover(tmp_path)
    assert [case.case for case in discovery.cases] == ["BraTS2021_00000"]
    (note,) = discovery.notes
    assert name in note
    assert "not read: holds 5 images, but" in note
    assert words in note
    (tmp_path / "BraTS2021_00000").rename(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    with pytest.raises(NoCasesError, match=re.escape(words)):
        discover(tmp_path)


def test_files_of_a_case_in_a_folder_of_another_name(tmp_path: Path) -> None:
    case_of(tmp_path)
    (tmp_path / "BraTS2021_00000").rename(tmp_path / "first patient")
    with pytest.raises(NoCasesError, match=r"files are those of case BraTS2021_00000\. Call"):
        discover(tmp_path)


def test_challenges_whose_labels_mean_the_same_are_read_with_2023(tmp_path: Path) -> None:
    cases = [f"BraTS-{task}-00001-000" for task in ("GLI", "MEN", "MET", "SSA")]
    for case in (*cases, "BraTS-GoAT-00001"):
        make(tmp_path, case, MODERN, "-", ".nii.gz")
    discovery = discover(tmp_path)
    assert discovery.layout.name == "brats2023"
    assert {case.case: case.patient for case in discovery.cases} == {
        **{case: case.removesuffix("-000") for case in cases},
        "BraTS-GoAT-00001": "BraTS-GoAT-00001",
    }
    (note,) = discovery.notes
    assert note.startswith("1 BraTS-GLI, 1 BraTS-GoAT, 1 BraTS-MEN, 1 BraTS-MET, 1 BraTS-SSA: ")


def test_cases_of_other_years_than_the_given_are_named(tmp_path: Path) -> None:
    case_of(tmp_path)
    make(tmp_path, "BraTS20_Training_001", CLASSIC, "_", ".nii.gz")
    (note,) = discover(tmp_path, "brats2021").notes
    assert "is called like a case of brats2020, and --layout says brats2021" in note


@pytest.mark.parametrize("junk", ["__MACOSX", "__macosx", "lost+found", "$RECYCLE.BIN"])
def test_leftovers_of_operating_systems_are_passed_over(tmp_path: Path, junk: str) -> None:
    case_of(tmp_path)
    make(tmp_path, f"{junk}/BraTS2021_00000", CLASSIC, "_", ".nii.gz")
    discovery = discover(tmp_path)
    assert len(discovery.cases) == 1
    assert discovery.notes == ()


def forbid(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Make ``folders`` unreadable even to root."""
    scan = os.scandir

    def scandir(path: str | Path) -> Any:
        if Path(path) in folders:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_an_unreadable_folder_does_not_stop_the_walk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (0, 1):
        case_of(tmp_path, case=f"BraTS2021_0000{number}")
    (tmp_path / "private").mkdir()
    forbid(monkeypatch, tmp_path / "private", tmp_path / "BraTS2021_00001")
    discovery = discover(tmp_path)
    assert discovery.notes == (f"{tmp_path / 'private'}: cannot be read (Permission denied).",)
    good, bad = discovery.cases
    assert good.problems == ()
    assert bad.problems[0].startswith(
        f"{tmp_path / 'BraTS2021_00001'}: cannot be read (Permission denied)."
    )
    assert discovery.untold == ()
    with pytest.raises(NoCasesError, match=r"private: cannot be read \(Permission denied\)"):
        discover(tmp_path / "private")


def test_broken_links_and_links_in_circles(tmp_path: Path) -> None:
    case_of(tmp_path)
    (tmp_path / "BraTS2021_00001").symlink_to("/not/here")
    (tmp_path / "around").symlink_to(tmp_path)
    discovery = discover(tmp_path)
    assert len(discovery.cases) == 1
    (note,) = discovery.notes
    assert note.startswith(f"{tmp_path / 'BraTS2021_00001'}: not read: is a link to")
    with pytest.raises(NoCasesError, match="found a link to what is not here"):
        discover(tmp_path / "BraTS2021_00001")


def test_an_error_names_what_the_folder_holds_instead(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    make(deep, "a/b/c/d/e/BraTS2021_00000", CLASSIC, "_", ".nii.gz")
    flat = tmp_path / "flat"
    for number in range(3):
        case = case_of(flat, case=f"BraTS2021_0000{number}")
        for path in case.iterdir():
            path.rename(flat / path.name)
        case.rmdir()
    dicom(tmp_path / "dicom" / "series", "IM1", "IM2")
    (tmp_path / "zip").mkdir()
    (tmp_path / "zip" / "BraTS2021.tar.gz").write_bytes(b"x")
    for folder, words in {
        deep: f"6 folders below the one given, more than 4. Point at {deep / 'a/b/c/d/e'}",
        flat: "holds 15 images, but they are of 3 cases side by side, first BraTS2021_00000",
        tmp_path / "dicom": f"{tmp_path / 'dicom/series'}: not read: holds 2 DICOM files. Convert",
        tmp_path / "zip": "holds 1 archive, first BraTS2021.tar.gz. Unpack",
    }.items():
        with pytest.raises(NoCasesError, match="no BRATS case found") as caught:
            discover(folder)
        assert words in str(caught.value)
        assert str(caught.value).count("\n") == 1


@pytest.mark.parametrize(
    "name", ["BraTS2021_00001.zip", "BraTS2021_00001.TAR.GZ", "BraTS2021_00001"]
)
def test_a_case_still_packed_beside_others_is_named(tmp_path: Path, name: str) -> None:
    case_of(tmp_path)
    (tmp_path / "BraTS2021_00000.zip").write_bytes(b"x")  # unpacked already
    (tmp_path / "BraTS2021_Training_Data.tar").write_bytes(b"x")
    assert discover(tmp_path).notes == ()
    (tmp_path / name).write_bytes(b"x")
    discovery = discover(tmp_path)
    assert len(discovery.cases) == 1
    assert discovery.notes == (
        f"{tmp_path}: not read: 1 file called like a case, first {name}. Unpack or copy again, a "
        "folder for each case.",
    )


def test_files_of_one_case_beside_folders_of_others(tmp_path: Path) -> None:
    case_of(tmp_path)
    case = case_of(tmp_path, case="BraTS2021_00001")
    for path in case.iterdir():
        path.rename(tmp_path / path.name)
    case.rmdir()
    (note,) = discover(tmp_path).notes
    assert note.endswith("those of case BraTS2021_00001. Put them into a folder of that name.")


@pytest.mark.parametrize("left", ["BraTS2021_00000_t2.nii.gz.part", "BraTS2021_00000.zip"])
def test_remains_of_a_download_in_place_of_a_scan(tmp_path: Path, left: str) -> None:
    case_of(tmp_path)
    folder = tmp_path / "BraTS2021_00000"
    (folder / "BraTS2021_00000_t2.nii.gz").rename(folder / left)
    (folder / "BraTS2021_00000_t1ce.json").write_bytes(b"{}")
    (case,) = discover(tmp_path).cases
    (problem,) = case.problems
    assert problem.endswith(f"Found instead: {left}.")


def test_a_store_beside_the_data_is_no_folder_of_images(tmp_path: Path) -> None:
    case_of(tmp_path)
    make(tmp_path, "store/cases/BraTS2021_00000", CLASSIC, "_", ".nii.gz")
    (tmp_path / "store" / "manifest.json").write_text("{}")
    assert len(discover(tmp_path).cases) == 1
    assert discover(tmp_path).notes == ()


def test_one_scan_in_a_folder_of_its_own_may_be_given(tmp_path: Path) -> None:
    for number in (0, 1):
        case = tmp_path / f"BraTS2021_0000{number}"
        for name in CLASSIC[:4]:
            (case / f"{case.name}_{name}.nii").mkdir(parents=True)
            (case / f"{case.name}_{name}.nii" / "image.nii").write_bytes(b"x")
    discovery = discover_input(tmp_path / "BraTS2021_00001/BraTS2021_00001_t1.nii/image.nii")
    assert [case.case for case in discovery.cases] == ["BraTS2021_00001"]


# --------------------------------------------------------------------------------------- grades


@pytest.mark.parametrize(
    ("folder", "grade"), [("hgg", "HGG"), ("Lgg", "LGG"), ("HG", "HGG"), ("data", None)]
)
def test_grades_come_from_folders_in_any_capitals(
    tmp_path: Path, folder: str, grade: str | None
) -> None:
    make(tmp_path, f"{folder}/Brats18_2013_0_1", CLASSIC, "_", ".nii.gz")
    assert only(tmp_path).grade == grade


HEADER = "Grade,BraTS_2017_subject_ID,BraTS_2018_subject_ID,BraTS_2020_subject_ID"


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\nHGG,NA,NA,BraTS20_Training_001\nLGG,NA,NA,BraTS20_Training_002\n",
        f"\ufeff{HEADER}\r\nhgg,,,brats20_training_001\r\n\r\nLGG,,,BraTS20_Training_002\r\n",
        f"{HEADER}\nHGG,NA,NA,BraTS20_Training_001\nLGG,NA,NA,BraTS20_Training_002".replace(
            ",", ";"
        ),
    ],
)
def test_grades_come_from_the_table_beside_the_cases(tmp_path: Path, text: str) -> None:
    for number in (1, 2, 3):
        case_of(tmp_path, case=f"BraTS20_Training_00{number}")
    (tmp_path / "name_mapping.csv").write_bytes(text.encode())
    discovery = discover(tmp_path)
    assert [case.grade for case in discovery.cases] == ["HGG", "LGG", None]
    assert discovery.notes == ()
    assert only(tmp_path / "BraTS20_Training_002").grade == "LGG"


def test_the_grade_of_the_folder_precedes_the_tables(tmp_path: Path) -> None:
    make(tmp_path, "LGG/Brats18_2013_0_1", CLASSIC, "_", ".nii.gz")
    (tmp_path / "name_mapping.csv").write_text(f"{HEADER}\nHGG,NA,Brats18_2013_0_1,NA\n")
    assert only(tmp_path).grade == "LGG"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x00\xff\xfe", "is no text in UTF-8"),
        (b"", "found nothing"),
        (b"a,b\n1,2\n", "expected columns Grade and BraTS_20dd_subject_ID, found a, b"),
        (f"{HEADER}\nII,NA,NA,BraTS20_Training_001\n".encode(), "1 rows say neither HGG nor LGG"),
        (
            f"{HEADER}\nLGG,,,BraTS20_Training_002\nHGG,,,BraTS20_Training_002\n".encode(),
            "1 rows say neither HGG nor LGG, or both",
        ),
    ],
)
def test_a_table_that_gives_no_grade_is_a_note(tmp_path: Path, content: bytes, words: str) -> None:
    case_of(tmp_path, case="BraTS20_Training_001")
    (tmp_path / "name_mapping.csv").write_bytes(content)
    (note,) = discover(tmp_path).notes
    assert words in note
    assert only(tmp_path).grade is None
