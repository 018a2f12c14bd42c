"""MetaImage files: the positions of their voxels, and the errors of damaged files."""

from __future__ import annotations

import tracemalloc
import zlib
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from segan_ray.brats import CODE_UNTIL_2015, MODALITIES
from segan_ray.data.io import metaimage
from segan_ray.data.io.headers import ImageError
from segan_ray.data.io.volumes import check_headers, read_volume
from segan_ray.data.layouts.cases import Case
from segan_ray.errors import CaseError

SHAPE = (5, 6, 7)
CORNER = (0, 0, 0)
SPACING_MM = (2.0, 3.0, 4.0)
ORIGIN_LPS_MM = (11.0, -22.0, 33.0)
OBLIQUE = np.array(  # a turn of 10° about the head's axis, in ITK's left, back, head
    [
        [np.cos(np.pi / 18), -np.sin(np.pi / 18), 0],
        [np.sin(np.pi / 18), np.cos(np.pi / 18), 0],
        [0, 0, 1],
    ]
)
SCAN_AFFINE = np.array([[-2.0, 0, 0, -11], [0, -3, 0, 22], [0, 0, 4, 33], [0, 0, 0, 1]])
SAGITTAL = np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]])  # back, feet, right


def voxels() -> np.ndarray:
    image = np.random.default_rng(0).integers(1, 900, SHAPE).astype(np.int16)
    image[CORNER] = 5000
    return image


def write_both(folder: Path, direction: np.ndarray) -> sitk.Image:
    """Write one volume with ITK and, its place in space worked out anew, with nibabel."""
    image = sitk.GetImageFromArray(voxels().transpose(2, 1, 0))
    image.SetSpacing(SPACING_MM)
    image.SetOrigin(ORIGIN_LPS_MM)
    image.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(image, str(folder / "scan.mha"))
    affine = np.eye(4)
    for column in range(3):
        affine[:3, column] = direction[:, column] * SPACING_MM[column]
    affine[:3, 3] = ORIGIN_LPS_MM
    affine[:2] *= -1
    nib.save(nib.Nifti1Image(voxels(), affine), folder / "scan.nii.gz")
    return image


def case(path: Path, label: Path | None = None) -> Case:
    return Case("C", "C", None, dict.fromkeys(MODALITIES, path), label)


@pytest.mark.parametrize("direction", [np.eye(3), OBLIQUE, SAGITTAL, np.diag([-1.0, -1, 1])])
def test_both_formats_put_a_voxel_at_one_position(tmp_path: Path, direction: np.ndarray) -> None:
    image = write_both(tmp_path, direction)
    meta = read_volume(case(tmp_path / "scan.mha"), CODE_UNTIL_2015)
    nifti = read_volume(case(tmp_path / "scan.nii.gz"), CODE_UNTIL_2015)
    np.testing.assert_array_equal(meta.image, nifti.image)
    np.testing.assert_allclose(meta.affine, nifti.affine, atol=1e-4)
    (index,) = np.argwhere(meta.image[0] == 5000)
    left, back, head = image.TransformIndexToPhysicalPoint(CORNER)
    np.testing.assert_allclose(
        (meta.affine @ [*index, 1])[:3], [-left, -back, head], rtol=0, atol=1e-4
    )
    # Axes of the array run to the left, back and head.
    assert (np.diag(meta.affine)[:3] * [-1, -1, 1] > 0).all()


def test_an_image_without_turns_keeps_its_array(tmp_path: Path) -> None:
    """ITK's own axes are left, back and head, as BRATS has them."""
    write_both(tmp_path, np.eye(3))
    volume = read_volume(case(tmp_path / "scan.mha"), CODE_UNTIL_2015)
    np.testing.assert_array_equal(volume.image[0], voxels())
    assert volume.spacing_mm == pytest.approx(SPACING_MM)


def test_formats_may_be_mixed_in_a_case(tmp_path: Path) -> None:
    write_both(tmp_path, SAGITTAL)
    mixed = case(tmp_path / "scan.mha")
    mixed = Case("C", "C", None, {**mixed.images, "t2": tmp_path / "scan.nii.gz"}, None)
    assert check_headers(mixed) == ()
    assert np.ptp(read_volume(mixed, CODE_UNTIL_2015).image, axis=0).max() == 0


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
def test_a_written_image_is_read_back(tmp_path: Path, compress: bool, dtype: type) -> None:
    affine = np.diag([-2.0, -3.0, 4.0, 1.0])
    affine[:3, 3] = [1, 239, -5]
    written = (voxels() % 200).astype(dtype)
    for name in ("a.mha", "b.mha"):
        metaimage.write_image(tmp_path / name, written, affine, compress=compress)
    actual, found_affine = metaimage.read_image(tmp_path / "a.mha")
    np.testing.assert_array_equal(actual, written)
    np.testing.assert_allclose(found_affine, affine)
    assert (tmp_path / "a.mha").read_bytes() == (tmp_path / "b.mha").read_bytes()


