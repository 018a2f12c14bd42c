"""Looking through a BRATS folder: every case read once, every problem put in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np

from segan_ray.brats import REGIONS, Region
from segan_ray.data.cases import Case, Discovery, layout_named
from segan_ray.data.prepare import OnCase, ignore_case
from segan_ray.data.volumes import check_headers, read_volume
from segan_ray.errors import CaseError


@dataclass(frozen=True)
class CaseReport:
    """What reading one case showed; ``regions`` counts voxels and is None without truth."""

    case: str
    patient: str
    problems: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    regions: Mapping[Region, int] | None = None

    @property
    def ok(self) -> bool:
        return not self.problems

    def document(self) -> dict[str, Any]:
        """Return the case's entry of the ``inspect`` document."""
        entry: dict[str, Any] = {
            "case": self.case,
            "patient": self.patient,
            "ok": self.ok,
            "problems": list(self.problems),
        }
        if self.regions is not None:
            entry["regions"] = dict(self.regions)
        return entry


@dataclass(frozen=True)
class FolderReport:
    """What a whole folder holds."""

    layout: str
    cases: tuple[CaseReport, ...] = field(default=())

    @property
    def ok(self) -> int:
        return sum(case.ok for case in self.cases)

    @property
    def bad(self) -> int:
        return len(self.cases) - self.ok

    def document(self) -> dict[str, Any]:
        """Return the ``inspect`` document."""
        return {
            "layout": self.layout,
            "cases": [case.document() for case in self.cases],
            "ok": self.ok,
            "bad": self.bad,
        }

    def rows(self) -> Iterator[tuple[object, ...]]:
        """Yield a table row a case: name, patient, shape, spacing, and regions in ml."""
        for case in self.cases:
            shape = "×".join(map(str, case.shape)) or None
            spacing = "×".join(f"{size:g}" for size in case.spacing_mm) or None
            voxel_ml = float(np.prod(case.spacing_mm)) / 1000 if case.spacing_mm else 0.0
            counts = case.regions or {}
            volumes = [f"{counts[name] * voxel_ml:.1f}" if counts else None for name in REGIONS]
            yield (case.case, case.patient, shape, spacing, *volumes)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield every case that has a problem, with each of its problems."""
        for case in self.cases:
            for problem in case.problems:
                yield case.case, problem


def inspect_cases(
    discovery: Discovery, *, workers: int, on_case: OnCase = ignore_case
) -> FolderReport:
    """Read every case of ``discovery`` once, several at a time."""
    inspect = partial(inspect_case, layout=discovery.layout.name)
    reports = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for report in pool.map(inspect, discovery.cases):
            reports.append(report)
            on_case(report.case)
    return FolderReport(discovery.layout.name, tuple(reports))


def inspect_case(case: Case, layout: str) -> CaseReport:
    """Read one case and say what is in it and what is wrong."""
    problems = check_headers(case)
    if problems:
        return CaseReport(case.case, case.patient, problems)
    code = layout_named(layout).code
    try:
        volume = read_volume(case, code)
    except CaseError as error:
        problem = str(error).removeprefix(f"Case {case.case}: ")
        return CaseReport(case.case, case.patient, (problem,))
    regions = None
    if volume.label is not None:
        counts = code.regions(volume.label).sum(axis=(1, 2, 3))
        regions = {name: int(count) for name, count in zip(REGIONS, counts, strict=True)}
    return CaseReport(
        case.case, case.patient, (), volume.image.shape[1:], volume.spacing_mm, regions
    )
