"""The page of a case in a browser without a network: slices and outlines are drawn and answer."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segan_ray.brats import REGIONS
from segan_ray.data.layouts.cases import discover_input
from segan_ray.evaluation.figures.palette import COLOURS
from segan_ray.evaluation.viewer.write_view import write_view
from tests.integration.browsing import chromium
from tests.unit.evaluation.viewer.pages import facts, volumes

pytestmark = pytest.mark.full

# WebGL 2 is drawn in software: there need be no GPU.
ARGUMENTS = (
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
SIDES = {"left": -1, "right": 1, "back": -1, "front": 1, "down": -1, "up": 1}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium(ARGUMENTS) as launched:
        yield launched


@pytest.fixture(scope="module")
def case_page(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a case with its truth, and a prediction two voxels beside it."""
    folder = tmp_path_factory.mktemp("view")
    case = next(
        case
        for case in sorted(phantom_folder.glob("BraTS2021_*"))
        if (np.asarray(nib.load(case / f"{case.name}_seg.nii.gz").dataobj) == 4).any()
    )
    truth = nib.load(case / f"{case.name}_seg.nii.gz")
    moved = np.roll(np.asarray(truth.dataobj), 2, axis=1)
    nib.save(nib.Nifti1Image(moved, truth.affine, truth.header), folder / "map.nii.gz")
    write_view(discover_input(case), folder / "map.nii.gz", folder / "page.html")
    return folder / "page.html"


def opened(browser: Any, out: Path, viewport: dict[str, int]) -> Any:
    """Open a page offline; fail on anything on the console, and on any request but its own."""
    page = browser.new_context(viewport=viewport, offline=True).new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url))
    page.goto(out.as_uri())
    page.wait_for_selector("body[data-state]", timeout=120_000)
    assert page.evaluate("document.body.dataset.state") == "drawn", said
    page.wait_for_load_state("networkidle")
    assert said == [out.as_uri()]
    return page


def drawn(page: Any) -> np.ndarray:
    """What is seen of the viewer, in colours."""
    picture = page.locator(".stage").screenshot()
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)


def coloured(page: Any) -> dict[str, int]:
    """How many pixels of the outlines have each region's colour, about."""
    picture = drawn(page)
    return {
        region: int((np.abs(picture - COLOURS[region]).max(axis=-1) < 24).sum())
        for region in REGIONS
    }


def choose(page: Any, group: str, value: str, *, on: bool = True) -> None:
    page.locator(f"input[name={group}][value={value}]").set_checked(on, force=True)


@pytest.mark.parametrize("viewport", [PHONE, DESK], ids=["phone", "desk"])
def test_slices_are_drawn_with_outlines_and_nothing_sticks_out(
    browser, case_page, viewport
) -> None:
    page = opened(browser, case_page, viewport)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    picture = drawn(page)
    grey = np.ptp(picture, axis=-1) < 8
    assert (grey & (picture[..., 0] > 60)).mean() > 0.1
    assert all(count > 20 for count in coloured(page).values()), coloured(page)
    page.context.close()


def test_scans_views_and_outlines_are_chosen(browser, case_page) -> None:
    page = opened(browser, case_page, DESK)
    choose(page, "view", "axial")
    seen = {}
    for scan in ("flair", "t1", "t1ce", "t2"):
        choose(page, "modality", scan)
        seen[scan] = drawn(page)
    assert all(
        np.abs(seen[one] - seen[other]).mean() > 1 for one in seen for other in seen if one != other
    )
    both = sum(coloured(page).values())
    choose(page, "outline", "prediction", on=False)
    truth = sum(coloured(page).values())
    choose(page, "outline", "truth", on=False)
    neither = sum(coloured(page).values())
    assert neither < 20 < truth < both - 20
    axial = drawn(page)
    choose(page, "view", "render")
    assert np.abs(drawn(page) - axial).mean() > 1
    whole = drawn(page)
    page.locator("#cut").fill("0.5")
    assert np.abs(drawn(page) - whole).mean() > 0.5
    page.context.close()


def told(page: Any) -> tuple[np.ndarray, dict[str, str]]:
    """The position that the page tells, in mm, and the regions there."""
    text = page.locator("#where").text_content()
    places = re.findall(r"([\d.]+) mm (\w+)", text)
    return (
        np.array([SIDES[side] * float(length) for length, side in places]),
        dict(re.findall(r"(truth|prediction): ([\w ]+?)(?: ·|$)", text)),
    )


def test_a_click_tells_what_lies_there(browser, case_page) -> None:
    text = case_page.read_text()
    held = volumes(text)
    page = opened(browser, case_page, DESK)
    np.testing.assert_allclose(told(page)[0], facts(text)["start"], atol=0.06)
    choose(page, "view", "axial")
    box = page.locator("#view").bounding_box()
    regions = set()
    for across in np.linspace(0.3, 0.7, 9):
        for down in (0.2, 0.35, 0.5, 0.65, 0.8):
            page.mouse.click(box["x"] + across * box["width"], box["y"] + down * box["height"])
            place, names = told(page)
            for name in ("truth", "prediction"):
                voxel = np.linalg.inv(held[name].affine) @ [*place, 1]
                assert np.abs(voxel - np.rint(voxel)).max() < 0.05
                depth = int(np.asarray(held[name].dataobj)[tuple(np.rint(voxel[:3]).astype(int))])
                assert names[name] == ("no tumour", *REGIONS)[depth]
                regions.add((name, depth > 0))
    assert len(regions) == 4
    page.context.close()


def test_the_scans_alone_are_shown(browser, phantom_folder, tmp_path) -> None:
    case = tmp_path / "BraTS2021_00000"
    shutil.copytree(sorted(phantom_folder.glob("BraTS2021_*"))[0], case)
    next(case.glob("*_seg.nii.gz")).unlink()
    for scan in case.glob("*.nii.gz"):
        scan.rename(case / f"{case.name}_{scan.name.rpartition('_')[2]}")
    write_view(discover_input(case), None, tmp_path / "page.html")
    page = opened(browser, tmp_path / "page.html", PHONE)
    assert page.get_by_text("the scans alone").count() == 1
    assert drawn(page).max() > 100
    page.context.close()


def test_a_browser_without_webgl_is_told(browser, case_page) -> None:
    page = browser.new_page()
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.goto(case_page.as_uri())
    page.wait_for_selector("body[data-state=failed]", timeout=60_000)
    assert "WebGL2" in page.locator("#why").text_content()
    assert page.locator("#failed").is_visible()
    page.close()
