"""The entries of a folder: images, folders around images, broken links.

Some downloads wrap each image in a folder of its name (``X_flair.nii/00000057_brain_flair.nii``),
and git-annex leaves a link where a file has not been fetched. No image is opened here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NIFTI_ENDINGS: Final = (".nii.gz", ".nii")
ENDINGS: Final = (*NIFTI_ENDINGS, ".mha")
ARCHIVES: Final = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")
NO_IMAGE: Final = "is a folder without an image; expected a file. Copy it again from the source."
NOT_HERE: Final = (
    "is a link to a file that is not here. Fetch it (datalad get, git annex get) or copy it."
)

_DEEPEST_WRAP: Final = 1
_DICOM_ENDINGS: Final = (".dcm", ".ima")
_DICOM_TRIES: Final = 3


@dataclass(frozen=True)
class Entry:
    """An entry with an image's name: a file, or a folder around a single image.

    ``name`` is its name in the folder, ``path`` the file to read. Without a file to read,
    ``path`` is the entry itself, and ``problem`` says what is wrong with it.
    """

    name: str
    path: Path
    problem: str = ""

    @property
    def wrapped(self) -> bool:
        """Tell whether the entry is a folder around the image."""
        return self.path.name != self.name or is_folder(self.path)


def plain(name: str) -> str:
    """Return ``name`` without an image's ending, in lower case and with all separators alike."""
    text = name.casefold().strip()
    for ending in ENDINGS:
        if text.endswith(ending):
            text = text.removesuffix(ending)
            break
    return re.sub(r"[\s_-]+", "-", text).strip("-")


def is_image_name(name: str, endings: Sequence[str] = ENDINGS) -> bool:
    """Tell by its ending, in any capitals, whether ``name`` is the name of an image."""
    return name.casefold().strip().endswith(tuple(endings))


# Where permission is denied, these return False; the methods of Path raise.
def is_folder(path: Path) -> bool:
    """Tell whether ``path`` is a folder, or a link to one."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: Path) -> bool:
    """Tell whether ``path`` is a regular file, or a link to one."""
    return os.path.isfile(path)  # noqa: PTH113


def is_there(path: Path) -> bool:
    """Tell whether ``path`` exists; a broken link does not."""
    return os.path.exists(path)  # noqa: PTH110


def is_link(path: Path) -> bool:
    """Tell whether ``path`` is a link, broken or not."""
    return os.path.islink(path)  # noqa: PTH114


def visible(folder: Path) -> list[Path]:
    """Return the entries of ``folder`` by name, without hidden ones (macOS adds ``._`` twins).

    Raises:
        OSError: if the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted(Path(entry.path) for entry in entries if not entry.name.startswith("."))


def images_in(folder: Path, endings: Sequence[str] = NIFTI_ENDINGS) -> list[Entry]:
    """Return the images of ``folder``, and other entries with an image's name, by name.

    Raises:
        OSError: if the folder cannot be read.
    """
    return _images(folder, endings, _DEEPEST_WRAP)


def image_at(path: Path, endings: Sequence[str] = NIFTI_ENDINGS) -> Entry:
    """Return the image that ``path`` is, wraps, or should be by its name."""
    return _image(path, endings, _DEEPEST_WRAP) or Entry(path.name, path, NO_IMAGE)


def called(name: str, entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries called ``name``, with any capitals, separators and endings.

    Without such an entry, return the entries that wrap an image of that name.
    """
    wanted, entries = plain(name), list(entries)
    by_name = [entry for entry in entries if plain(entry.name) == wanted]
    return by_name or [entry for entry in entries if plain(entry.path.name) == wanted]


def only_one(entries: Sequence[Entry], problems: list[str], *, below: Path) -> Path | None:
    """Return the file of the first sound entry; two sound entries, or only bad ones, are a problem.

    Problems are added to ``problems``, with paths relative to ``below``.
    """
    sound = [entry.path for entry in entries if not entry.problem]
    if len(sound) > 1:
        first, second = (path.relative_to(below) for path in sound[:2])
        problems.append(f"{first} and {second} both exist; keep one of them.")
    if not sound and entries:
        problems.append(f"{entries[0].path}: {entries[0].problem}")
    return sound[0] if sound else None


def count_dicom(paths: Iterable[Path]) -> int:
    """Return how many of ``paths`` are DICOM files, by their ending or their first bytes.

    DICOM files often have no ending. If one of the first few has DICM in its bytes 128 to 132,
    all files without an ending count.
    """
    files = [path for path in paths if is_file(path)]
    named = [path for path in files if path.name.casefold().endswith(_DICOM_ENDINGS)]
    bare = [path for path in files if not path.suffix or path.suffix[1:].isdigit()]
    if any(_is_dicom(path) for path in bare[:_DICOM_TRIES]):
        named += bare
    return len(named)


def reason(error: OSError) -> str:
    """Return why a read failed, in the system's words."""
    return error.strerror or type(error).__name__


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _images(folder: Path, endings: Sequence[str], depth: int) -> list[Entry]:
    images = (_image(path, endings, depth) for path in visible(folder))
    return [entry for entry in images if entry is not None]


def _image(path: Path, endings: Sequence[str], depth: int) -> Entry | None:
    named = is_image_name(path.name, endings)
    if is_folder(path):
        return _wrapped(path, endings, depth, named=named)
    if not named:
        return None
    if is_file(path):
        return Entry(path.name, path)
    if is_link(path):
        return Entry(path.name, path, NOT_HERE)
    return Entry(path.name, path, "is no regular file, or may not be looked at.")


def _wrapped(path: Path, endings: Sequence[str], depth: int, *, named: bool) -> Entry | None:
    try:
        inside = _images(path, endings, depth - 1) if depth else []
    except OSError as error:
        return Entry(path.name, path, f"cannot be read ({reason(error)}).")
    same = [entry for entry in inside if plain(entry.name) == plain(path.name)]
    if len(inside) == 1 or len(same) == 1:
        only = (same or inside)[0]
        return Entry(path.name, only.path, only.problem)
    if inside:
        return Entry(path.name, path, f"is a folder of {len(inside)} images; expected one.")
    return Entry(path.name, path, NO_IMAGE) if named else None
