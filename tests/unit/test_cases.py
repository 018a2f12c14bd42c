from __future__ import annotations

from pathlib import Path

import pytest

from segan_ray.data.cases import discover
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
def test_layouts_are_told_by_name(
    tmp_path: Path, layout: str, case: str, names: tuple[str, ...], separator: str, ending: str
) -> None:
    make(tmp_path, case, names, separator, ending)
    found = discover(tmp_path)
    assert found.layout.name == layout
    (only,) = found.cases
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
    found = discover(tmp_path)
    assert {case.patient for case in found.cases} == {"BraTS-GLI-00005"}
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
def test_the_folder_may_be_named_by_where_one_is(
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
