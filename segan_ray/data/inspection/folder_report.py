"""The report of ``inspect``: the content and problems of every case, as rows or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from segan_ray.brats import REGIONS, Modality, Region
from segan_ray.data.inspection.sketches import Sketch
from segan_ray.data.layouts.cases import Grade

MOSTLY_CORE: Final = 0.75
FEWEST_TO_COMPARE: Final = 3
COLUMNS: Final = ("case", "patient", "grade", "shape", "mm", *REGIONS, "intensity")


@dataclass(frozen=True)
class CaseReport:
    """The content and problems of one case, as far as it could be read.

    ``refused`` means that ``prepare`` refuses the case; the user judges other problems, and
    ``warnings`` make no case bad. ``shape`` counts voxels; ``intensities`` are the
    lowest and highest finite value of each modality; ``regions`` counts voxels and is None
    without truth or if the case is refused; ``hashes`` are those of the voxels of each sound
    volume.
    """

    case: str
    patient: str
    grade: Grade | None = None
    problems: tuple[str, ...] = ()
    refused: bool = False
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    intensities: Mapping[Modality, tuple[float, float]] = field(default_factory=dict)
    regions: Mapping[Region, int] | None = None
    hashes: Mapping[Modality, str] = field(default_factory=dict)
    sketch: Sketch | None = None
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.problems

    def document(self) -> dict[str, Any]:
        """Return the case's entry of the ``inspect`` document, without unknown values."""
        entry: dict[str, Any] = {
            "case": self.case,
            "patient": self.patient,
            "ok": self.ok,
            "refused": self.refused,
            "problems": list(self.problems),
            "warnings": list(self.warnings),
        }
        if self.regions is not None:
            entry["regions"] = dict(self.regions)
        if self.grade is not None:
            entry["grade"] = self.grade
        if self.shape:
            entry["shape"] = list(self.shape)
            entry["spacing_mm"] = [round(size, 6) for size in self.spacing_mm]
            entry["intensities"] = {name: list(ends) for name, ends in self.intensities.items()}
        return entry

    def row(self) -> tuple[object, ...]:
        """Return the case's row under ``COLUMNS``: regions in ml, one range over all scans."""
        voxel_ml = float(np.prod(self.spacing_mm)) / 1000
        counts = self.regions or {}
        ends = [end for pair in self.intensities.values() for end in pair]
        return (
            self.case,
            "=" if self.patient == self.case else self.patient,
            self.grade,
            "×".join(map(str, self.shape)) or None,
            "×".join(f"{size:.3g}" for size in self.spacing_mm) or None,
            *(f"{counts[name] * voxel_ml:.1f}" if counts else None for name in REGIONS),
            f"{_short(min(ends))}…{_short(max(ends))}" if ends else None,
        )


@dataclass(frozen=True)
class FolderReport:
    """The report of a whole folder; ``notes`` name unread files and oddities of all cases."""

    layout: str
    cases: tuple[CaseReport, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())

    @property
    def ok(self) -> int:
        return sum(case.ok for case in self.cases)

    @property
    def bad(self) -> int:
        return len(self.cases) - self.ok

    @property
    def refused(self) -> int:
        return sum(case.refused for case in self.cases)

    def document(self) -> dict[str, Any]:
        """Return the ``inspect`` document."""
        return {
            "layout": self.layout,
            "cases": [case.document() for case in self.cases],
            "ok": self.ok,
            "bad": self.bad,
            "notes": list(self.notes),
        }

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield every case that has a problem, with each of its problems."""
        for case in self.cases:
            for problem in case.problems:
                yield case.case, problem

    def warnings(self) -> Iterator[str]:
        """Yield every warning of every case, with the case's name before it."""
        for case in self.cases:
            for warning in case.warnings:
                yield f"{case.case}: {warning}"

    def verdict(self) -> str:
        """Return one line: how many cases are good, and what ``prepare`` makes of the others."""
        if not self.bad:
            return f"{self.ok} good, 0 bad"
        return (
            f"{self.ok} good, {self.bad} bad; prepare refuses {self.refused} of these "
            f"and takes {self.bad - self.refused} as they are"
        )


def region_notes(regions: Sequence[Mapping[Region, int]]) -> tuple[str, ...]:
    """Return notes that need the regions of all cases of a folder, counted in voxels.

    Core is seldom more than ``MOSTLY_CORE`` of the whole tumour; where it is in most cases,
    edema was taken for core. A folder with few tumours gets no note.
    """
    tumours = [counts for counts in regions if counts["whole"]]
    if len(tumours) < FEWEST_TO_COMPARE:
        return ()
    full = sum(counts["core"] >= MOSTLY_CORE * counts["whole"] for counts in tumours)
    notes = []
    if 2 * full > len(tumours):
        notes.append(
            f"In {full} of {len(tumours)} cases the tumour core is {MOSTLY_CORE:.0%} or more of "
            "the whole tumour. Labels 1 and 2 may be swapped: in the code of nnU-Net and the "
            "Decathlon 1 is edema and 2 core, in that of BRATS 1 is core and 2 edema."
        )
    if not any(counts["enhancing"] for counts in tumours):
        notes.append(
            f"No voxel of {len(tumours)} cases enhances. Look up which label is enhancing tumour "
            "in these segmentations; this layout may have another."
        )
    return tuple(notes)


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
