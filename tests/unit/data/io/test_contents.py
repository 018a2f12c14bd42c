"""The real types of files with an image's name, and the errors that name them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segan_ray.data.io.contents import open_file
from segan_ray.data.io.headers import ImageError
from segan_ray.data.io.images import read_header, read_image


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.nii", b"voxels")
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.nii"))
    return stream.getvalue()


def pair_header() -> bytes:
    image = nib.Nifti1Pair(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    return image.header.binaryblock + bytes(4)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 2345678\n"
FOREIGN = {
    "lfs": (LFS, "a Git LFS pointer; the volume itself is not here. Fetch it with git lfs pull."),
    "annex": (b"/annex/objects/SHA256E-s12--ab.nii.gz\n", "a git-annex pointer;"),
    "annex link": (b"../../.git/annex/objects/Qz/81/MD5E-s1--a.nii.gz/MD5E-s1--a", "git annex get"),
    "annex on windows": (b"..\\..\\.git\\annex\\objects\\aa\\b", "git annex get"),
    "dicom": (bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00" + bytes(900), "a DICOM file. Convert"),
    "dicom without preamble": (b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100", "a DICOM file"),
    "nrrd": (b"NRRD0005\ntype: short\n", "an NRRD volume. Convert it to NIfTI."),
    "metaimage": (b"ObjectType = Image\nNDims = 3\n", "a MetaImage (.mha). Convert"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(900), "an HDF5 file (MINC 2 is one)"),
    "netcdf": (b"CDF\x01" + bytes(900), "a NetCDF file (MINC 1 is one)"),
    "mgh": (b"\0\0\0\x01\0\0\x01\0\0\0\x01\0\0\0\x01\0" + bytes(900), "a FreeSurfer volume"),
    "pair": (pair_header(), "is the header of a NIfTI pair (.hdr)"),
    "analyze": (b"\x5c\x01\x00\x00" + bytes(344), "Analyze 7.5"),
    "zip": (zipped(), "a zip archive. Unpack it"),
    "tar": (tarred(), "a tar archive. Unpack it"),
    "bzip2": (bz2.compress(bytes(999)), "packed with bzip2"),
    "xz": (lzma.compress(bytes(999)), "packed with xz"),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(99), "packed with zstd"),
    "gzip twice": (gzip.compress(bytes(999)), "packed with gzip. Unpack it once."),
    "page": (b"\n<!DOCTYPE html>\n<html><head>", "a web page, as a failed download leaves."),
    "page in capitals": (b"\xef\xbb\xbf<HTML><BODY>", "a web page"),
    "error": (b'<?xml version="1.0"?><Error><Code>AccessDenied', "an XML document, as a failed"),
    "json": (b'{"error": "not found"}', "text. Copy it again"),
    "zeros": (bytes(4000), "nothing but zeros. Copy it again"),
    "macos": (b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X", "what macOS keeps beside a file"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(99), "a picture"),
    "noise": (np.random.default_rng(1).bytes(3000), "is not a NIfTI image. Copy it again"),
}  # fmt: skip


def message_of(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        read_header(path)
    with pytest.raises(ImageError) as again:
        read_image(path)
    assert str(caught.value) == str(again.value)
    text = str(caught.value)
    assert text.isprintable()
    return text


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_an_error_names_the_real_type_of_a_file(tmp_path: Path, kind: str, packed: bool) -> None:
    content, words = FOREIGN[kind]
    path = tmp_path / "a_flair.nii.gz"
    path.write_bytes(gzip.compress(content) if packed else content)
    if kind == "gzip twice" and not packed:
        words = "nothing but zeros"
    assert words in message_of(path)


@pytest.mark.parametrize("kind", ["lfs", "annex", "dicom", "nrrd", "zip", "page", "noise"])
def test_an_error_names_the_real_type_of_a_metaimage(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "VSD.Brain.XX.O.MR_T1.1.mha"
    content, words = FOREIGN[kind]
    path.write_bytes(content)
    assert words.replace("a NIfTI image", "a MetaImage (.mha)") in message_of(path)


def test_nifti_called_mha(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)), tmp_path / "a.nii")
    path = (tmp_path / "a.nii").rename(tmp_path / "a.mha")
    assert message_of(path) == "is not a MetaImage (.mha) but NIfTI. Name it .nii or convert it."
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert message_of(path) == "is not a MetaImage (.mha) but packed with gzip. Unpack it once."


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha"])
def test_a_path_that_is_no_file_is_not_opened(tmp_path: Path, ending: str) -> None:
    folder, pipe, gone = (tmp_path / f"{name}{ending}" for name in ("folder", "pipe", "gone"))
    folder.mkdir()
    os.mkfifo(pipe)
    assert message_of(folder) == "is a folder; expected a file."
    assert message_of(pipe) == "is a pipe, socket or device; expected a file."
    assert "cannot be read (No such file or directory)" in message_of(gone)
    gone.write_bytes(b"")
    assert message_of(gone) == "the file is empty. Copy it again from the source."


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_the_error_of_a_broken_link_names_its_target(tmp_path: Path, ending: str) -> None:
    link = tmp_path / f"a{ending}"
    link.symlink_to("../.git/annex/objects/Q/8/MD5E-s1--a")
    assert "is a link to ../.git/annex/objects/Q/8/MD5E-s1--a, which is not here" in message_of(
        link
    )
    assert "git annex get" in message_of(link)
    link.unlink()
    link.symlink_to("elsewhere.nii.gz")
    assert message_of(link).endswith("which is not here. Copy it again from the source.")
    link.unlink()
    link.symlink_to(link.name)
    assert "cannot be read (Too many levels of symbolic links)" in message_of(link)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha"])
def test_a_file_of_another_user(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(b"content")

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    assert (
        message_of(path)
        == "cannot be read (Permission denied). Give yourself the right to read it."
    )


def test_a_disk_that_fails_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"content")

    class Failing(io.BytesIO):
        def read(self, *args: object) -> bytes:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "open", lambda *args, **kwargs: Failing())
    assert "cannot be read (Input/output error)" in message_of(path)


def test_a_good_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    with open_file(tmp_path / "a") as stream:
        assert stream.read() == b"content"
