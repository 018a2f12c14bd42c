"""Cases and the layouts they come in: which files of a BRATS folder belong together.

``discover`` turns a folder into ``Case`` objects; it opens no image.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segan_ray.data.layouts import Case, Grade, Layout
from segan_ray.data.msd_layout import MSD_LAYOUT
from segan_ray.data.nifti_layout import NIFTI_LAYOUTS
from segan_ray.data.vsd_layout import VSD_LAYOUTS
from segan_ray.errors import DataError, NoCasesError, nearest

__all__ = [
    "LAYOUTS",
    "Case",
    "Discovery",
    "Grade",
    "Layout",
    "discover",
    "discover_input",
    "layout_named",
]

LAYOUTS: Final[tuple[Layout, ...]] = (*VSD_LAYOUTS, *NIFTI_LAYOUTS, MSD_LAYOUT)

_DEEPEST: Final = 4  # BRATS-2/Image_Data/HG/0001


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
    found_by_layout: dict[str, list[tuple[Case, Path]]] = {}
    named = folder.resolve() if folder.name in {"", ".."} else folder
    for candidate, place in _places(named, candidates):
        for case in candidate.read(place):
            found_by_layout.setdefault(candidate.name, []).append((case, place))
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
    cases.sort(key=lambda found: found[0].case)
    _refuse_doubles(folder, cases)
    return Discovery(folder, layout_named(name), tuple(case for case, _ in cases))


def discover_input(path: Path, layout: str | None = None) -> Discovery:
    """Find the cases of a folder, as ``discover`` does, or the one that a file is part of.

    Raises:
        NoCasesError: if there is no such file, or it is part of no case.
        DataError: as ``discover``.
    """
    if not path.is_file():
        return discover(path, layout)
    around = discover(path.absolute().parent, layout)
    asked = path.resolve()
    cases = tuple(
        case
        for case in around.cases
        if asked in {image.resolve() for image in case.images.values()}
    )
    if not cases:
        raise NoCasesError(f"{path}: is no scan of a BRATS case. Give the case's folder.")
    return Discovery(path, around.layout, cases)


def _places(
    folder: Path, candidates: Sequence[Layout], depth: int = _DEEPEST
) -> Iterator[tuple[Layout, Path]]:
    """Yield each folder that holds cases, with the layout whose names it follows."""
    holding = [layout for layout in candidates if layout.holds(folder)]
    if holding:
        yield from ((layout, folder) for layout in holding)
        return
    # A store beside its data, finished or not, holds folders named after cases too.
    if not depth or folder.name.endswith(".preparing") or (folder / "manifest.json").exists():
        return
    with os.scandir(folder) as entries:
        folders = sorted(
            entry.path for entry in entries if entry.is_dir() and not entry.name.startswith(".")
        )
    for path in map(Path, folders):
        yield from _places(path, candidates, depth - 1)


def _refuse_doubles(folder: Path, cases: Sequence[tuple[Case, Path]]) -> None:
    places: dict[str, Path] = {}
    for case, place in cases:
        if case.case in places:
            what = "folders" if case.case == place.name else "cases"
            raise DataError(
                f"{folder}: two {what} are called {case.case}: {places[case.case]} and "
                f"{place}. Keep one of them."
            )
        places[case.case] = place
