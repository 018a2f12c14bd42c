"""The real type of a file, by its first bytes and not by its name.

If a file with an image's name was never downloaded, is a DICOM slice or is an archive, the error
says so and what to do. No content of a file enters a message.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import BinaryIO, Final

from segan_ray.data.io.headers import ImageError

GZIP: Final = b"\x1f\x8b"

_COPY: Final = "Copy it again from the source."
_CONVERT: Final = "Convert it to NIfTI."
_UNPACK: Final = "Unpack it and name what is in it here."
_GET: Final = "Fetch the volume with git annex get (or datalad get)."
# A git-annex pointer is one line. A git-annex link checked out as text is a similar path.
_ANNEX: Final = rb"[-./\\\w]*annex[/\\]objects[/\\]"
_KINDS: Final[tuple[tuple[bytes, str, str], ...]] = tuple(
    (rb"\A" + pattern, what, advice)
    for pattern, what, advice in (
        (
            rb"version https?://(git-lfs|hawser|git-media)\.",
            "a Git LFS pointer; the volume itself is not here",
            "Fetch it with git lfs pull.",
        ),
        (_ANNEX, "a git-annex pointer; the volume itself is not here", _GET),
        (rb".{128}DICM", "a DICOM file", "Convert the series to NIfTI, e.g. with dcm2niix."),
        (
            rb"\x02\x00\x00\x00UL|\x08\x00[\x00\x05\x08]\x00",
            "a DICOM file without preamble",
            "Convert the series to NIfTI, e.g. with dcm2niix.",
        ),
        (rb"NRRD000\d", "an NRRD volume", _CONVERT),
        (rb"\s*(Comment|ObjectType|NDims)[ \t]*[=:]", "a MetaImage (.mha)", _CONVERT),
        (rb"\x5c\x01\x00\x00|\x00\x00\x01\x5c", "Analyze 7.5 or a broken NIfTI header", _CONVERT),
        (rb"\x89HDF\r\n\x1a\n", "an HDF5 file (MINC 2 is one)", _CONVERT),
        (rb"CDF[\x01\x02\x05]", "a NetCDF file (MINC 1 is one)", _CONVERT),
        (rb"\x00\x00\x00\x01\x00\x00.{22}", "a FreeSurfer volume (.mgh, .mgz)", _CONVERT),
        (rb"\x93NUMPY", "a NumPy array", _CONVERT),
        (rb"MATLAB ", "a MATLAB file", _CONVERT),
        (rb"PK[\x03\x05\x07]", "a zip archive", _UNPACK),
        (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
        (rb"Rar!\x1a\x07", "a RAR archive", _UNPACK),
        (rb".{257}ustar", "a tar archive", _UNPACK),
        (rb"BZh[1-9]1AY&SY", "packed with bzip2", _UNPACK),
        (rb"\xfd7zXZ\x00", "packed with xz", _UNPACK),
        (rb"\x28\xb5\x2f\xfd", "packed with zstd", _UNPACK),
        (rb"\x04\x22\x4d\x18", "packed with lz4", _UNPACK),
        (rb"\x1f\x9d", "packed with compress (.Z)", _UNPACK),
        (GZIP, "packed with gzip", "Unpack it once."),
        (rb"\x89PNG|\xff\xd8\xff|GIF8|BM.{8}\x36|II\*\x00|MM\x00\*", "a picture", _CONVERT),
        (rb"%PDF", "a PDF document", _COPY),
        (rb"\x00\x05\x16\x07", "what macOS keeps beside a file, not the file", _COPY),
        (
            rb"(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)",
            "a web page, as a failed download leaves",
            "Download the volume again.",
        ),
        (
            rb"(\xef\xbb\xbf)?\s*<\?xml|\s*<Error>",
            "an XML document, as a failed download leaves",
            "Download the volume again.",
        ),
        (rb"\x00+\Z", "nothing but zeros", _COPY),
        (rb"[\t\n\r\x20-\x7e]+\Z", "text", _COPY),
    )
)
_NIFTI: Final = re.compile(
    rb"\A(.{344}(n\+1|ni1)\x00|(\x1c\x02\x00\x00|\x00\x00\x02\x1c)n[+i]2\x00)", re.DOTALL
)


def open_file(path: Path) -> BinaryIO:
    """Open ``path`` for reading.

    Raises:
        ImageError: if it is missing, empty, no plain file (a pipe would hang) or not permitted.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device"
            raise ImageError(f"is {what}; expected a file.")
        if status.st_size == 0:
            raise ImageError(f"the file is empty. {_COPY}")
        return path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> ImageError:
    """Return the error of a file that the system does not open; for a link, with its target."""
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        target = path.readlink()
        advice = _GET if re.match(_ANNEX, os.fsencode(target)) else _COPY
        return ImageError(f"is a link to {target}, which is not here. {advice}")
    advice = "Give yourself the right to read it." if isinstance(error, PermissionError) else _COPY
    return ImageError(f"cannot be read ({error.strerror or error}). {advice}")


def is_nifti(start: bytes) -> bool:
    """Tell whether ``start`` begins a NIfTI-1 or NIfTI-2 header, of a single file or a pair."""
    return _NIFTI.match(start) is not None


def not_expected(start: bytes, expected: str) -> ImageError:
    """Return the error of a file that is not ``expected``, with the type its ``start`` shows."""
    if is_nifti(start):
        return ImageError(f"is not {expected} but NIfTI. Name it .nii or convert it.")
    for pattern, what, advice in _KINDS:
        if re.match(pattern, start, re.DOTALL | re.IGNORECASE):
            if what == expected:  # it begins like one
                break
            return ImageError(f"is not {expected} but {what}. {advice}")
    return ImageError(f"is not {expected}. {_COPY}")
