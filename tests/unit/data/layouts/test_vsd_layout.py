"""BRATS 2013 and 2015: a folder a volume, as the Virtual Skeleton Database named them."""

from __future__ import annotations

from pathlib import Path

import pytest

from segan_ray.data.layouts.cases import Case, discover
from segan_ray.errors import DataError, NoCasesError

YEAR_2013 = (
    "VSD.Brain.XX.O.MR_Flair/VSD.Brain.XX.O.MR_Flair.684.mha",
    "VSD.Brain.XX.O.MR_T1/VSD.Brain.XX.O.MR_T1.685.mha",
    "VSD.Brain.XX.O.MR_T1c/VSD.Brain.XX.O.MR_T1c.686.mha",
    "VSD.Brain.XX.O.MR_T2/VSD.Brain.XX.O.MR_T2.687.mha",
    "VSD.Brain_3more.XX.XX.OT/VSD.Brain_3more.XX.XX.OT.6560.mha",
)
YEAR_2015 = (
    "VSD.Brain.XX.O.MR_Flair.54512/VSD.Brain.XX.O.MR_Flair.54512.mha",
    "VSD.Brain.XX.O.MR_T1.54513/VSD.Brain.XX.O.MR_T1.54513.mha",
    "VSD.Brain.XX.O.MR_T1c.54514/VSD.Brain.XX.O.MR_T1c.54514.mha",
    "VSD.Brain.XX.O.MR_T2.54515/VSD.Brain.XX.O.MR_T2.54515.mha",
    "VSD.Brain_3more.XX.O.OT.54517/VSD.Brain_3more.XX.O.OT.54517.mha",
)


def make(folder: Path, files: tuple[str, ...]) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"x")
    return folder


def only(root: Path) -> Case:
    (case,) = discover(root).cases
    return case


@pytest.mark.parametrize(
    ("layout", "folder", "files", "case", "patient", "grade"),
    [
        ("brats2013", "BRATS-2/Image_Data/HG/0001", YEAR_2013, "HG_0001", "HG_0001", "HGG"),
        ("brats2013", "LG/0014", YEAR_2013, "LG_0014", "LG_0014", "LGG"),
        (
            "brats2015",
            "BRATS2015_Training/HGG/brats_2013_pat0001_1",
            YEAR_2015,
            "brats_2013_pat0001_1",
            "brats_2013_pat0001",
            "HGG",
        ),
        (
            "brats2015",
            "LGG/brats_tcia_pat202_0001",
            YEAR_2015,
            "brats_tcia_pat202_0001",
            "brats_tcia_pat202",
            "LGG",
        ),
        (
            "brats2015",
            "BRATS2015_Testing/HGG_LGG/brats_tcia_pat108_0001",
            YEAR_2015[:4],
            "brats_tcia_pat108_0001",
            "brats_tcia_pat108",
            None,
        ),
    ],
)
def test_cases_are_recognised_by_their_names(
    tmp_path: Path,
    layout: str,
    folder: str,
    files: tuple[str, ...],
    case: str,
    patient: str,
    grade: str | None,
) -> None:
    place = make(tmp_path / folder, files)
    assert discover(tmp_path).layout.name == layout
    found_case = only(tmp_path)
    assert (found_case.case, found_case.patient, found_case.grade) == (case, patient, grade)
    assert found_case.problems == ()
    by_name = {"flair": files[0], "t1": files[1], "t1ce": files[2], "t2": files[3]}
    assert found_case.images == {modality: place / file for modality, file in by_name.items()}
    assert found_case.label == (place / files[4] if len(files) == 5 else None)
    assert only(place).case == case
    assert only(place.parent).grade == grade


def test_two_grades_use_one_number_for_two_patients(tmp_path: Path) -> None:
    for grade in ("HG", "LG"):
        make(tmp_path / grade / "0001", YEAR_2013)
    assert [case.case for case in discover(tmp_path).cases] == ["HG_0001", "LG_0001"]
    assert len({case.patient for case in discover(tmp_path).cases}) == 2


def test_one_number_twice_in_a_grade_is_refused(tmp_path: Path) -> None:
    for release in ("Image_Data", "Copy"):
        make(tmp_path / release / "HG" / "0001", YEAR_2013)
    with pytest.raises(DataError, match=r"two cases are called HG_0001: .*Copy.*Image_Data"):
        discover(tmp_path)


def test_time_points_share_a_patient(tmp_path: Path) -> None:
    for case in ("brats_tcia_pat153_0002", "brats_tcia_pat153_0109", "brats_tcia_pat154_0001"):
        make(tmp_path / "HGG" / case, YEAR_2015)
    patients = [case.patient for case in discover(tmp_path).cases]
    assert patients == ["brats_tcia_pat153", "brats_tcia_pat153", "brats_tcia_pat154"]


def test_four_digits_alone_are_no_case(tmp_path: Path) -> None:
    make(tmp_path / "scans" / "0001", YEAR_2013)
    with pytest.raises(NoCasesError, match="no BRATS case found"):
        discover(tmp_path)


def test_a_missing_modality_is_a_problem(tmp_path: Path) -> None:
    make(tmp_path / "HGG" / "brats_2013_pat0001_1", (*YEAR_2015[:2], *YEAR_2015[3:]))
    (problem,) = only(tmp_path).problems
    assert problem.startswith("the t1ce volume is missing: expected an .mha file in a folder VSD.")
    assert "MR_T1c" in problem
    assert "brats_2013_pat0001_1" in problem


