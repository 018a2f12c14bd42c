"""Cases and the layouts they come in: which files of a BRATS folder belong together.

``discover`` turns a folder into ``Case`` objects; it opens no image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segan_ray.data.layouts.entries import is_file, is_folder, is_link, is_there
from segan_ray.data.layouts.layout import Case, Grade, Layout
from segan_ray.data.layouts.msd_layout import MSD_LAYOUT
from segan_ray.data.layouts.name_mapping import with_grades
from segan_ray.data.layouts.nifti_layout import NIFTI_LAYOUTS
from segan_ray.data.layouts.no_case import archives
from segan_ray.data.layouts.vsd_layout import VSD_LAYOUTS
from segan_ray.data.layouts.walk import Walk
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


def layout_named(name: str) -> Layout:
    """Return the layout called ``name``.

    Raises:
        DataError: naming the closest known layout.
    """
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    valid = [layout.name for layout in LAYOUTS]
    raise DataError(f"Unknown layout '{name}'.{nearest(name, valid)} Known: {', '.join(valid)}.")


@dataclass(frozen=True)
class Discovery:
    """The layout of a folder, and its cases sorted by name.

    ``notes`` name the files that were not read, and the guesses that were made.
    """

    folder: Path
    layout: Layout
    cases: tuple[Case, ...]
    notes: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """The unread files in the folders of cases, each with the name of its case."""
        return tuple(f"{case.case}: {text}" for case in self.cases for text in case.warnings)

    @property
    def untold(self) -> tuple[str, ...]:
        """A note on how many cases have no segmentation, or no note if all have one.

        Unusable segmentations and unreadable folders have problems of their own.
        """
        lacking = sum(
            case.label is None and not case.label_problems and bool(case.images)
            for case in self.cases
        )
        return (f"{lacking} of {len(self.cases)} cases have no segmentation.",) if lacking else ()


def discover(folder: Path, layout: str | None = None) -> Discovery:
    """Find every case under ``folder``; names tell the layout unless ``layout`` is given.

    Raises:
        NoCasesError: if the folder is missing or holds no case.
        DataError: for an unknown layout name, or cases of two layouts in one folder.
    """
    candidates = [layout_named(layout)] if layout else [x for x in LAYOUTS if x.name != "brats2024"]
    if not is_folder(folder):
        raise NoCasesError(f"{folder}: expected a folder of BRATS cases, found {_found(folder)}.")
    named = folder.resolve() if folder.name in {"", ".."} else folder
    walk = Walk(candidates, LAYOUTS).through(named)
    cases_by_layout: dict[str, list[tuple[Case, Path]]] = {}
    notes = list(walk.notes)
    for candidate, case_folder in walk.case_folders:
        for case in candidate.read(case_folder):
            cases_by_layout.setdefault(candidate.name, []).append((case, case_folder))
        notes += candidate.notes(case_folder)
    if not cases_by_layout:
        raise NoCasesError(_no_cases(folder, candidates, notes))
    if len(cases_by_layout) > 1:
        raise DataError(
            f"{folder}: holds cases of several layouts ({', '.join(cases_by_layout)}). "
            "Point at one of them, or choose with --layout."
        )
    ((name, cases),) = cases_by_layout.items()
    cases.sort(key=lambda pair: pair[0].case)
    _refuse_doubles(folder, cases)
    graded, unread = with_grades((case for case, _ in cases), walk.tables)
    notes += [*unread, *_mixed(graded)]
    return Discovery(folder, layout_named(name), graded, tuple(dict.fromkeys(notes)))


def discover_input(path: Path, layout: str | None = None) -> Discovery:
    """Find the cases of a folder, as ``discover`` does, or the case that a file is part of.

    Raises:
        NoCasesError: if there is no such file, or it is part of no case.
        DataError: as ``discover``.
    """
    if not is_file(path):
        return discover(path, layout)
    above = path.absolute().parents
    # A scan may have a folder of its own within that of its case.
    case_folder = next((up for up in above[:3] if any(x.holds(up) for x in LAYOUTS)), above[0])
    around = discover(case_folder, layout)
    requested = path.resolve()
    cases = tuple(
        case
        for case in around.cases
        if requested in {image.resolve() for image in case.images.values()}
    )
    if not cases:
        raise NoCasesError(f"{path}: is no scan of a BRATS case. Give the case's folder.")
    return Discovery(path, around.layout, cases)


def _found(path: Path) -> str:
    if is_there(path):
        return "a file"
    if is_link(path):
        return "a link to what is not here"
    return "nothing"


def _no_cases(folder: Path, candidates: Sequence[Layout], notes: Sequence[str]) -> str:
    """Return the two lines of an error that says what lies in ``folder`` instead of cases."""
    names = ", ".join(candidate.name for candidate in candidates)
    packed = archives(folder)
    hints = list(notes) or ([packed] if packed else [])
    if not hints:
        hints = ["Point at the folder that holds the case folders, e.g. that of BraTS2021_00000."]
    more = f" (and {len(hints) - 1} more such)" if len(hints) > 1 else ""
    head = f"{folder}: no BRATS case found (looked for case folders of {names})."
    return f"{head}\n{hints[0]}{more}"


def _mixed(cases: Sequence[Case]) -> Iterator[str]:
    """Yield a note where cases of several challenges of one year are read together."""
    tasks = Counter(case.case.split("-")[1] for case in cases if case.case.startswith("BraTS-"))
    if len(tasks) > 1:
        counts = ", ".join(f"{count} BraTS-{task}" for task, count in sorted(tasks.items()))
        yield f"{counts}: read together, for their labels mean the same."


def _refuse_doubles(folder: Path, cases: Sequence[tuple[Case, Path]]) -> None:
    paths: dict[str, Path] = {}
    for case, path in cases:
        if case.case in paths:
            what = "folders" if case.case == path.name else "cases"
            raise DataError(
                f"{folder}: two {what} are called {case.case}: {paths[case.case]} and "
                f"{path}. Keep one of them."
            )
        paths[case.case] = path
