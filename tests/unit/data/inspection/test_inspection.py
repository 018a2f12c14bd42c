"""Every malformed case is reported in words beside good cases, and none ends the inspection."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segan_ray.data.inspection import inspect_folder
from segan_ray.data.inspection.folder_report import COLUMNS, CaseReport, FolderReport, region_notes
from segan_ray.data.inspection.inspect_folder import inspect_case, inspect_cases
from segan_ray.data.io.volumes import check_headers, read_volume
from segan_ray.data.layouts.cases import Case, Discovery, discover
from segan_ray.data.store.prepare_case import signature
from segan_ray.errors import CaseError
from tests.unit.malformed import MALFORMED, SHAPE, Files, label, scan, truth, write_case

NAMES = {"brats2021": "BraTS2021_{:05}", "brats2023": "BraTS-GLI-{:05}-000"}


def inspected(files: Files, layout: str | None = None) -> CaseReport:
    (case,) = discover(files.folder).cases
    return inspect_case(case, layout or files.layout, 32)


def refused_on_reading(discovery: Discovery, case: Case) -> bool:
    try:
        read_volume(case, discovery.layout.code)
    except CaseError:
        return True
    return False


def test_the_report_of_a_good_case(tmp_path: Path) -> None:
    report = inspected(write_case(tmp_path / "HGG", "BraTS2021_00001", 1))
    assert report.problems == ()
    assert (report.grade, report.shape, report.spacing_mm) == ("HGG", SHAPE, (2, 2, 3))
    labels = truth()
    assert report.regions == {
        "whole": np.count_nonzero(labels),
        "core": np.count_nonzero(labels) - np.count_nonzero(labels == 2),
        "enhancing": np.count_nonzero(labels == 4),
    }
    assert report.intensities["t1"] == (0, 999)
    document = report.document()
    assert list(document) == [
        "case", "patient", "ok", "refused", "problems", "warnings", "regions", "grade", "shape",
        "spacing_mm", "intensities",
    ]  # fmt: skip
    assert document["intensities"].keys() == {"t1", "t1ce", "t2", "flair"}
    assert dict(zip(COLUMNS, report.row(), strict=True)) == {
        "case": "BraTS2021_00001", "patient": "=", "grade": "HGG", "shape": "24×28×20",
        "mm": "2×2×3", "whole": "6.7", "core": "2.1", "enhancing": "1.8", "intensity": "0…999",
    }  # fmt: skip


@pytest.mark.parametrize("kind", MALFORMED)
def test_problems_are_reported_in_words(tmp_path: Path, kind: str) -> None:
    malformed = MALFORMED[kind]
    files = write_case(tmp_path, NAMES[malformed.layout].format(1), 1, malformed.layout)
    malformed.damage(files)
    if kind == "copied":
        report = inspect_cases(discover(tmp_path), workers=1).cases[0]
    else:
        report = inspected(files)
    problem = report.problems[0]
    assert len(report.problems) == (2 if kind == "copied" else 1)
    for words in malformed.words:
        assert words.format(case=files.folder.name) in problem
    assert not report.ok
    discovery = discover(tmp_path)
    assert report.refused == malformed.refused == refused_on_reading(discovery, discovery.cases[0])


def test_all_problems_of_a_case_are_found_not_only_the_first(tmp_path: Path) -> None:
    files = write_case(tmp_path, "BraTS2021_00001", 1)
    kinds = ("missing", "empty file", "constant", "resampled")
    for kind in kinds:
        MALFORMED[kind].damage(files)
    problems = inspected(files).problems
    assert len(problems) == len(kinds)
    for kind, problem in zip(kinds, problems, strict=True):
        assert MALFORMED[kind].words[0].format(case=files.folder.name) in problem
    assert check_headers(discover(tmp_path).cases[0]) == problems[:2]


def test_nan_and_constant_are_two_problems_of_one_file(tmp_path: Path) -> None:
    files = write_case(tmp_path, "BraTS2021_00001", 1)
    scan("t2", lambda voxels: np.where(voxels > 500, np.nan, 5))(files)
    report = inspected(files)
    assert [text.split(": ")[1].split(" ")[0] for text in report.problems] == ["holds", "every"]
    assert report.intensities["t2"] == (5, 5)


def test_a_volume_of_nothing_but_nan(tmp_path: Path) -> None:
    files = write_case(tmp_path, "BraTS2021_00001", 1)
    scan("t1", lambda voxels: voxels * np.nan)(files)
    report = inspected(files)
    assert len(report.problems) == 1
    assert "t1" not in report.document()["intensities"]


def test_a_cavity_is_no_problem_in_2024(tmp_path: Path) -> None:
    files = write_case(tmp_path, "BraTS-GLI-00001-000", 1, "brats2023")
    label(lambda voxels: np.where(voxels == 1, 4, voxels))(files)
    assert inspected(files, "brats2024").ok
    label(lambda voxels: np.where(voxels > 0, 4, 0))(files)
    (problem,) = inspected(files, "brats2024").problems
    assert "no voxel of any region" in problem


def test_one_bad_case_of_each_kind_beside_good_ones(tmp_path: Path) -> None:
    kinds = [kind for kind, how in MALFORMED.items() if how.layout == "brats2021"]
    names = [f"BraTS2021_{index:05}" for index in range(len(kinds) + 2)]
    for seed, name in enumerate(names):
        write_case(tmp_path, name, seed)
    bad = dict(zip(names[1:-1], kinds, strict=True))
    for name, kind in bad.items():
        MALFORMED[kind].damage(Files(tmp_path / name, "brats2021"))
    done: list[str] = []
    report = inspect_cases(discover(tmp_path), workers=2, on_case=done.append)
    assert [case.case for case in report.cases] == names
    assert sorted(done) == names
    assert [case.case for case in report.cases if case.ok] == [names[0], names[-1]]
    assert (report.ok, report.bad) == (2, len(kinds))
    assert report.refused == sum(MALFORMED[kind].refused for kind in kinds)
    assert f"2 good, {len(kinds)} bad; prepare refuses {report.refused}" in report.verdict()
    problems = {case.case: "".join(case.problems) for case in report.cases}
    for name, kind in bad.items():
        assert MALFORMED[kind].words[0].format(case=name) in problems[name]
    for case in report.document()["cases"]:
        assert case["ok"] == (not case["problems"])


def test_duplicate_cases_name_each_other(tmp_path: Path) -> None:
    for name, seed in (("BraTS2021_00001", 1), ("BraTS2021_00002", 1), ("BraTS2021_00003", 3)):
        write_case(tmp_path, name, seed)
    report = inspect_cases(discover(tmp_path), workers=1)
    first, second, third = report.cases
    assert "four volumes are voxel for voxel those of BraTS2021_00002;" in first.problems[0]
    assert "four volumes are voxel for voxel those of BraTS2021_00001;" in second.problems[0]
    assert len(first.problems) == len(second.problems) == 1
    assert third.ok
    assert report.refused == 0


def test_one_volume_copied_from_another_case(tmp_path: Path) -> None:
    first = write_case(tmp_path, "BraTS2021_00001", 1)
    second = write_case(tmp_path, "BraTS2021_00002", 2)
    shutil.copyfile(first["t2"], second["t2"])
    report = inspect_cases(discover(tmp_path), workers=1)
    texts = [case.problems[0] for case in report.cases]
    assert texts[0].startswith(f"{first['t2']}: holds voxel for voxel the t2 volume of case ")
    assert "BraTS2021_00002" in texts[0].split(": ")[1]
    assert "t2 volume of case BraTS2021_00001" in texts[1]


def test_a_segmentation_copied_over_a_scan(tmp_path: Path) -> None:
    files = write_case(tmp_path, "BraTS2021_00001", 1)
    shutil.copyfile(files["seg"], files["t2"])
    report = inspected(files)
    assert any(
        problem.startswith(f"{files['t2']}: holds voxel for voxel the segmentation; expected")
        for problem in report.problems
    )


class _Fatal(os.PathLike):
    """Ends the process that unpickles it."""

    parent = Path("somewhere")

    def __fspath__(self) -> str:
        return "nowhere"

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (1,)


def test_a_dead_worker_is_a_problem_of_its_case_alone(tmp_path: Path) -> None:
    for seed in range(4):
        write_case(tmp_path, f"BraTS2021_{seed:05}", seed)
    discovery = discover(tmp_path)
    fatal = Case("BraTS2021_00009", "BraTS2021_00009", None, {"t1": _Fatal()}, None)
    cases = (*discovery.cases[:2], fatal, *discovery.cases[2:])
    report = inspect_cases(Discovery(discovery.folder, discovery.layout, cases), workers=2)
    assert [case.ok for case in report.cases] == [True, True, False, True, True]
    assert "the process that read it died, twice" in report.cases[2].problems[0]


def test_an_unforeseen_error_is_a_problem_in_words(tmp_path: Path, monkeypatch) -> None:
    def explode(*_: object) -> None:
        raise RuntimeError("boom\nat length")

    files = write_case(tmp_path, "BraTS2021_00001", 1)
    monkeypatch.setattr(inspect_folder, "read_array", explode)
    (problem,) = inspected(files).problems
    assert "in a way nobody foresaw (RuntimeError: boom at length)" in problem
    assert str(files.folder) in problem


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    what=st.sampled_from(["t1", "flair", "seg"]),
    at=st.floats(0, 1, exclude_max=True),
    change=st.one_of(st.just("cut"), st.integers(1, 255)),
    packed=st.booleans(),
)
def test_any_damage_is_refused_by_inspect_as_by_reading(
    tmp_path: Path, what: str, at: float, change: object, packed: bool
) -> None:
    """Cut a file anywhere or change any byte: inspect never raises and judges as reading does."""
    import gzip

    folder = tmp_path / "data"
    shutil.rmtree(folder, ignore_errors=True)
    files = write_case(folder, "BraTS2021_00001", 1)
    path = files[what]
    content = bytearray(path.read_bytes() if packed else gzip.decompress(path.read_bytes()))
    place = int(at * len(content)) if packed else int(at**4 * len(content))
    if change == "cut":
        del content[place:]
    else:
        content[place] ^= change
    path.write_bytes(bytes(content) if packed else gzip.compress(bytes(content)))
    discovery = discover(folder)
    report = inspect_case(discovery.cases[0], "brats2021", 32)
    assert report.refused == refused_on_reading(discovery, discovery.cases[0])


def test_an_empty_report_is_a_document() -> None:
    assert FolderReport("brats2021").document() == {
        "layout": "brats2021", "cases": [], "ok": 0, "bad": 0, "notes": [],
    }  # fmt: skip


def test_notes_of_the_whole_folder(tmp_path: Path) -> None:
    for seed in range(3):
        write_case(tmp_path, f"BraTS2021_{seed:05}", seed)
    assert inspect_cases(discover(tmp_path), workers=1).notes == ()
    Files(tmp_path / "BraTS2021_00000", "brats2021")["seg"].unlink()
    write_case(tmp_path, "brats2021_00007", 7)
    first, second = inspect_cases(discover(tmp_path), workers=1).document()["notes"]
    assert "brats2021_00007: not read: holds 5 images" in first
    assert second == "1 of 3 cases have no segmentation."


def test_a_truth_that_cannot_be_used_makes_its_case_bad(tmp_path: Path) -> None:
    files = write_case(tmp_path, "BraTS2021_00001", 1)
    files["seg"].unlink()
    files["seg"].symlink_to("not-here")
    report = inspect_cases(discover(tmp_path), workers=1)
    (problem,) = report.cases[0].problems
    assert problem.startswith(f"{files['seg']}: is a link to a file that is not here")
    assert report.cases[0].refused
    assert report.notes == ()


def test_wrapped_images_are_read(tmp_path: Path) -> None:
    files = write_case(tmp_path, "BraTS2021_00001", 1)
    before = inspected(files)
    for path in list(files.folder.iterdir()):
        moved = path.rename(files.folder / "moved")
        path.mkdir()
        moved.rename(path / "00000057_brain.nii.gz")
    assert replace(inspected(files), sketch=None) == replace(before, sketch=None)
    (case,) = discover(tmp_path).cases
    assert len(signature(case)) == 5


def swapped(voxels: np.ndarray) -> np.ndarray:
    return np.choose(voxels.astype(int), [0, 2, 1, 0, 4])


def test_swapped_labels_are_suspected_from_most_cases_of_a_folder(tmp_path: Path) -> None:
    for seed in range(5):
        files = write_case(tmp_path, f"BraTS2021_{seed:05}", seed)
        if seed in {0, 1}:
            label(swapped)(files)
    assert inspect_cases(discover(tmp_path), workers=1).notes == ()
    label(swapped)(files)
    report = inspect_cases(discover(tmp_path), workers=1)
    (note,) = report.notes
    assert note.startswith("In 3 of 5 cases the tumour core is 75% or more of the whole tumour.")
    assert "Labels 1 and 2 may be swapped" in note
    assert report.bad == 0


@given(
    counts=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)), max_size=9)
)
def test_a_folder_is_suspected_by_a_majority_of_at_least_three(counts) -> None:
    regions = [
        {"whole": edema + core + rim, "core": core + rim, "enhancing": rim}
        for edema, core, rim in counts
    ]
    tumours = [voxels for voxels in regions if voxels["whole"]]
    full = [voxels for voxels in tumours if 4 * voxels["core"] >= 3 * voxels["whole"]]
    suspected = any("may be swapped" in note for note in region_notes(regions))
    assert suspected == (len(tumours) >= 3 and 2 * len(full) > len(tumours))
    none = any(note.startswith("No voxel") for note in region_notes(regions))
    assert none == (len(tumours) >= 3 and not any(voxels["enhancing"] for voxels in tumours))


def test_a_folder_with_markup_and_control_characters_in_its_name_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from segan_ray.cli.data import _show_report

    hostile = tmp_path / "a[" / "b]\x1b[31m\n"
    files = write_case(hostile, "BraTS2021_00001", seed=1)
    files["t1"].unlink()
    write_case(hostile, "BraTS2021_00002", seed=2)
    report = inspect_cases(discover(hostile), workers=1)
    _show_report(f"{hostile}: a[/b]", report)
    out = capsys.readouterr().out
    assert r"a[/b]\x1b[31m\n:" in out
    assert r"b]\x1b[31m\n/BraTS2021_00001" in out
    assert "\x1b" not in out
