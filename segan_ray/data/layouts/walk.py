"""The walk through a folder: its case folders, and notes on everything else.

Every folder with images that is no case gets a note that says why, as far as its name or its
files tell. An unreadable folder gets a note too, and does not stop the walk.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from segan_ray.data.layouts.entries import (
    is_folder,
    is_image_name,
    is_link,
    is_there,
    reason,
    visible,
)
from segan_ray.data.layouts.layout import Layout
from segan_ray.data.layouts.name_mapping import is_name_mapping
from segan_ray.data.layouts.no_case import called_like_cases, why_no_case

_READ_DEPTH: Final = 4  # BRATS-2/Image_Data/HG/0001
_LOOK_DEPTH: Final = 8  # further down, cases are named and not read
_JUNK: Final = {"__macosx", "lost+found", "$recycle.bin", "system volume information", "@eadir"}
_LABELS: Final = {"labelsTr", "labelsTs"}


@dataclass
class Walk:
    """The result of a walk: case folders with their layouts, tables of grades, and notes."""

    candidates: Sequence[Layout]
    layouts: Sequence[Layout]
    case_folders: list[tuple[Layout, Path]] = field(default_factory=list)
    tables: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def through(self, folder: Path) -> Walk:
        """Walk through ``folder``; a folder that is a case may have its table beside it."""
        self._visit(folder, 0, ())
        if any(path == folder for _, path in self.case_folders):
            self.tables += _tables(folder.absolute().parent)
        return self

    def _visit(self, folder: Path, depth: int, around: tuple[tuple[int, int], ...]) -> None:
        if holding := [layout for layout in self.candidates if layout.holds(folder)]:
            if depth <= _READ_DEPTH:
                self.case_folders += [(layout, folder) for layout in holding]
            else:
                self.notes.append(
                    f"{folder}: not read: lies {depth} folders below the one given, more than "
                    f"{_READ_DEPTH}. Point at {folder.parent}."
                )
            return
        # A store beside its data, finished or not, holds folders named after cases too.
        if folder.name.endswith(".preparing") or is_there(folder / "manifest.json"):
            return
        try:
            status = folder.stat()
            inside = visible(folder)
        except OSError as error:
            self.notes.append(f"{folder}: cannot be read ({reason(error)}).")
            return
        if (status.st_dev, status.st_ino) in around:  # a link to a folder around it
            return
        self.tables += [path for path in inside if is_name_mapping(path.name)]
        images = [path for path in inside if _is_image(path)]
        if note := why_no_case(folder, images, inside, self.candidates, self.layouts):
            self.notes.append(note)
        if note := called_like_cases(folder, inside, self.candidates):
            self.notes.append(note)
        if depth < _LOOK_DEPTH:
            for path in _folders(inside, images, self.notes):
                self._visit(path, depth + 1, (*around, (status.st_dev, status.st_ino)))


def _tables(folder: Path) -> list[Path]:
    try:
        return [path for path in visible(folder) if is_name_mapping(path.name)]
    except OSError:
        return []


def _is_image(path: Path) -> bool:
    """Tell by its name whether ``path`` is an image or a folder of one, as in 2013 and 2015."""
    return is_image_name(path.name) or path.name.casefold().startswith("vsd.")


def _folders(inside: Iterable[Path], images: Sequence[Path], notes: list[str]) -> Iterable[Path]:
    names = {path.name for path in inside}
    for path in inside:
        junk = path.name.casefold() in _JUNK or (
            path.name in _LABELS and f"images{path.name[-2:]}" in names
        )
        if path in images:
            continue
        if is_folder(path):
            if not junk:
                yield path
            elif not os.access(path, os.R_OK | os.X_OK):
                notes.append(f"{path}: cannot be read (Permission denied).")
        elif is_link(path) and not is_there(path) and not path.suffix:
            notes.append(f"{path}: not read: is a link to a folder or file that is not here.")
