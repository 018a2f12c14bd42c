"""Sheets for eyes: their size, what is drawn, and how large folders are split."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segan_ray.data.inspection.folder_report import CaseReport, FolderReport
from segan_ray.data.inspection.inspect_folder import inspect_case
from segan_ray.data.layouts.cases import discover
from segan_ray.errors import DataError
from segan_ray.evaluation.figures import thumbnails
from segan_ray.evaluation.figures.palette import COLOURS
from segan_ray.evaluation.figures.thumbnails import (
    ACROSS,
    DOWN,
    GAP,
    HEAD,
    PROBLEM_HEIGHT,
    SIDE,
    TILE_HEIGHT,
    TILE_WIDTH,
    check_sheet,
    draw_sheets,
    write_sheets,
)
from tests.unit.malformed import MALFORMED, write_case


def report_of(tmp_path: Path, kind: str | None = None) -> CaseReport:
    files = write_case(tmp_path, "BraTS2021_00001", 1)
    if kind is not None:
        MALFORMED[kind].damage(files)
    return inspect_case(discover(tmp_path).cases[0], "brats2021", SIDE)


def page_of(*cases: CaseReport) -> np.ndarray:
    (page,) = draw_sheets(FolderReport("brats2021", cases))
    return np.asarray(page)


def tile(page: np.ndarray, column: int) -> np.ndarray:
    top = HEAD + TILE_HEIGHT - SIDE
    left = GAP + column * SIDE
    return page[top : top + SIDE, left : left + SIDE]


def test_one_case_is_a_small_page_with_scans_and_outlines(tmp_path: Path) -> None:
    report = report_of(tmp_path)
    page = page_of(report)
    assert page.shape == (HEAD + TILE_HEIGHT + GAP, TILE_WIDTH + 2 * GAP, 3)
    for column in range(4):
        assert (tile(page, column) > 60).mean() > 0.4
        # The core has no outline of its own: all around, it ends in an enhancing rim.
        for region in ("whole", "enhancing"):
            assert (tile(page, column) == COLOURS[region]).all(axis=-1).sum() > 30


def test_the_fullest_slice_is_drawn_upright_and_true_to_mm(tmp_path: Path) -> None:
    report = report_of(tmp_path)
    assert report.sketch is not None
    # The phantom's tumour is centred at 0.2 of -1…1 in z: voxel (0.2 + 1) / 2 × 19.
    assert report.sketch.position == 11
    # 24 × 28 voxels of 2 × 2 mm, cropped to a brain whose width is less than its height.
    height, width = report.sketch.greys["t1"].shape
    assert height == SIDE
    assert width == pytest.approx(SIDE * 18 / 21, abs=SIDE * 0.08)
    assert report.sketch.regions is not None
    down, across = (float(hit.mean()) for hit in np.nonzero(report.sketch.regions[0]))
    assert down > height / 2
    assert across > width / 2


@pytest.mark.parametrize("kind", ["missing", "nan", "shape", "truth shape", "empty truth"])
def test_a_bad_case_is_drawn_as_far_as_it_can_be_and_marked(tmp_path: Path, kind: str) -> None:
    page = page_of(report_of(tmp_path, kind))
    assert page.shape[0] == HEAD + TILE_HEIGHT + PROBLEM_HEIGHT + GAP
    alarm = (page == thumbnails._ALARM).all(axis=-1)
    assert alarm[: HEAD + TILE_HEIGHT].sum() > TILE_WIDTH + SIDE
    below = page[HEAD + TILE_HEIGHT + 2 :].astype(int)
    assert (below[..., 0] - below[..., 2] > 60).sum() > 200  # reddish words
    assert (tile(page, 1) > 60).mean() > 0.4


def test_a_case_that_died_has_a_tile(tmp_path: Path) -> None:
    page_of(CaseReport("BraTS2021_00001", "p", problems=("the process died",), refused=True))


def test_a_caption_names_files_without_folders(tmp_path: Path) -> None:
    problem = "/data/a b/c/Case_t1.nii.gz: holds 2×2 (Case_t2.nii.gz); a/b is fine."
    report = CaseReport("Case", "Case", problems=(problem, "more"))
    expected = "(1 more) t1.nii.gz: holds 2x2 (t2.nii.gz); a/b is fine."
    assert thumbnails._caption(report) == expected


def test_hundreds_of_cases_take_pages(tmp_path: Path) -> None:
    report = report_of(tmp_path / "data")
    count = 2 * ACROSS * DOWN + 1
    cases = tuple(replace(report, case=f"BraTS2021_{index:05}") for index in range(count))
    out = tmp_path / "sheet.png"
    paths = write_sheets(FolderReport("brats2021", cases), out)
    assert [path.name for path in paths] == ["sheet.png", "sheet-2.png", "sheet-3.png"]
    widest = GAP + ACROSS * (TILE_WIDTH + GAP)
    tallest = HEAD + DOWN * (TILE_HEIGHT + GAP)
    sizes = [Image.open(path).size for path in paths]
    assert sizes == [(widest, tallest)] * 2 + [(TILE_WIDTH + 2 * GAP, HEAD + TILE_HEIGHT + GAP)]
    assert max(path.stat().st_size for path in paths) < 5e6
    assert sorted(path.name for path in tmp_path.glob("*.png")) == sorted(p.name for p in paths)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("name", "words"), [("x.jpg", "ends in .png"), ("no/x.png", "not exist")])
def test_a_sheet_that_cannot_be_written_is_refused_first(
    tmp_path: Path, name: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        check_sheet(tmp_path / name)
