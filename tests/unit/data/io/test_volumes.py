from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segan_ray.brats import CODE_2017_TO_2021, CODE_2023, CODE_2024, CODE_MSD
from segan_ray.data.io.volumes import check_headers, read_volume
from segan_ray.data.layouts.cases import Case, discover
from segan_ray.errors import CaseError


def first(folder: Path) -> Case:
    return discover(folder).cases[0]


def rewrite(path: Path, change, *, affine: np.ndarray | None = None, dtype=np.float32) -> None:
    image = nib.load(path)
    voxels = change(np.asarray(image.dataobj).astype(dtype))
    nib.save(nib.Nifti1Image(voxels, image.affine if affine is None else affine), path)


def problem(case: Case) -> str:
    with pytest.raises(CaseError) as caught:
        read_volume(case, CODE_2017_TO_2021)
    assert case.case in str(caught.value)
    return str(caught.value)


def test_a_good_case_is_read_whole(folder: Path) -> None:
    case = first(folder)
    assert check_headers(case) == ()
    volume = read_volume(case, CODE_2017_TO_2021)
    assert volume.image.shape == (4, 60, 60, 39)
    assert volume.image.dtype == np.float32
    assert volume.label is not None
    assert volume.spacing_mm == pytest.approx((4, 4, 4))


def test_a_truncated_gzip_is_seen_without_reading_it(folder: Path) -> None:
    case = first(folder)
    path = case.images["flair"]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert any("is truncated" in text or "cannot be read" in text for text in check_headers(case))
    assert str(path) in problem(case)


def test_a_truncated_plain_file(folder: Path) -> None:
    case = first(folder)
    packed = case.images["t2"]
    plain = packed.with_suffix("")
    plain.write_bytes(gzip.decompress(packed.read_bytes())[:-1000])
    packed.unlink()
    assert "is truncated" in check_headers(first(folder))[0]


def test_a_damaged_gzip_is_found_on_reading(folder: Path) -> None:
    case = first(folder)
    path = case.images["t1"]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    assert "damaged" in problem(case)


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "is empty"), (b"no image at all" * 100, "cannot be read|is not a")]
)
def test_a_file_that_is_no_image(folder: Path, content: bytes, words: str) -> None:
    case = first(folder)
    case.images["t1ce"].write_bytes(content)
    import re

    assert re.search(words, check_headers(case)[0])


def test_shapes_that_differ(folder: Path) -> None:
    case = first(folder)
    rewrite(case.label, lambda voxels: voxels[:, :, :-1], dtype=np.uint8)
    text = problem(case)
    assert "60×60×39" in text
    assert "60×60×38" in text


def test_affines_that_differ(folder: Path) -> None:
    case = first(folder)
    rewrite(case.images["t2"], lambda voxels: voxels, affine=np.diag([-4.0, -4, 4, 1]))
    assert "lie differently in space" in problem(case)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers(folder: Path, value: float) -> None:
    case = first(folder)

    def poison(voxels: np.ndarray) -> np.ndarray:
        voxels[30, 30, 20] = value
        return voxels

    rewrite(case.images["flair"], poison)
    assert "NaN or infinite" in problem(case)


def test_a_constant_volume(folder: Path) -> None:
    case = first(folder)
    rewrite(case.images["flair"], np.ones_like)
    assert "every voxel is 1" in problem(case)


def test_a_label_outside_the_code(folder: Path) -> None:
    case = first(folder)
    rewrite(case.label, lambda voxels: np.where(voxels == 2, 3, voxels), dtype=np.uint8)
    assert "holds label 3; this layout knows 0, 1 necrotic" in problem(case)


def test_a_cavity_under_2023_names_the_layout_of_2024(folder: Path) -> None:
    case = first(folder)
    rewrite(case.label, lambda voxels: np.where(voxels == 2, 4, voxels), dtype=np.uint8)
    with pytest.raises(CaseError, match=r"holds label 4; .*say --layout brats2024") as caught:
        read_volume(case, CODE_2023)
    assert str(case.label) in str(caught.value)
    assert read_volume(case, CODE_2024).label.max() == 4
    with pytest.raises(CaseError, match="holds label 4") as caught:
        read_volume(case, CODE_MSD)
    assert "brats2024" not in str(caught.value)


def test_an_axis_without_voxels(folder: Path) -> None:
    case = first(folder)
    rewrite(case.images["t2"], lambda voxels: voxels[:, :, :0])
    assert "has 60×60×0 voxels; expected a 3-D volume" in problem(case)


def test_a_fractional_label(folder: Path) -> None:
    case = first(folder)
    rewrite(case.label, lambda voxels: voxels * 0.5)
    assert "holds label" in problem(case)


def test_another_orientation_reads_the_same(folder: Path) -> None:
    """A case stored in RAS with axes swapped gives the voxels of the same case in LPS."""
    case = first(folder)
    before = read_volume(case, CODE_2017_TO_2021)
    for path in (*case.images.values(), case.label):
        image = nib.load(path)
        turn = np.array([[1, -1], [0, 1], [2, -1]])
        nib.save(image.as_reoriented(turn), path)
    after = read_volume(case, CODE_2017_TO_2021)
    np.testing.assert_array_equal(before.image, after.image)
    np.testing.assert_array_equal(before.label, after.label)
    np.testing.assert_allclose(before.affine, after.affine, atol=1e-5)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda image: image.header.__setitem__("datatype", 9999), "is not a NIfTI image"),
        (lambda image: image.header["dim"].__setitem__(0, 99), "expected a 3-D volume"),
    ],
)
def test_a_damaged_header_is_a_problem_of_its_case(folder: Path, damage, words: str) -> None:
    case = first(folder)
    path = case.images["t1"]
    content = bytearray(gzip.decompress(path.read_bytes()))
    image = nib.Nifti1Image.from_bytes(bytes(content))
    damage(image)
    content[:348] = image.header.binaryblock[:348]
    path.write_bytes(gzip.compress(bytes(content)))
    assert words in check_headers(case)[0]


def test_a_nifti_2_file_and_a_fourth_axis_of_one_are_read(folder: Path) -> None:
    case = first(folder)
    before = read_volume(case, CODE_2017_TO_2021)
    image = nib.load(case.images["t1"])
    voxels = np.asarray(image.dataobj)[..., None]
    nib.save(nib.Nifti2Image(voxels, image.affine), case.images["t1"])
    np.testing.assert_array_equal(read_volume(case, CODE_2017_TO_2021).image, before.image)


def test_colours_are_no_intensities(folder: Path) -> None:
    case = first(folder)
    image = nib.load(case.images["t1"])
    colour = np.zeros(image.shape, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colour, image.affine), case.images["t1"])
    assert "holds colours; expected one real number a voxel" in check_headers(case)[0]
