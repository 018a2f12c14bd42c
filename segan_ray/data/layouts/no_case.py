"""Why a folder with images is no case, as far as its name and the names in it tell."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from segan_ray.data.layouts.entries import ARCHIVES, count_dicom, is_file, is_folder, plain, visible
from segan_ray.data.layouts.layout import Layout
from segan_ray.data.layouts.nifti_layout import NiftiLayout
from segan_ray.errors import many

_READ_TOGETHER: Final = {"GLI", "SSA", "MEN", "MET", "GOAT"}
_REFUSED: Final[Mapping[str, str]] = {
    "PED": "pediatric tumours (BraTS-PED), whose labels changed from 2023 (3 enhancing) to 2024 (1 "
    "enhancing, 2 non-enhancing, 3 cyst, 4 edema) while names did not: not supported",
    "MEN-RT": "meningioma before radiotherapy (BraTS-MEN-RT), which has T1c alone and one label "
    "for the target: not supported",
}
_CHALLENGE: Final = re.compile(r"BraTS-(?P<task>MEN-RT|[a-z]+)-\d.*", re.IGNORECASE)
_OTHER_ENDINGS: Final = (".nrrd", ".mgz", ".mhd", ".hdr", ".npy", ".npz", ".h5")


def why_no_case(
    folder: Path,
    images: Sequence[Path],
    inside: Sequence[Path],
    candidates: Sequence[Layout],
    layouts: Sequence[Layout],
) -> str | None:
    """Return a note on a folder that is no case of any layout in ``candidates``.

    Return None if it has no images. ``images`` are the entries of ``inside`` with an image's
    name; ``layouts`` are all layouts.
    """
    dicom = count_dicom(path for path in inside if path not in images)
    if not images and not dicom:
        return _else_there(folder, inside)
    shown = f"'{folder.name}'" if folder.name != folder.name.strip() else ""
    where = f"{folder.parent}/{shown}" if shown else str(folder)
    if not images:
        return (
            f"{where}: not read: holds {many(dicom, 'DICOM file')}. Convert them to NIfTI first, "
            "e.g. with dcm2niix, in the names of a BraTS year."
        )
    named = _by_name(folder, candidates, layouts)
    around = any(is_folder(path) for path in inside if path not in images)
    why = named or _by_files(images, layouts, around=around)
    return f"{where}: not read: holds {many(len(images), 'image')}, but {why}"


def _by_name(folder: Path, candidates: Sequence[Layout], layouts: Sequence[Layout]) -> str | None:
    name = folder.name
    if challenge := _CHALLENGE.fullmatch(name.strip()):
        task = challenge["task"].upper()
        if task in _REFUSED:
            return f"is of {_REFUSED[task]}."
        if task not in _READ_TOGETHER:
            return f"is of BraTS-{challenge['task']}, whose label code is unknown here."
    for layout in layouts:
        if layout.holds(folder):
            chosen = ", ".join(candidate.name for candidate in candidates)
            return f"is called like a case of {layout.name}, and --layout says {chosen}."
    for layout in layouts:
        if isinstance(layout, NiftiLayout) and (difference := _resembles(name, layout)):
            return difference
    return None


def _resembles(name: str, layout: NiftiLayout) -> str | None:
    """Return how ``name`` differs from the name of a case, if it is like one."""
    pattern, example = layout.case.pattern, f"such as {layout.example}"
    if name != name.strip() and layout.case.fullmatch(name.strip()):
        return f"its name begins or ends with a space. Rename it {name.strip()}."
    if re.fullmatch(pattern, name.strip(), re.IGNORECASE):
        return f"its name is written with other capitals than {layout.name} has, {example}."
    begins = re.match(pattern, name.strip(), re.IGNORECASE)
    if begins and not name.strip()[begins.end() :][:1].isdigit():
        rest = name.strip()[begins.end() :]
        return f"its name goes on after {begins[0]} ('{rest}'): a copy? Rename or delete it."
    head = plain(layout.example).split("-")[0]
    if re.fullmatch(rf"{head}[\W_]*\d+", name.strip(), re.IGNORECASE) or (
        head == "brats" and _CHALLENGE.fullmatch(name.strip())
    ):
        return f"its name has other digits or separators than {layout.name} has, {example}."
    return None


def _by_files(images: Sequence[Path], layouts: Sequence[Layout], *, around: bool) -> str:
    """Say which case ``images`` are of; ``around`` means that other folders lie beside them."""
    names = {case for path in images if (case := _case_of(path.name, layouts))}
    if len(names) == 1:
        mend = "Put them into a folder of that name" if around else "Call the folder so"
        return f"its files are those of case {min(names)}. {mend}."
    if names:
        return (
            f"they are of {len(names)} cases side by side, first {min(names)}. Put the files of "
            "each case into a folder of its name."
        )
    return f"its name is not that of a case of any BraTS year (images: {images[0].name} …)."


def _case_of(name: str, layouts: Sequence[Layout]) -> str | None:
    """Return the case that a file belongs to by its name."""
    for layout in layouts:
        if not isinstance(layout, NiftiLayout):
            continue
        for suffix in (*layout.suffixes.values(), layout.label_suffix):
            end = f"-{suffix}"
            stem = re.sub(r"(?i)\.nii(\.gz)?$", "", name)
            if plain(stem).endswith(end) and layout.case.fullmatch(stem[: -len(end)]):
                return stem[: -len(end)]
    return None


def _else_there(folder: Path, inside: Sequence[Path]) -> str | None:
    """Return a note on images in formats that are not read."""
    others = [path for path in inside if path.name.casefold().endswith(_OTHER_ENDINGS)]
    if not others:
        return None
    what = many(len(others), "file")
    return (
        f"{folder}: not read: holds {what} such as {others[0].name}. Convert them to NIfTI first."
    )


def called_like_cases(
    folder: Path, inside: Sequence[Path], candidates: Sequence[Layout]
) -> str | None:
    """Return a note on files and archives called like cases that no folder here holds."""
    patterns = [layout.case for layout in candidates if isinstance(layout, NiftiLayout)]
    folders = {path.name for path in inside if is_folder(path)}
    names = [
        path.name
        for path in inside
        if is_file(path)
        and (stem := _unpacked(path.name)) not in folders
        and any(pattern.fullmatch(stem) for pattern in patterns)
    ]
    if not names:
        return None
    what = f"{many(len(names), 'file')} called like a case, first {names[0]}"
    return f"{folder}: not read: {what}. Unpack or copy again, a folder for each case."


def _unpacked(name: str) -> str:
    """Return ``name`` without the ending of an archive."""
    ending = next((end for end in ARCHIVES if name.casefold().endswith(end)), "")
    return name[: len(name) - len(ending)]


def archives(folder: Path) -> str | None:
    """Return a note on archives in ``folder`` that are to be unpacked."""
    try:
        packed = [path for path in visible(folder) if path.name.casefold().endswith(ARCHIVES)]
    except OSError:
        return None
    if not packed:
        return None
    what = many(len(packed), "archive")
    return f"{folder}: holds {what}, first {packed[0].name}. Unpack, a folder for each case."
