"""From files to a page: every layout, its geometry, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segan_ray.brats import MODALITIES
from segan_ray.data.io.label_maps import write_label
from segan_ray.data.io.volumes import read_volume
from segan_ray.data.layouts.cases import Discovery, discover, discover_input
from segan_ray.data.phantom.dataset import write_phantoms
from segan_ray.data.phantom.write_layouts import PHANTOM_LAYOUTS
from segan_ray.errors import CaseError, DataError
from segan_ray.evaluation.viewer.write_view import CasePage, write_view
from tests.unit.evaluation.viewer.pages import volumes


def only(discovery: Discovery) -> Discovery:
    return replace(discovery, cases=discovery.cases[:1])


@pytest.fixture
def case(phantom_folder: Path, tmp_path: Path) -> Path:
    """A copy of the folder of one case."""
    first = sorted(phantom_folder.glob("BraTS2021_*"))[0]
    shutil.copytree(first, tmp_path / first.name)
    return tmp_path / first.name


def truth_of(case: Path) -> Path:
    return case / f"{case.name}_seg.nii.gz"


def positions(image: nib.Nifti1Image, least: int) -> set[tuple[float, ...]]:
    """Where the voxels of at least that value lie, in mm."""
    voxels = np.argwhere(np.asarray(image.dataobj) >= least)
    return {tuple(place) for place in np.round(nib.affines.apply_affine(image.affine, voxels), 2)}


@pytest.mark.parametrize("layout", PHANTOM_LAYOUTS)
def test_every_layout_is_shown_where_it_lies(tmp_path: Path, layout: str) -> None:
    write_phantoms(tmp_path / "data", cases=1, layout=layout, spacing_mm=8.0)
    discovery = only(discover(tmp_path / "data", layout))
    (case,), code = discovery.cases, discovery.layout.code
    volume = read_volume(case, code)
    assert volume.label is not None
    prediction = tmp_path / discovery.layout.upload_name(case)
    write_label(prediction, volume.label, case)
    view = write_view(discovery, prediction, tmp_path / "page.html")
    assert view.maps == ("truth", "prediction")
    held = volumes((tmp_path / "page.html").read_text())
    for depth, region in enumerate(code.regions(volume.label), start=1):
        source = nib.Nifti1Image(region.astype(np.uint8), volume.affine)
        assert positions(held["truth"], depth) == positions(source, 1)
        assert positions(held["prediction"], depth) == positions(source, 1)


def test_a_prediction_with_other_axes_lands_where_it_lies(case: Path, tmp_path: Path) -> None:
    image = nib.load(truth_of(case))
    turned = image.as_reoriented(nib.io_orientation(image.affine)[[2, 0, 1]])
    nib.save(turned, tmp_path / "map.nii.gz")
    write_view(discover_input(case), tmp_path / "map.nii.gz", tmp_path / "page.html")
    held = volumes((tmp_path / "page.html").read_text())
    assert positions(held["prediction"], 1) == positions(held["truth"], 1)
    assert positions(held["prediction"], 3) == positions(held["truth"], 3)


def test_a_case_without_truth_is_shown(case: Path, tmp_path: Path) -> None:
    shutil.move(truth_of(case), tmp_path / "map.nii.gz")
    out = tmp_path / "page.html"
    assert write_view(discover_input(case), None, out).maps == ()
    assert list(volumes(out.read_text())) == list(MODALITIES)
    view = write_view(discover_input(case), tmp_path / "map.nii.gz", out)
    assert view == CasePage(
        case=case.name, page=out, bytes=out.stat().st_size, maps=("prediction",), warnings=()
    )


def test_several_cases_are_refused_with_one_that_is_shown(phantom_folder, tmp_path) -> None:
    with pytest.raises(DataError, match=r"holds 12 cases; a page shows one\. Give") as caught:
        write_view(discover(phantom_folder), None, tmp_path / "page.html")
    named = Path(str(caught.value).rpartition("such as ")[2].removesuffix("."))
    assert len(discover_input(named).cases) == 1


def test_a_page_takes_no_other_name(case: Path, tmp_path: Path) -> None:
    scan = case / f"{case.name}_t1.nii.gz"
    before = scan.read_bytes()
    with pytest.raises(DataError, match=r"ends in \.html"):
        write_view(discover_input(case), None, scan)
    assert scan.read_bytes() == before
    with pytest.raises(DataError, match="Make it first"):
        write_view(discover_input(case), None, tmp_path / "nowhere" / "page.html")


def saved(path: Path, voxels: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def refused(case: Path, prediction: Path, tmp_path: Path, words: str) -> None:
    """Check that a prediction is refused in these words, and that no page is left."""
    with pytest.raises(CaseError) as caught:
        write_view(discover_input(case), prediction, tmp_path / "page.html")
    assert words in str(caught.value)
    assert str(prediction) in str(caught.value)
    assert not list(tmp_path.glob("*page.html*"))


def test_a_prediction_on_another_grid_is_refused_with_both(case: Path, tmp_path: Path) -> None:
    image = nib.load(truth_of(case))
    label = np.asarray(image.dataobj)
    grid = "×".join(map(str, label.shape))
    cut = saved(tmp_path / "cut.nii.gz", label[:-1], image.affine)
    less = "×".join(map(str, label[:-1].shape))
    refused(case, cut, tmp_path, f"has {less} voxels, {case.name}_t1.nii.gz {grid}.")
    moved = image.affine.copy()
    moved[:3, 3] += (5, 0, 0)
    elsewhere = saved(tmp_path / "moved.nii.gz", label, moved)
    x, y, z = (f"{end + 0.0:.6g}" for end in image.affine[:3, 3])
    refused(case, elsewhere, tmp_path, f"and ({x}, {y}, {z}) mm")


def test_a_file_that_is_no_label_map_of_the_code_is_refused(case: Path, tmp_path: Path) -> None:
    image = nib.load(truth_of(case))
    label = np.asarray(image.dataobj)
    other = saved(tmp_path / "other.nii.gz", np.where(label > 0, 3, label), image.affine)
    refused(case, other, tmp_path, "holds label 3; this layout knows 0, 1 ")
    halves = saved(tmp_path / "halves.nii.gz", label * np.float32(0.5), image.affine)
    refused(case, halves, tmp_path, "no whole numbers")
    maps = saved(tmp_path / "maps.nii.gz", np.stack([label] * 3, axis=-1), image.affine)
    refused(case, maps, tmp_path, "expected a 3-D volume")
    refused(case, tmp_path / "missing.nii.gz", tmp_path, "")
    (tmp_path / "text.nii.gz").write_text("no image")
    refused(case, tmp_path / "text.nii.gz", tmp_path, "is not a NIfTI image")


def test_a_bad_case_is_refused(case: Path, tmp_path: Path) -> None:
    (case / f"{case.name}_t2.nii.gz").unlink()
    with pytest.raises(CaseError, match="t2 volume is missing"):
        write_view(discover_input(case), None, tmp_path / "page.html")