def without_size(content: bytes) -> bytes:
    """Drop the line that says how long the compressed voxels are, and their end."""
    lines = content.split(b"\n")
    return b"\n".join(line for line in lines if b"CompressedDataSize" not in line)[:-20]


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: b"", "the file is empty"),
        (lambda content: b"no image at all" * 100, "is not a MetaImage"),
        (lambda content: content[:60], "is not a MetaImage"),
        (lambda content: content[: len(content) // 2 + 150], "is truncated"),
        (lambda content: content[:-1], "is truncated"),
        (without_size, "is truncated"),
        (lambda content: content.replace(b"= 5 6 7", b"= 5 6 0"), "has 5×6×0 voxels"),
        (lambda content: content.replace(b"MET_SHORT", b"MET_OTHER"), "expected one number"),
        (lambda content: content.replace(b"LOCAL", b"a.raw"), "another file (a.raw)"),
        (lambda content: content.replace(b"NDims = 3", b"NDims = 2"), "voxels; expected a 3-D"),
    ],
)
def test_a_file_that_is_no_whole_image(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], compress: bool, damage, words: str
) -> None:
    path = tmp_path / "scan.mha"
    metaimage.write_image(path, voxels(), np.eye(4), compress=compress)
    path.write_bytes(damage(path.read_bytes()))
    problems = check_headers(case(path))
    with pytest.raises(CaseError) as caught:
        read_volume(case(path), CODE_UNTIL_2015)
    for text in (str(caught.value), *problems[:1]):
        assert words in text
        assert str(path) in text
        assert "\n" not in text
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "header",
    [
        "ElementDataFile : ../elsewhere.raw\nElementDataFile = LOCAL\n",
        "  ElementDataFile = ../elsewhere.raw\nElementDataFile = LOCAL\n",
        "Comment\nElementDataFile = LOCAL\nElementDataFile = ../elsewhere.raw\n",
        "Origin = 1\nElementDataFile = LOCAL\nElementDataFile = ../elsewhere.raw\n",
    ],
)
def test_no_header_leads_to_another_file(tmp_path: Path, header: str) -> None:
    """ITK would read voxels from any file that such a header names."""
    (tmp_path / "elsewhere.raw").write_bytes(b"\x07" * 64)
    path = tmp_path / "case" / "scan.mha"
    path.parent.mkdir()
    metaimage.write_image(path, np.zeros((4, 4, 4), np.uint8), np.eye(4), compress=False)
    content = path.read_bytes().replace(b"ElementDataFile = LOCAL\n", header.encode())
    path.write_bytes(content + b"\0" * 64)
    with pytest.raises(ImageError, match=r"more than once .*ElementDataFile"):
        metaimage.read_image(path)


def test_a_changed_byte_is_found_on_reading(tmp_path: Path) -> None:
    path = tmp_path / "scan.mha"
    metaimage.write_image(path, voxels(), np.eye(4))
    content = bytearray(path.read_bytes())
    content[-30] ^= 0xFF
    path.write_bytes(bytes(content))
    assert check_headers(case(path)) == ()
    with pytest.raises(CaseError, match="damaged"):
        read_volume(case(path), CODE_UNTIL_2015)


def test_a_label_outside_the_code(tmp_path: Path) -> None:
    write_both(tmp_path, np.eye(3))
    label = sitk.ReadImage(str(tmp_path / "scan.mha")) * 0 + 5
    sitk.WriteImage(label, str(tmp_path / "label.mha"))
    with pytest.raises(CaseError, match="holds label 5; this layout knows 0, 1 necrosis, 2 edema"):
        read_volume(case(tmp_path / "scan.mha", tmp_path / "label.mha"), CODE_UNTIL_2015)


def test_labels_that_a_scale_moved(tmp_path: Path) -> None:
    write_both(tmp_path, np.eye(3))
    stored = (voxels() % 5).astype(np.float32)
    metaimage.write_image(tmp_path / "label.mha", stored * np.float32(1.0039), SCAN_AFFINE)
    read = read_volume(case(tmp_path / "scan.mha", tmp_path / "label.mha"), CODE_UNTIL_2015)
    np.testing.assert_array_equal(read.label, stored)
    metaimage.write_image(tmp_path / "label.mha", stored * np.float32(1.1), SCAN_AFFINE)
    with pytest.raises(CaseError, match="no whole numbers"):
        read_volume(case(tmp_path / "scan.mha", tmp_path / "label.mha"), CODE_UNTIL_2015)