def test_a_modality_twice_is_a_problem(tmp_path: Path) -> None:
    again = "VSD.Brain.XX.O.MR_T1.9/VSD.Brain.XX.O.MR_T1.9.mha"
    make(tmp_path / "HGG" / "brats_2013_pat0001_1", (*YEAR_2015, again))
    (problem,) = only(tmp_path).problems
    assert problem == f"{YEAR_2015[1]} and {again} both exist; keep one of them."


def test_an_empty_truth_folder_is_no_case_without_truth(tmp_path: Path) -> None:
    place = make(tmp_path / "HGG" / "brats_2013_pat0001_1", YEAR_2015)
    (place / YEAR_2015[4]).unlink()
    assert only(tmp_path).problems == ()
    (problem,) = only(tmp_path).label_problems
    assert problem.startswith("VSD.Brain_3more.XX.O.OT.54517 holds no .mha file")


@pytest.mark.parametrize("name", ["truth/a.mha", "truth.nii.gz", "seg/a.nii.gz", "OT.mha"])
def test_a_truth_of_another_name_is_named_and_not_read(tmp_path: Path, name: str) -> None:
    place = make(tmp_path / "HGG" / "brats_2013_pat0001_1", (*YEAR_2015[:4], name, "notes/a.txt"))
    (warning,) = only(tmp_path).warnings
    assert warning.startswith(f"{place / name.split('/')[0]}: not read. If it is the segmentation")
    assert only(tmp_path).label is None
    make(place, YEAR_2015[4:])
    assert only(tmp_path).warnings == ()


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    """Licences, macOS twins, and 2013's truth of synthetic cases, which has other codes."""
    place = make(tmp_path / "HG" / "0001", YEAR_2013[:4])
    for file in (
        "VSD.Brain.XX.O.MR_T1/License_CC_BY_NC_SA_3.0.txt",
        "VSD.Brain.XX.O.MR_T1/._VSD.Brain.XX.O.MR_T1.685.mha",
        "VSD.Gray_matter_of_neuraxis_5more.XX.O.OT/VSD.Gray_matter.870.mha",
    ):
        (place / file).parent.mkdir(exist_ok=True)
        (place / file).write_bytes(b"x")
    assert only(tmp_path).problems == ()
    assert only(tmp_path).label is None


def test_two_years_in_one_folder(tmp_path: Path) -> None:
    make(tmp_path / "HG" / "0001", YEAR_2013)
    make(tmp_path / "HGG" / "brats_2013_pat0001_1", YEAR_2015)
    with pytest.raises(DataError, match=r"several layouts \(brats2013, brats2015\)"):
        discover(tmp_path)
    assert len(discover(tmp_path, "brats2013").cases) == 1


def truth_of(name: str) -> tuple[str, ...]:
    return (*YEAR_2013[:4], f"{name}/{name}.6560.mha")


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("HG/0001", "VSD.Brain_1more.XX.O.OT"),
        ("hg/0001", "vsd.brain_1more.xx.o.ot"),
        ("Synthetic_Data/HG/0001", "VSD.Brain_2more.XX.O.OT"),
        ("HG/0001", "VSD.Gray_matter_of_neuraxis_5more.XX.O.OT"),
    ],
)
def test_the_truth_of_synthetic_cases_is_named_and_not_read(
    tmp_path: Path, folder: str, name: str
) -> None:
    place = make(tmp_path / folder, truth_of(name))
    case = only(tmp_path)
    assert (case.case, case.grade, case.label) == ("HG_0001", "HGG", None)
    assert case.problems == case.label_problems == ()
    (warning,) = case.warnings
    assert warning.startswith(f"{place / name}: not read: a truth in a code of its own")
    assert discover(tmp_path).untold == ("1 of 1 cases have no segmentation.",)


@pytest.mark.parametrize("labels", ["1more", "2more", "3more"])
def test_the_truth_of_real_cases_is_read_with_any_number_of_labels(
    tmp_path: Path, labels: str
) -> None:
    make(tmp_path / "LG" / "0001", truth_of(f"VSD.Brain_{labels}.XX.XX.OT"))
    assert only(tmp_path / "LG").label is not None
    of_2015 = f"VSD.Brain_{labels}.XX.O.OT.54679"
    make(tmp_path / "LGG" / "brats_2013_pat0001_1", (*YEAR_2015[:4], f"{of_2015}/{of_2015}.mha"))
    assert only(tmp_path / "LGG").label is not None
    assert only(tmp_path / "LGG").warnings == ()


def test_volumes_without_folders_of_their_own(tmp_path: Path) -> None:
    place = make(
        tmp_path / "HGG" / "brats_2013_pat0001_1", tuple(file.split("/")[1] for file in YEAR_2015)
    )
    case = only(tmp_path)
    assert case.problems == case.label_problems == ()
    assert case.label == place / "VSD.Brain_3more.XX.O.OT.54517.mha"


def test_a_broken_link_in_the_folder_of_a_volume(tmp_path: Path) -> None:
    place = make(tmp_path / "HGG" / "brats_2013_pat0001_1", YEAR_2015)
    for file in (YEAR_2015[0], YEAR_2015[4]):
        (place / file).unlink()
        (place / file).symlink_to("not-here")
    case = only(tmp_path)
    (problem,), (label_problem,) = case.problems, case.label_problems
    assert problem.startswith(f"{place / YEAR_2015[0]}: is a link to a file that is not here")
    assert label_problem.startswith(f"{place / YEAR_2015[4]}: is a link to a file that is not here")


def test_a_case_without_a_time_point_is_named_once(tmp_path: Path) -> None:
    make(tmp_path / "HGG" / "brats_tcia_pat101", YEAR_2015)
    make(tmp_path / "HGG" / "brats_2013_pat0001_1", YEAR_2015)
    (note,) = discover(tmp_path).notes
    assert "brats_tcia_pat101: not read: holds 5 images, but its name is not that" in note
