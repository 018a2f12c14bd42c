"""NIfTI files as tools write them: with all packings and names, and odd headers."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segan_ray.data.io import gzipped
from segan_ray.data.io.headers import ImageError
from segan_ray.data.io.nifti import carried_checksum, encode_like, read_header, read_image
from segan_ray.data.io.volumes import check_headers, read_volume
from segan_ray.data.layouts.cases import Case, discover
from segan_ray.data.store.prepare_case import signature
from tests.unit.data.io.test_gzipped import BGZF_END
from tests.unit.malformed import write_case

SHAPE = (5, 6, 7)
AFFINE = np.diag([-1.0, -2.0, 3.0, 1.0])
VOXELS = np.arange(210, dtype=np.int16).reshape(SHAPE)


def content(edit: Callable[[nib.Nifti1Header], None] = lambda header: None) -> bytes:
    """Return a whole NIfTI file whose header was changed after everything else."""
    image = nib.Nifti1Image(VOXELS, AFFINE)
    image.set_qform(AFFINE, code=1)
    image.set_sform(AFFINE, code=1)
    plain = image.to_bytes()
    header = nib.Nifti1Header(plain[:348], check=False)
    edit(header)
    return header.binaryblock + plain[348:]


def members(plain: bytes, size: int) -> bytes:
    return b"".join(gzip.compress(plain[at : at + size]) for at in range(0, len(plain), size))


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "one member": gzip.compress,
    "members": lambda plain: members(plain, 100),
    "members as long as each other": lambda plain: members(plain, len(plain) // 2),
    "BGZF": lambda plain: members(plain, 300) + BGZF_END,
    "padded": lambda plain: gzip.compress(plain) + bytes(4096),
    "members, padded": lambda plain: members(plain, 250) + bytes(7),
    "a tail": lambda plain: gzip.compress(plain) + b"no member",
    "named": lambda plain: gzip.compress(plain)[:3] + b"\x08" + gzip.compress(plain)[4:10]
    + b"name.nii\0" + gzip.compress(plain)[10:],
    "longer": lambda plain: gzip.compress(plain + bytes(1000)),
    "plain": bytes,
    "plain, longer": lambda plain: plain + bytes(1000),
}  # fmt: skip


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_a_file_is_read_with_any_packing_and_name(
    tmp_path: Path, packing: str, ending: str
) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(PACKINGS[packing](content()))
    assert read_header(path).shape == SHAPE
    voxels, affine = read_image(path)
    np.testing.assert_array_equal(voxels, VOXELS)
    np.testing.assert_array_equal(affine, AFFINE)
    written = nib.Nifti1Image.from_bytes(
        gzip.decompress(encode_like(path, VOXELS.astype(np.uint8), "labels"))
    )
    np.testing.assert_array_equal(np.asarray(written.dataobj), VOXELS)
    np.testing.assert_array_equal(written.affine, AFFINE)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_a_cut_file_is_truncated_with_any_packing(
    tmp_path: Path, packing: str, ending: str
) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(PACKINGS[packing](content()[:-1][:740]))
    if packing in {"longer", "plain, longer"}:  # the bytes that follow make up for the cut
        assert read_image(path)[0].shape == SHAPE
        return
    for read in (read_header, read_image):
        with pytest.raises(ImageError, match=r"is truncated: its header promises 772 bytes"):
            read(path)


@pytest.mark.parametrize("size", [0, 1, 20, 347])
@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_a_file_that_ends_within_its_header(tmp_path: Path, size: int, pack) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(pack(content()[:size]))
    with pytest.raises(ImageError, match=r"is truncated|is empty|is not a NIfTI image"):
        read_header(path)


def test_a_length_that_agrees_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(content()))
    monkeypatch.delattr(gzipped, "unpack")
    assert read_header(path).shape == SHAPE


def test_no_memory_is_taken_for_voxels_that_cannot_exist(tmp_path: Path) -> None:
    def swell(header: nib.Nifti1Header) -> None:
        header["dim"][1:4] = 32767

    for pack in (bytes, gzip.compress):
        path = tmp_path / "a.nii"
        path.write_bytes(pack(content(swell)))
        for read in (read_header, read_image):
            with pytest.raises(ImageError, match=f"promises {352 + 2 * 32767**3:,} bytes"):
                read(path)


def sets(**fields: object) -> Callable[[nib.Nifti1Header], None]:
    def edit(header: nib.Nifti1Header) -> None:
        for name, value in fields.items():
            header[name] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (sets(datatype=9999), "is not a NIfTI image (its header is wrong: data code 9999"),
        (sets(vox_offset=0), "voxels from byte 0 on, which is within the header"),
        (sets(vox_offset=100), "vox offset 100 too low"),
        (sets(vox_offset=np.nan), "voxels from byte nan on"),
        (sets(vox_offset=-5), "too low"),
        (sets(magic=b"ni1", vox_offset=0), "is the header of a NIfTI pair (.hdr)"),
        (sets(magic=b"xyz"), "but Analyze 7.5 or a broken NIfTI header"),
        (sets(dim=[3, -5, 6, 7, 1, 1, 1, 1]), "has -5×6×7 voxels; expected a 3-D volume"),
        (sets(dim=[2, 5, 6, 1, 1, 1, 1, 1]), "has 5×6 voxels; expected a 3-D volume"),
        (sets(scl_slope=2, scl_inter=np.nan), "Valid slope but invalid intercept nan"),
        (
            sets(sform_code=0, quatern_b=0.9, quatern_c=0.9, quatern_d=0.9),
            "its qform's quaternion 0.9, 0.9, 0.9 is no turn",
        ),
        (sets(sform_code=0, quatern_b=np.nan), "says nothing of where its voxels lie"),
        (sets(srow_x=0), "its affine is singular: 0 0 0 0; 0 -2 0 0; 0 0 3 0"),
        (sets(srow_y=np.inf), "its affine is singular: -1 0 0 0; inf inf inf inf"),
        (sets(sform_code=0, pixdim=[1, 0, 2, 3, 0, 0, 0, 0]), "its voxels measure 0×2×3 mm"),
        (sets(sform_code=0, pixdim=[1, np.nan, 2, 3, 0, 0, 0, 0]), "its affine is singular: nan"),
        (sets(sform_code=0, qform_code=0, pixdim=[1, 0, 0, 0, 0, 0, 0, 0]), "measure 0×0×0"),
    ],
)
def test_the_error_of_a_wrong_header_names_the_fault(tmp_path: Path, edit, words: str) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(content(edit))
    for read in (read_header, read_image):
        with pytest.raises(ImageError) as caught:
            read(path)
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "edit",
    [
        sets(pixdim=[1, 1, 2, 3, np.nan, 0, -1, np.inf]),
        sets(pixdim=[0, -1, -2, -3, 0, 0, 0, 0]),
        sets(pixdim=[np.nan, 1, 2, 3, 0, 0, 0, 0]),
        sets(quatern_b=0.9, quatern_c=0.9, quatern_d=0.9),
        sets(qform_code=0),
        sets(scl_slope=0, scl_inter=np.nan),
        sets(scl_slope=np.nan, scl_inter=np.nan),
        sets(magic=b"ni1"),
        sets(xyzt_units=1),
        sets(xyzt_units=3),
        sets(xyzt_units=255),
        sets(intent_code=9999, slice_code=77, cal_max=np.nan),
    ],
)
def test_faults_that_do_not_matter_are_passed_over(
    tmp_path: Path, edit, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(content(edit))
    voxels, affine = read_image(path)
    np.testing.assert_array_equal(voxels, VOXELS)
    np.testing.assert_array_equal(affine, AFFINE)
    np.testing.assert_array_equal(read_header(path).affine, AFFINE)
    assert encode_like(path, VOXELS.astype(np.uint8), "labels")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("units", "factor"), [(1, 0.001), (3, 1000.0)])
def test_metres_and_microns_that_are_meant_become_mm(
    tmp_path: Path, units: int, factor: float
) -> None:
    def edit(header: nib.Nifti1Header) -> None:
        header["xyzt_units"] = units
        for row in ("srow_x", "srow_y", "srow_z"):
            header[row] *= factor

    path = tmp_path / "a.nii"
    path.write_bytes(content(edit))
    np.testing.assert_allclose(read_header(path).affine, AFFINE, rtol=1e-6)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("endianness", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("scale", [(1, 0), (2.5, 0), (0.0039, -1), (1, 3), (1e30, 0)])
def test_numbers_are_those_that_nibabel_reads(
    tmp_path: Path, kind, endianness: str, dtype, scale: tuple[float, float]
) -> None:
    header = kind.header_class(endianness=endianness)
    header.set_data_dtype(dtype)
    header.set_slope_inter(*scale)
    image = kind(VOXELS.astype(dtype), AFFINE, header)
    image.header.set_slope_inter(*scale)
    path = tmp_path / "a.nii.gz"
    nib.save(image, path)
    expected = np.asarray(nib.load(path).dataobj, dtype=np.float32)
    actual, _ = read_image(path)
    if scale == (1, 0):
        assert actual.dtype == np.dtype(dtype).newbyteorder(endianness)
    np.testing.assert_array_equal(actual.astype(np.float32), expected)


# ------------------------------------------------------------------------------- in a case


def repack(case: Case, pack: Callable[[bytes], bytes]) -> None:
    for path in (*case.images.values(), case.label):
        path.write_bytes(pack(gzip.decompress(path.read_bytes())))


@pytest.mark.parametrize("packing", [name for name in PACKINGS if "longer" not in name])
def test_a_case_is_the_same_with_any_packing(tmp_path: Path, packing: str) -> None:
    write_case(tmp_path, "BraTS2021_00001", 1)
    discovery = discover(tmp_path)
    (case,) = discovery.cases
    before = read_volume(case, discovery.layout.code)
    repack(case, PACKINGS[packing])
    assert check_headers(case) == ()
    after = read_volume(case, discovery.layout.code)
    np.testing.assert_array_equal(after.image, before.image)
    np.testing.assert_array_equal(after.label, before.label)
    np.testing.assert_array_equal(after.affine, before.affine)


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_case_whose_voxels_change_has_another_signature(tmp_path: Path, packing: str) -> None:
    """Two files of other voxels may have one length and one end: a padded gzip ends in zeros."""
    write_case(tmp_path, "BraTS2021_00001", 1)
    (case,) = discover(tmp_path).cases
    path = case.images["t1"]
    other = VOXELS.copy()
    other[0, 0, 0] = 199  # any bytes may differ, so store them as they are
    marks = []
    for voxels in (VOXELS, other):
        plain = nib.Nifti1Image(voxels, AFFINE).to_bytes()
        path.write_bytes(PACKINGS[packing](plain))
        marks.append(signature(case)[path.name])
    assert marks[0] != marks[1]


def test_only_a_checksum_of_the_whole_content_is_carried(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    checksums = {}
    for name, pack in PACKINGS.items():
        path.write_bytes(pack(content()))
        checksums[name] = carried_checksum(path)
    assert {name for name, checksum in checksums.items() if checksum} == {"one member", "named"}
    path.write_bytes(b"no image")
    assert carried_checksum(path) is None


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32])
def test_labels_come_back_from_a_type_that_nibabel_stretched_them_over(
    tmp_path: Path, dtype: type
) -> None:
    files = write_case(tmp_path, "BraTS2021_00001", 1)
    discovery = discover(tmp_path)
    image = nib.load(files["seg"])
    labels = np.asarray(image.dataobj).astype(np.float64)
    stretched = nib.Nifti1Image(labels * (1 - 1e-9), image.affine)  # no whole numbers: it scales
    stretched.set_data_dtype(dtype)
    nib.save(stretched, files["seg"])
    read = read_volume(discovery.cases[0], discovery.layout.code)
    np.testing.assert_array_equal(read.label, labels)
