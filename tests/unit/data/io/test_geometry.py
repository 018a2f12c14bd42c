"""One grid under several headers, and the errors on two grids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from segan_ray.brats import CODE_2017_TO_2021
from segan_ray.data.inspection.inspect_folder import inspect_case
from segan_ray.data.io import metaimage
from segan_ray.data.io.geometry import differences, placed, same_shape, turned_affine
from segan_ray.data.io.headers import ImageHeader
from segan_ray.data.io.label_maps import write_label
from segan_ray.data.io.volumes import check_headers, geometry_warnings, read_volume
from segan_ray.data.layouts.cases import Case, discover
from segan_ray.errors import CaseError
from tests.unit.data.io.test_label_maps import ORIENTATIONS, affine_of
from tests.unit.malformed import AFFINE, truth, write_case

GRID = (5, 7, 4)
MOVED = AFFINE + np.array([[0, 0, 0, 30], [0, 0, 0, -12.5], [0, 0, 0, 7], [0, 0, 0, 0]])
SIN, COS = np.sin(0.1), np.cos(0.1)
TILTED = AFFINE @ np.array([[COS, -SIN, 0, 0], [SIN, COS, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def header(affine: np.ndarray, grid: tuple[int, ...] = GRID, **more: object) -> ImageHeader:
    return replace(ImageHeader(grid, affine, (affine,)), **more)


@given(
    st.sampled_from(ORIENTATIONS), st.sampled_from(ORIENTATIONS), st.booleans(), st.integers(0, 2)
)
def test_a_grid_is_the_same_along_any_axes(
    axes: str, others: str, oblique: bool, axis: int
) -> None:
    """Turned axes are one grid; moved by one voxel along any axis they are not."""
    base = header(affine_of("RAS", oblique=oblique))
    one, two = (turned(base, name) for name in (axes, others))
    affine = placed(two, one)
    assert affine is not None
    np.testing.assert_allclose(affine, two.affine, atol=1e-6)
    step = np.eye(4)
    step[axis, 3] = 1
    moved = header(two.affine @ step, two.grid)
    assert placed(moved, one) is None
    assert same_shape(moved, one)
    assert "origins" in differences(moved, one)


def turned(base: ImageHeader, axes: str) -> ImageHeader:
    """Return the same voxels along other axes, as nibabel reorients an image."""
    image = nib.Nifti1Image(np.zeros(base.grid, np.uint8), base.affine)
    turn = ornt_transform(io_orientation(base.affine), axcodes2ornt(tuple(axes)))
    reoriented = image.as_reoriented(turn)
    return header(reoriented.affine, reoriented.shape)


def test_any_pair_of_forms_is_enough() -> None:
    both = header(AFFINE, forms=(AFFINE, MOVED))
    for other in (AFFINE, MOVED):
        np.testing.assert_array_equal(placed(header(other), both), AFFINE)
        np.testing.assert_array_equal(placed(both, header(other)), other)
    assert placed(header(TILTED), both) is None


def test_a_header_without_affine_takes_that_of_its_neighbour() -> None:
    silent = header(np.diag([-2.0, 2, 3, 1]), forms=())
    np.testing.assert_array_equal(placed(silent, header(MOVED)), MOVED)
    assert placed(header(AFFINE, (5, 7, 3)), silent) is None
    assert not same_shape(header(AFFINE, (5, 7, 3)), silent)
    thick = header(np.diag([-2.0, 2, 3.5, 1]), forms=())
    assert placed(thick, header(AFFINE)) is None
    assert differences(thick, header(AFFINE)) == "spacings (2, 2, 3) and (2, 2, 3.5) mm"


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (MOVED, "origins (0, 0, 0) and (30, -12.5, 7) mm"),
        (
            np.diag([-2.5, -2, 1, 1]),
            "spacings (2, 2, 3) and (2.5, 2, 1) mm",
        ),
        (
            TILTED,
            "directions (-1, 0, 0) (0, -1, 0) (0, 0, 1) and "
            "(-0.995004, 0.0998334, 0) (-0.0998334, -0.995004, 0) (0, 0, 1)",
        ),
        (np.diag([2.0, -2, 3, 1]), "origins (0, 0, 0) and (8, 0, 0) mm, both turned to LPS axes"),
    ],
)
def test_only_the_differences_are_named_with_both_values(affine: np.ndarray, words: str) -> None:
    assert differences(header(affine), header(AFFINE)) == words


# ------------------------------------------------------------------------------- in a case


@pytest.fixture
def case(tmp_path: Path) -> Case:
    write_case(tmp_path / "data", "BraTS2021_00001", 1)
    return discover(tmp_path / "data").cases[0]


def store(path: Path, edit: Callable[[nib.Nifti1Image], nib.Nifti1Image]) -> None:
    image = nib.load(path)
    changed = edit(nib.Nifti1Image(np.asarray(image.dataobj), image.affine))
    path.unlink()
    nib.save(changed, path)


def coded(image: nib.Nifti1Image, qform: np.ndarray | None, sform: np.ndarray | None):
    image.set_qform(qform, code=0 if qform is None else 1)
    image.set_sform(sform, code=0 if sform is None else 1)
    return image


def reoriented(axes: str):
    def edit(image: nib.Nifti1Image) -> nib.Nifti1Image:
        turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(tuple(axes)))
        return image.as_reoriented(turn)

    return edit


def read_and_written(case: Case, out: Path) -> np.ndarray:
    """Check that a case is good, and return its truth once written beside the first scan."""
    assert check_headers(case) == ()
    report = inspect_case(case, "brats2021", 16)
    assert report.problems == ()
    volume = read_volume(case, CODE_2017_TO_2021)
    assert report.regions == {
        name: int(region.sum())
        for name, region in zip(
            ("whole", "core", "enhancing"), CODE_2017_TO_2021.regions(volume.label), strict=True
        )
    }
    write_label(out, volume.label, case)
    return np.asarray(nib.load(out).dataobj)


@pytest.mark.parametrize("axes", ["RAS", "LAS", "PIR", "SAL", "IRP"])
def test_a_truth_along_other_axes_is_turned_to_its_scans(
    case: Case, tmp_path: Path, axes: str
) -> None:
    store(case.label, reoriented(axes))
    np.testing.assert_array_equal(read_and_written(case, tmp_path / "out.nii.gz"), truth())
    assert geometry_warnings(case) == ()


@pytest.mark.parametrize("axes", ["RAS", "PIR"])
def test_scans_along_other_axes_are_turned_to_each_other(
    case: Case, tmp_path: Path, axes: str
) -> None:
    before = read_volume(case, CODE_2017_TO_2021)
    for modality in ("t2", "flair"):
        store(case.images[modality], reoriented(axes))
    np.testing.assert_array_equal(read_and_written(case, tmp_path / "out.nii.gz"), truth())
    after = read_volume(case, CODE_2017_TO_2021)
    np.testing.assert_array_equal(after.image, before.image)
    np.testing.assert_array_equal(after.affine, before.affine)


@pytest.mark.parametrize("axes", ["LPS", "RAS", "SAL"])
@pytest.mark.parametrize("forms", ["sform is qform", "qform is sform", "qform alone"])
def test_a_truth_that_agrees_with_either_form_of_its_scans(
    case: Case, tmp_path: Path, forms: str, axes: str
) -> None:
    """The scan's sform went to another space, as registration leaves it; its qform did not."""
    other = np.diag([3.0, 2.0, 2.0, 1.0])[[2, 0, 1, 3]]  # other axes altogether
    other[:3, 3] = (9, 8, 7)
    scan, label = {
        "sform is qform": ((AFFINE, other), (AFFINE, AFFINE)),
        "qform is sform": ((AFFINE, AFFINE), (AFFINE, other)),
        "qform alone": ((AFFINE, MOVED), (AFFINE, None)),
    }[forms]
    for path in case.images.values():
        store(path, lambda image: coded(image, *scan))
    store(case.label, reoriented(axes))

    def recode(image: nib.Nifti1Image) -> nib.Nifti1Image:
        turn = np.linalg.inv(AFFINE) @ image.affine
        return coded(image, *(None if form is None else form @ turn for form in label))

    store(case.label, recode)
    np.testing.assert_array_equal(read_and_written(case, tmp_path / "out.nii.gz"), truth())
    (warning,) = geometry_warnings(case)
    assert "by one of its qform and sform alone" in warning


