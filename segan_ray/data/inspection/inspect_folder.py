"""Looking through a BRATS folder: every case read once, every problem put in words.

``inspect`` looks for more than ``prepare`` refuses: an empty truth, a skull left in one
modality or in all, and doubled scans are problems here, and no obstacle there.
``CaseReport.refused`` tells the two apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float, Float32

from segan_ray.brats import MODALITIES, REGIONS, LabelCode, Modality, Region
from segan_ray.data.inspection.duplicates import duplicate_problems
from segan_ray.data.inspection.folder_report import CaseReport, FolderReport, region_notes
from segan_ray.data.inspection.sketches import Sketch, sketch
from segan_ray.data.io.background import brain_of, head_problem, misplaced_truth
from segan_ray.data.io.geometry import spacing_of
from segan_ray.data.io.volumes import (
    check_headers,
    geometry_warnings,
    read_array,
    read_modalities,
    source,
    truth_refusals,
)
from segan_ray.data.io.voxel_checks import (
    as_labels,
    intensity_problems,
    stripping_problems,
    truth_problems,
)
from segan_ray.data.layouts.cases import Case, Discovery, layout_named
from segan_ray.data.store.prepare import OnCase, ignore_case
from segan_ray.data.store.workers import each_done
from segan_ray.errors import CaseError, DataError, named

Read = TypeVar("Read")


def inspect_cases(
    discovery: Discovery,
    *,
    workers: int,
    sketch_side: int | None = None,
    on_case: OnCase = ignore_case,
) -> FolderReport:
    """Read every case of ``discovery`` once, ``workers`` at a time, each in another process.

    Volumes stay in the processes that read them: only reports come back, and sketches of at
    most ``sketch_side`` pixels if that is given. ``on_case`` is called with the name of each
    case as it is done. A case that cannot be inspected is reported as bad; none stops the rest.
    """
    inspect = partial(inspect_case, layout=discovery.layout.name, sketch_side=sketch_side)
    reports: dict[str, CaseReport] = {}
    for case, future in each_done(inspect, discovery.cases, workers=workers):
        reports[case.case] = _outcome(case, future)
        on_case(case.case)
    hashes = {name: report.hashes for name, report in reports.items()}
    doubled = duplicate_problems(discovery.cases, hashes)
    ordered = [reports[case.case] for case in discovery.cases]
    counts = [report.regions for report in ordered if report.regions is not None]
    return FolderReport(
        discovery.layout.name,
        tuple(
            replace(
                report,
                problems=(*report.problems, *doubled.get(report.case, ())),
                warnings=(*case.warnings, *report.warnings),
            )
            for case, report in zip(discovery.cases, ordered, strict=True)
        ),
        (*discovery.notes, *discovery.untold, *region_notes(counts)),
    )


def inspect_case(case: Case, layout: str, sketch_side: int | None = None) -> CaseReport:
    """Read one case and say what is in it and everything that is wrong with it; never raise."""
    try:
        return _inspect(case, layout_named(layout).code, sketch_side)
    except Exception as error:  # one odd case must not end the inspection of a thousand
        return _unforeseen(case, error)


def _outcome(case: Case, future: Future[CaseReport]) -> CaseReport:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenProcessPool):
        problem = (
            f"{_folder(case)}: the process that read it died, twice; expected a report. "
            "It needs more memory than there is, or a file of it crashes the reader: "
            "copy it again from the source or exclude the case."
        )
        return CaseReport(case.case, case.patient, case.grade, (problem,), refused=True)
    return _unforeseen(case, error)


def _unforeseen(case: Case, error: BaseException) -> CaseReport:
    what = named(error)
    problem = (
        f"{_folder(case)}: reading it failed in a way nobody foresaw ({what}); expected four "
        "scans. Copy the case again from the source or exclude it."
    )
    return CaseReport(case.case, case.patient, case.grade, (problem,), refused=True)


def _folder(case: Case) -> Path | str:
    return next((path.parent for path in case.images.values()), case.case)


@dataclass
class _Findings:
    """What reading one case brought to light so far; ``refusals`` are what ``prepare`` refuses."""

    refusals: list[str]
    images: dict[Modality, Float32[np.ndarray, "x y z"]] = field(default_factory=dict)
    regions: Bool[np.ndarray, "region x y z"] | None = None
    affine: Float[np.ndarray, "4 4"] | None = None
    sound: set[Modality] = field(default_factory=set)
    others: list[str] = field(default_factory=list)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        return (1.0, 1.0, 1.0) if self.affine is None else spacing_of(self.affine)

    def sketch(self, side: int) -> Sketch | None:
        return sketch(self.images, self.regions, spacing_mm=self.spacing_mm, side=side)


def _inspect(case: Case, code: LabelCode, sketch_side: int | None) -> CaseReport:
    found = _Findings(list(dict.fromkeys(check_headers(case))))
    for path in dict.fromkeys(case.images.values()):
        _read_images(case, path, found)
    if case.label is not None:
        _read_truth(case, case.label, code, found)
    if len({voxels.shape for voxels in found.images.values()}) == 1:
        sound = {name: voxels for name, voxels in found.images.items() if name in found.sound}
        _judge_brain(case, sound, found)
    return CaseReport(
        case.case,
        case.patient,
        case.grade,
        (*found.refusals, *found.others),
        refused=bool(found.refusals),
        shape=next((voxels.shape for voxels in found.images.values()), ()),
        spacing_mm=found.spacing_mm if found.images else (),
        intensities={name: ends for name, x in found.images.items() if (ends := _range(x))},
        regions=None if found.refusals else _counts(found.regions),
        hashes={name: _hash(found.images[name]) for name in found.images if name in found.sound},
        sketch=found.sketch(sketch_side) if sketch_side else None,
        warnings=geometry_warnings(case),
    )


def _read_images(case: Case, path: Path, found: _Findings) -> None:
    read = _read(case, path, found.refusals, read_modalities)
    if read is None:
        return
    scans, affine = read
    images = {name: voxels.astype(np.float32, copy=False) for name, voxels in scans.items()}
    found.images |= images
    if found.affine is None:
        found.affine = affine
    for modality, voxels in images.items():
        problems = intensity_problems(voxels)
        found.refusals += [f"{source(case, modality)}: {problem}" for problem in problems]
        if not problems:
            found.sound.add(modality)


def _read_truth(case: Case, path: Path, code: LabelCode, found: _Findings) -> None:
    read = _read(case, path, found.refusals, read_array)
    if read is None:
        return
    voxels, _ = read
    problems = truth_refusals(path, voxels, code)
    found.refusals += [f"{path}: {problem}" for problem in problems]
    if not problems:
        label = as_labels(voxels)
        found.regions = code.regions(label)
        found.others += [f"{path}: {problem}" for problem in truth_problems(label, code)]
        found.others += [
            f"{source(case, modality)}: holds voxel for voxel the segmentation; expected a scan. "
            "One was copied over the other: copy both again from the source."
            for modality, scan in found.images.items()
            if np.array_equal(scan, voxels) and label.any()
        ]


def _judge_brain(
    case: Case, scans: Mapping[Modality, Float32[np.ndarray, "x y z"]], found: _Findings
) -> None:
    """Look for one brain in sound scans, and for the truth in it."""
    skulls = stripping_problems(scans)
    found.others += [f"{source(case, name)}: {problem}" for name, problem in skulls.items()]
    if len(scans) < len(MODALITIES):
        return
    try:
        brain = brain_of(scans, found.spacing_mm)
    except DataError as error:
        found.refusals.append(f"{_folder(case)}: {error}")
        return
    head = head_problem(brain, found.spacing_mm)
    if head and not skulls:
        found.others.append(f"{_folder(case)}: {head}")
    if found.regions is not None and found.regions.shape[1:] == brain.shape:
        truth = misplaced_truth(found.regions[0], brain, int(np.count_nonzero(brain)))
        found.refusals += [f"{case.label}: {truth}"] if truth else []


def _read(
    case: Case, path: Path, refusals: list[str], reader: Callable[[Case, Path], Read]
) -> Read | None:
    """Read one file; None, with the reason in ``refusals`` once, if that cannot be done."""
    if any(refusal.startswith(f"{path}: ") for refusal in refusals):
        return None
    try:
        return reader(case, path)
    except CaseError as error:
        refusals.append(str(error).removeprefix(f"Case {case.case}: "))
        return None


def _range(voxels: Float32[np.ndarray, "x y z"]) -> tuple[float, float] | None:
    finite = voxels[np.isfinite(voxels)]
    return (float(finite.min()), float(finite.max())) if finite.size else None


def _counts(regions: Bool[np.ndarray, "region x y z"] | None) -> dict[Region, int] | None:
    if regions is None:
        return None
    return {
        name: int(np.count_nonzero(region)) for name, region in zip(REGIONS, regions, strict=True)
    }


def _hash(voxels: Float32[np.ndarray, "x y z"]) -> str:
    return hashlib.sha256(np.ascontiguousarray(voxels).data).hexdigest()