def test_a_bomb_is_refused_at_twice_what_its_header_promises(tmp_path: Path) -> None:
    path = tmp_path / "scan.mha"
    metaimage.write_image(path, np.zeros((500, 500, 400), np.uint8), np.eye(4))
    content = path.read_bytes().replace(b"DimSize = 500 500 400", b"DimSize = 10 10 10")
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match=r"unpacks to over .* promises 1,000\."):
            metaimage.read_image(path)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


def test_positions_that_differ_are_reported(tmp_path: Path) -> None:
    write_both(tmp_path, np.eye(3))
    moved = SCAN_AFFINE + np.eye(4, k=3) * 5
    metaimage.write_image(tmp_path / "label.mha", voxels() * 0, moved)
    (problem,) = check_headers(case(tmp_path / "scan.mha", tmp_path / "label.mha"))[-1:]
    assert "origins (-11, 22, 33) and (-6, 22, 33) mm" in problem


TYPES = {
    "CHAR": "i1", "UCHAR": "u1", "SHORT": "i2", "USHORT": "u2", "INT": "i4", "UINT": "u4",
    "LONG": "i4", "ULONG": "u4", "LONG_LONG": "i8", "ULONG_LONG": "u8", "FLOAT": "f4",
    "DOUBLE": "f8",
}  # fmt: skip
PLACES = {
    "none": "",
    "plain": "Offset = 1.5 -2 3e1\nElementSpacing = 2 3 4\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n",
    "turned": "Position = 1 2 3\nElementSize = 2 3 4\nOrientation = 0 1 0 0 0 1 1 0 0\n",
    "oblique": "Origin : 1 2 3\nRotation : 0.6 0.8 0 -0.8 0.6 0 0 0 1\n",
    "backwards": "Offset = 0 0 0\nElementSpacing = -2 3 4\n",
    "two lengths": "ElementSize = 9 9 9\nElementSpacing = 2 3 4\nAnatomicalOrientation = RAI\n",
    "scaled": "ElementToIntensityFunctionSlope = 2\nElementToIntensityFunctionOffset = 7\n",
}


@pytest.mark.parametrize("order", ["BinaryDataByteOrderMSB", "ElementByteOrderMSB", ""])
@pytest.mark.parametrize("msb", [True, False])
@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("axes", [3, 4])
def test_a_sound_file_is_read_as_itk_reads_it(
    tmp_path: Path, order: str, msb: bool, compress: bool, axes: int
) -> None:
    path, written = tmp_path / "scan.mha", tmp_path / "label.mha"
    for (kind, code), (name, place) in product(TYPES.items(), PLACES.items()):
        if axes == 4 and name != "none":
            continue
        stored = voxels().astype(np.dtype(code).newbyteorder(">" if msb and order else "<"))
        content = stored.tobytes(order="F")
        packed = zlib.compress(content) if compress else content
        header = (
            f"ObjectType = Image\nNDims = {axes}\nBinaryData = True\n"
            + (f"{order} = {msb}\n" if order else "")
            + (f"CompressedData = True\nCompressedDataSize = {len(packed)}\n" if compress else "")
            + f"{place}DimSize = 5 6 7{' 1' * (axes - 3)}\nElementType = MET_{kind}\n"
            "ElementDataFile = LOCAL\n"
        )
        path.write_bytes(header.encode() + packed)
        image = sitk.ReadImage(str(path), imageIO="MetaImageIO")
        expected = sitk.GetArrayFromImage(image).T.reshape(SHAPE)
        actual, affine = metaimage.read_image(path)
        assert actual.dtype == expected.dtype
        np.testing.assert_array_equal(actual, expected)
        for index in ([0] * axes, [4, 5, 6, 0][:axes]):
            left, back, head = image.TransformIndexToPhysicalPoint(index)[:3]
            place_mm = (affine @ [*index[:3], 1])[:3]
            np.testing.assert_allclose(place_mm, [-left, -back, head], rtol=0, atol=1e-12)
    if axes == 3:  # the last place, which has spacings of its own
        written.write_bytes(metaimage.encode_like(path, voxels().astype(np.uint8)))
        label = sitk.ReadImage(str(written))
        assert label.GetSpacing() == image.GetSpacing()
        assert label.GetOrigin() == image.GetOrigin()
        assert label.GetDirection() == image.GetDirection()