@pytest.mark.parametrize("scans", [AFFINE, MOVED, TILTED, np.diag([2.0, 2, 3, 1])])
def test_a_truth_without_codes_lies_as_its_scans(
    case: Case, tmp_path: Path, scans: np.ndarray
) -> None:
    for path in case.images.values():
        store(path, lambda image: coded(image, scans, scans))
    store(case.label, lambda image: coded(image, None, None))
    np.testing.assert_array_equal(read_and_written(case, tmp_path / "out.nii.gz"), truth())
    (warning,) = geometry_warnings(case)
    assert warning.startswith("segmentation: the header says nothing of where voxels lie")
    assert "voxels are taken to lie as those of t1" in warning


def test_a_case_without_codes_at_all(case: Case, tmp_path: Path) -> None:
    for path in (*case.images.values(), case.label):
        store(path, lambda image: coded(image, None, None))
    np.testing.assert_array_equal(read_and_written(case, tmp_path / "out.nii.gz"), truth())
    (warning,) = geometry_warnings(case)
    assert warning.startswith("t1, t1ce, t2, flair, segmentation: the header says nothing")
    assert "axes are taken to run to LAS" in warning


def test_a_truth_without_codes_and_of_other_spacing(case: Case) -> None:
    thick = np.diag([-2.0, -2, 3.5, 1])
    store(
        case.label,
        lambda image: coded(nib.Nifti1Image(np.asarray(image.dataobj), thick), None, None),
    )
    (problem,) = check_headers(case)
    assert "lie differently in space (spacings (2, 2, 3) and (2, 2, 3.5) mm" in problem


