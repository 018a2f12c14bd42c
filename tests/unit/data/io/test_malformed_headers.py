"""Headers that lie: each file is read right or refused by name, within the room it promises."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segan_ray.brats import CODE_UNTIL_2015, MODALITIES
from segan_ray.data.io.headers import ImageError
from segan_ray.data.io.images import carried_checksum, read_geometry, read_header, read_image
from segan_ray.data.io.volumes import check_headers, geometry_warnings, read_volume
from segan_ray.data.layouts.cases import Case
from segan_ray.errors import CaseError

SHAPE = (5, 6, 7)
VOXELS = np.random.default_rng(0).integers(1, 900, SHAPE).astype(np.int16)
MOST_BYTES = 48 << 20
NUMBERS = (
    "-1", "0", "1", "2", "5", "10", "100", "2147483647", "4294967299", "1000000000", "-9" * 9,
    "9223372036854775807", "18446744073709551619", "9" * 5000, "1e3", "3.0", "0x3", "1_0", "nan",
    "inf", "-inf", "", "three", "3 3", "\0", "³",
)  # fmt: skip
FIELDS = {
    "NDims": NUMBERS,
    "DimSize": (
        *NUMBERS, "5 6", "5 6 8", "5 6 6", "5 5 7", "5 6 7 1 1", "5 6 7 2", "5 6 -7", "-5 -6 7",
        "1 1 210 1 1 1 1", "4294967296 4294967296 1", "9223372036854775807 2 2",
        "65536 65536 65537",
        "1000000 1000000 1000000", " ".join(["1"] * 20000),
    ),
    "HeaderSize": NUMBERS,
    "CompressedDataSize": NUMBERS,
    "CompressedData": ("True", "False", "1", "0", "yes", "", "2"),
    "BinaryData": ("False", "0", "maybe"),
    "ElementNumberOfChannels": NUMBERS,
    "ElementType": ("MET_NONE", "MET_STRING", "MET_UCHAR", "MET_DOUBLE", "MET_SHORT_ARRAY", ""),
    "ElementSpacing": (*NUMBERS, "0 1 1", "nan 1 1", "1 1 inf", "1e400 1 1"),
    "Offset": ("1e400 0 0", "nan 0 0", "0", "", "0 0 0 0"),
    "TransformMatrix": ("0 0 0 0 0 0 0 0 0", "1 0 0", "nan 0 0 0 1 0 0 0 1", "1e200 " * 9),
    "ElementByteOrderMSB": ("True", "maybe"),
    "ElementDataFile": ("LIST", "/etc/passwd", "a.raw", "", "LOCAL\nElementDataFile = a.raw"),
}  # fmt: skip


def metaimage_of(changes: dict[str, str | None], *, compress: bool) -> bytes:
    """Return a MetaImage of ``VOXELS``, some lines of whose header say something else."""
    content = VOXELS.tobytes(order="F")
    packed = zlib.compress(content) if compress else content
    lines = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": str(compress),
        **({"CompressedDataSize": str(len(packed))} if compress else {}),
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "0 0 0",
        "ElementSpacing": "1 1 1",
        "DimSize": "5 6 7",
        "ElementType": "MET_SHORT",
        **changes,
    }
    lines["ElementDataFile"] = changes.get("ElementDataFile", "LOCAL")
    header = "".join(f"{name} = {value}\n" for name, value in lines.items() if value is not None)
    return header.encode("latin-1") + packed


def nifti_of(kind: type[nib.Nifti1Image], edit: Callable[[nib.Nifti1Header], None]) -> bytes:
    image = kind(VOXELS, np.eye(4))
    image.set_sform(np.eye(4), code=1)
    plain = image.to_bytes()
    size = kind.header_class.template_dtype.itemsize
    header = kind.header_class(plain[:size], check=False)
    edit(header)
    return bytes(header.binaryblock) + plain[size:]


def sets(name: str, value: object) -> Callable[[nib.Nifti1Header], None]:
    def edit(header: nib.Nifti1Header) -> None:
        header[name] = value

    return edit


def bomb(start: bytes, mebibytes: int) -> bytes:
    return gzip.compress(start) + gzip.compress(bytes(1 << 20)) * mebibytes


def outcome(path: Path) -> str:
    """Return how reading ``path`` ends: ``right``, ``refused``, or what it did instead."""
    case = Case("C", "C", None, {MODALITIES[0]: path}, None)
    carried_checksum(path)
    geometry_warnings(case)
    problems = check_headers(case)
    try:
        voxels, affine = read_image(path)
    except ImageError as error:
        with pytest.raises(CaseError) as caught:
            read_volume(case, CODE_UNTIL_2015)
        named = all(str(path) in text for text in (str(caught.value), *problems))
        short = len(str(error)) < 500 and "\n" not in str(error)
        return "refused" if named and short else f"badly said: {error}"
    if problems:
        return f"refused by its header alone: {problems}"
    assert np.isfinite(affine).all()
    return "right" if np.array_equal(voxels, VOXELS) else "wrong voxels"


def metaimages() -> Iterator[tuple[str, bytes]]:
    for compress in (True, False):
        for name, values in FIELDS.items():
            for value in (None, *values):
                shown = f"{name} = {value and value[:30]!r}, compress={compress}"
                yield shown, metaimage_of({name: value}, compress=compress)


def niftis() -> Iterator[tuple[str, bytes]]:
    numbers = (np.inf, -np.inf, np.nan, 1e30, -1, 3e9, 2.0**31, 353)
    dims: tuple[int, ...] = (-1, 0, 9, 32767, -32768)
    for kind, most in ((nib.Nifti1Image, 2**15), (nib.Nifti2Image, 2**63)):
        changes: list[tuple[str, object]] = [("vox_offset", number) for number in numbers]
        if kind is nib.Nifti2Image:
            changes = [("vox_offset", number) for number in (-1, 2**62, 2**63 - 1, 2**32 + 544)]
            dims = (*dims, 2**32, 2**62, 2**63 - 1, -(2**63), 2**31 + 210)
        changes += [("dim", [size, 5, 6, 7, 1, 1, 1, 1]) for size in dims if size < most]
        changes += [
            (
                "dim",
                [3, *(size if axis in axes else (5, 6, 7)[axis] for axis in range(3)), 1, 1, 1, 1],
            )
            for size in dims
            for axes in ((0,), (0, 1), (0, 1, 2))
        ]
        changes += [("datatype", code) for code in (0, 1, 64, 128, 1536, 1792, 2304, -1)]
        changes += [("scl_slope", number) for number in (np.inf, np.nan, 0)]
        changes += [("pixdim", [number] * 8) for number in (np.inf, np.nan, 0, 1e30)]
        for name, value in changes:
            content = nifti_of(kind, sets(name, value))
            for pack in (bytes, gzip.compress):
                yield f"{kind.__name__} {name} = {value}, {pack.__name__}", pack(content)
    promises: dict[str, tuple[str, object]] = {
        "offset": ("vox_offset", 3e8),
        "grid": ("dim", [3, 800, 800, 800, 1, 1, 1, 1]),
    }
    for name, (field, value) in promises.items():
        start = nifti_of(nib.Nifti1Image, sets(field, value))
        yield f"bomb by its {name}", bomb(start, 1000)


@pytest.mark.parametrize(
    ("files", "ending", "tried"), [(metaimages, ".mha", 420), (niftis, ".nii.gz", 150)]
)
def test_every_malformed_header_reads_right_or_is_refused_by_name(
    tmp_path: Path, files: Callable[[], Iterator[tuple[str, bytes]]], ending: str, tried: int
) -> None:
    path = tmp_path / f"scan{ending}"
    counts: Counter[str] = Counter()
    wrong = []
    for name, content in files():
        path.write_bytes(content)
        del content
        tracemalloc.start()
        try:
            actual = outcome(path)
        except Exception as error:
            actual = f"{type(error).__name__}: {error}"
        if (peak := tracemalloc.get_traced_memory()[1]) > MOST_BYTES:
            actual = f"took {peak:,} bytes"
        tracemalloc.stop()
        counts[actual] += 1
        if actual not in {"right", "refused"}:
            wrong.append(f"{name}: {actual}")
    assert not wrong, "\n".join(wrong)
    assert counts["right"] > 5
    assert counts.total() >= tried


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), kind=st.sampled_from(["mha", "packed mha", "nii", "nii.gz"]))
def test_bytes_changed_anywhere_in_a_header(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    """The header may then be wrong but possible; no error but ``ImageError`` is raised."""
    packed = kind == "nii.gz"
    if kind.endswith("mha"):
        content = bytearray(metaimage_of({}, compress=kind == "packed mha"))
    else:
        content = bytearray(nifti_of(nib.Nifti1Image, lambda header: None))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 340))] = data.draw(st.integers(0, 255))
    path = tmp_path / ("a.mha" if kind.endswith("mha") else "a.nii")
    path.write_bytes(gzip.compress(bytes(content)) if packed else content)
    for read in (read_geometry, read_header, read_image):
        with suppress(ImageError):
            read(path)


@pytest.mark.parametrize("error", [MemoryError, OverflowError, RecursionError])
@pytest.mark.parametrize("ending", [".mha", ".nii"])
def test_a_file_too_large_or_too_deep_to_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, error: type[Exception]
) -> None:
    path = tmp_path / f"scan{ending}"
    plain = nifti_of(nib.Nifti1Image, lambda header: None)
    path.write_bytes(metaimage_of({}, compress=False) if ending == ".mha" else plain)

    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr(np, "frombuffer", full)
    case = Case("C", "C", None, {MODALITIES[0]: path}, None)
    with pytest.raises(CaseError, match=f"{path}: cannot be read .{error.__name__}"):
        read_volume(case, CODE_UNTIL_2015)
