"""Cases and the layouts they come in: which files of a BRATS folder belong together.

``discover`` turns a folder into ``Case`` objects; it opens no image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from segan_ray.brats import (
    CODE_2017_TO_2021,
    CODE_2023,
    CODE_2024,
    MODALITIES,
    LabelCode,
    Modality,
)
from segan_ray.errors import DataError, NoCasesError, nearest

Grade = Literal["HGG", "LGG"]


@dataclass(frozen=True)
class Layout:
    """How one year names its folders and files.

    ``case`` matches the name of a case folder; its optional group ``patient`` holds what the
    time points of one patient share. ``suffixes`` follow the case name in file names.
    """

    name: str
    case: re.Pattern[str]
    separator: str
    suffixes: Mapping[Modality, str]
    label_suffix: str
    code: LabelCode

    def patient(self, case: str) -> str:
        """Return the patient of ``case``: the time points of one patient share it."""
        match = self.case.fullmatch(case)
        groups = match.groupdict() if match else {}
        return groups.get("patient") or case


_CLASSIC: Final[dict[Modality, str]] = {"t1": "t1", "t1ce": "t1ce", "t2": "t2", "flair": "flair"}
_SINCE_2023: Final[dict[Modality, str]] = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"}
_GLI: Final = re.compile(r"(?P<patient>BraTS-GLI-\d{5})-\d{3}")


def _classic(name: str, case: str) -> Layout:
    return Layout(name, re.compile(case), "_", _CLASSIC, "seg", CODE_2017_TO_2021)


LAYOUTS: Final[tuple[Layout, ...]] = (
    _classic("brats2017", r"Brats17_\w+"),
    _classic("brats2018", r"Brats18_\w+"),
    _classic("brats2019", r"BraTS19_\w+"),
    _classic("brats2020", r"BraTS20_\w+"),
    _classic("brats2021", r"BraTS2021_\d{5}"),
    Layout("brats2023", _GLI, "-", _SINCE_2023, "seg", CODE_2023),
    # Named like 2023, so only ``--layout`` tells it apart: label 4 changed its meaning.
    Layout("brats2024", _GLI, "-", _SINCE_2023, "seg", CODE_2024),
)


def layout_named(name: str) -> Layout:
    """Return the layout called ``name``.

    Raises:
        DataError: naming the closest layout there is.
    """
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    valid = [layout.name for layout in LAYOUTS]
    raise DataError(f"Unknown layout '{name}'.{nearest(name, valid)} Known: {', '.join(valid)}.")


@dataclass(frozen=True)
class Case:
    """One scan session of one patient: ids and paths, no voxels.

    ``problems`` holds what file names alone show to be wrong; a case with problems may lack
    entries in ``images``.
    """

    case: str
    patient: str
    grade: Grade | None
    images: Mapping[Modality, Path]
    label: Path | None
    problems: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Discovery:
    """What a folder holds: one layout and its cases, sorted by name."""

    folder: Path
    layout: Layout
    cases: tuple[Case, ...]


def discover(folder: Path, layout: str | None = None) -> Discovery:
    """Find every case under ``folder``, telling the layout by names unless it is given.

    Raises:
        NoCasesError: if the folder is missing or holds no case.
        DataError: for an unknown layout name, or cases of two layouts in one folder.
    """
    candidates = [layout_named(layout)] if layout else [x for x in LAYOUTS if x.name != "brats2024"]
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise NoCasesError(f"{folder}: expected a folder of BRATS cases, found {found}.")
    found_by_layout = {
        candidate.name: tuple(_read_case(path, candidate) for path in paths)
        for candidate in candidates
        if (paths := sorted(_case_folders(folder, candidate), key=lambda path: path.name))
    }
    if not found_by_layout:
        names = ", ".join(candidate.name for candidate in candidates)
        raise NoCasesError(
            f"{folder}: no BRATS case found (looked for case folders of {names}).\n"
            "Point at the folder that holds the case folders, e.g. the one with BraTS2021_00000."
        )
    if len(found_by_layout) > 1:
        raise DataError(
            f"{folder}: holds cases of several layouts ({', '.join(found_by_layout)}). "
            "Point at one of them, or choose with --layout."
        )
    ((name, cases),) = found_by_layout.items()
    _refuse_doubles(folder, cases)
    return Discovery(folder, layout_named(name), cases)


def _case_folders(folder: Path, layout: Layout, depth: int = 3) -> Iterator[Path]:
    if layout.case.fullmatch(folder.name) and depth == 3:
        yield folder
        return
    # A store beside its data, finished or not, holds folders named after cases too.
    if folder.name.endswith(".preparing") or (folder / "manifest.json").exists():
        return
    with os.scandir(folder) as entries:
        folders = sorted(entry.path for entry in entries if entry.is_dir())
    for path in map(Path, folders):
        if layout.case.fullmatch(path.name):
            yield path
        elif depth > 1 and not path.name.startswith("."):
            yield from _case_folders(path, layout, depth - 1)


def _read_case(folder: Path, layout: Layout) -> Case:
    problems: list[str] = []
    images: dict[Modality, Path] = {}
    for modality in MODALITIES:
        suffix = layout.suffixes[modality]
        path = _find_image(folder, layout, suffix, problems)
        if path is None:
            expected = f"{folder.name}{layout.separator}{suffix}.nii.gz"
            problems.append(f"the {modality} volume is missing: expected {expected} in {folder}.")
        else:
            images[modality] = path
    label = _find_image(folder, layout, layout.label_suffix, problems)
    if label is None:
        # BraTS20_Training_355 ships its mask as W39_1998.09.19_Segm.nii.
        misnamed = sorted(folder.glob("*_Segm.nii*"))
        label = misnamed[0] if len(misnamed) == 1 else None
    return Case(
        case=folder.name,
        patient=layout.patient(folder.name),
        grade=_grade(folder),
        images=images,
        label=label,
        problems=tuple(problems),
    )


def _find_image(folder: Path, layout: Layout, suffix: str, problems: list[str]) -> Path | None:
    stem = f"{folder.name}{layout.separator}{suffix}"
    found = [
        path for ending in (".nii.gz", ".nii") if (path := folder / f"{stem}{ending}").exists()
    ]
    if len(found) > 1:
        problems.append(f"{found[0].name} and {found[1].name} both exist; keep one of them.")
    return found[0] if found else None


def _grade(folder: Path) -> Grade | None:
    parent = folder.parent.name
    return parent if parent in ("HGG", "LGG") else None  # type: ignore[return-value]


def _refuse_doubles(folder: Path, cases: tuple[Case, ...]) -> None:
    names = [case.case for case in cases]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise DataError(f"{folder}: two folders are called {doubled[0]}. Keep one of them.")