def test_the_differences_in_a_case_are_named(case: Case) -> None:
    store(case.label, lambda image: coded(image, MOVED, MOVED))
    (problem,) = check_headers(case)
    assert "BraTS2021_00001_t1.nii.gz (t1) and BraTS2021_00001_seg.nii.gz (segmentation)" in problem
    assert "lie differently in space (origins (0, 0, 0) and (30, -12.5, 7) mm)" in problem
    with pytest.raises(CaseError, match="origins"):
        read_volume(case, CODE_2017_TO_2021)


def test_a_grid_along_other_axes_that_is_smaller(case: Case) -> None:
    store(case.label, lambda image: reoriented("PIR")(image.slicer[:, :-1]))
    (problem,) = check_headers(case)
    assert "has 24×28×20 voxels, BraTS2021_00001_seg.nii.gz (segmentation) 27×20×24" in problem


def test_rounded_origins_and_flips_are_one_grid(case: Case) -> None:
    rounded = AFFINE.copy()
    rounded[:3, 3] += 0.004
    store(case.label, lambda image: reoriented("RAS")(coded(image, rounded, rounded)))
    assert check_headers(case) == ()


def test_a_metaimage_without_a_position(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.mha" for name in ("scan", "truth")]
    voxels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for path in paths:
        metaimage.write_image(path, voxels, AFFINE + np.eye(4, k=3) * 5, compress=False)
    case = Case("C", "C", None, dict.fromkeys(("t1", "t1ce", "t2", "flair"), paths[0]), paths[1])
    assert check_headers(case) == geometry_warnings(case) == ()
    lines = paths[1].read_bytes().split(b"\n")
    kept = [line for line in lines if not line.startswith((b"Offset", b"TransformMatrix"))]
    paths[1].write_bytes(b"\n".join(kept))
    assert check_headers(case) == ()
    assert "says nothing" in geometry_warnings(case)[0]
    paths[1].write_bytes(b"\n".join(lines).replace(b"Offset = -5", b"Offset = -6"))
    assert "origins (5, 0, 0) and (6, 0, 0) mm" in check_headers(case)[0]


def test_turned_affines_run_to_the_left_back_and_head() -> None:
    for axes in ORIENTATIONS:
        affine = turned_affine(affine_of(axes), GRID)
        assert (np.diag(affine)[:3] * [-1, -1, 1] > 0).all()
