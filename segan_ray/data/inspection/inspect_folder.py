"""Looking through a BRATS folder: every case read once, every problem put in words.

``inspect`` looks for more than ``prepare`` refuses: an empty truth, a skull left in one
modality or in all, and duplicate scans are problems, though ``prepare`` takes them.
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
    duplicates = duplicate_problems(discovery.cases, hashes)
    ordered = [reports[case.case] for case in discovery.cases]
    counts = [report.regions for report in ordered if report.regions is not None]
    return FolderReport(
        discovery.layout.name,
        tuple(
            replace(
                report,
                problems=(*report.problems, *duplicates.get(report.case, ())),
                warnings=(*case.warnings, *report.warnings),
            )
            for case, report in zip(discovery.cases, ordered, strict=True)
        ),
        (*discovery.notes, *discovery.untold, *region_notes(counts)),
    )


def inspect_case(case: Case, layout: str, sketch_side: int | None = None) -> CaseReport:
    """Read one case and report its content and all of its problems; never raise."""
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
    """The findings in one case so far; ``prepare`` refuses the case for its ``refusals``."""

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
    findings = _Findings(list(dict.fromkeys(check_headers(case))))
    for path in dict.fromkeys(case.images.values()):
        _read_images(case, path, findings)
    if case.label is not None:
        _read_truth(case, case.label, code, findings)
    if len({voxels.shape for voxels in findings.images.values()}) == 1:
        sound = {name: voxels for name, voxels in findings.images.items() if name in findings.sound}
        _judge_brain(case, sound, findings)
    return CaseReport(
        case.case,
        case.patient,
        case.grade,
        (*findings.refusals, *findings.others),
        refused=bool(findings.refusals),
        shape=next((voxels.shape for voxels in findings.images.values()), ()),
        spacing_mm=findings.spacing_mm if findings.images else (),
        intensities={name: ends for name, x in findings.images.items() if (ends := _range(x))},
        regions=None if findings.refusals else _counts(findings.regions),
        hashes={
            name: _hash(findings.images[name]) for name in findings.images if name in findings.sound
        },
        sketch=findings.sketch(sketch_side) if sketch_side else None,
        warnings=geometry_warnings(case),
    )


def _read_images(case: Case, path: Path, findings: _Findings) -> None:
    read = _read(case, path, findings.refusals, read_modalities)
    if read is None:
        return
    scans, affine = read
    images = {name: voxels.astype(np.float32, copy=False) for name, voxels in scans.items()}
    findings.images |= images
    if findings.affine is None:
        findings.affine = affine
    for modality, voxels in images.items():
        problems = intensity_problems(voxels)
        findings.refusals += [f"{source(case, modality)}: {problem}" for problem in problems]
        if not problems:
            findings.sound.add(modality)


def _read_truth(case: Case, path: Path, code: LabelCode, findings: _Findings) -> None:
    read = _read(case, path, findings.refusals, read_array)
    if read is None:
        return
    voxels, _ = read
    problems = truth_refusals(path, voxels, code)
    findings.refusals += [f"{path}: {problem}" for problem in problems]
    if not problems:
        label = as_labels(voxels)
        findings.regions = code.regions(label)
        findings.others += [f"{path}: {problem}" for problem in truth_problems(label, code)]
        findings.others += [
            f"{source(case, modality)}: holds voxel for voxel the segmentation; expected a scan. "
            "One was copied over the other: copy both again from the source."
            for modality, scan in findings.images.items()
            if np.array_equal(scan, voxels) and label.any()
        ]


def _judge_brain(
    case: Case, scans: Mapping[Modality, Float32[np.ndarray, "x y z"]], findings: _Findings
) -> None:
    """Look for one brain in sound scans, and for the truth in it."""
    skulls = stripping_problems(scans)
    findings.others += [f"{source(case, name)}: {problem}" for name, problem in skulls.items()]
    if len(scans) < len(MODALITIES):
        return
    try:
        brain = brain_of(scans, findings.spacing_mm)
    except DataError as error:
        findings.refusals.append(f"{_folder(case)}: {error}")
        return
    head = head_problem(brain, findings.spacing_mm)
    if head and not skulls:
        findings.others.append(f"{_folder(case)}: {head}")
    if findings.regions is not None and findings.regions.shape[1:] == brain.shape:
        truth = misplaced_truth(findings.regions[0], brain, int(np.count_nonzero(brain)))
        findings.refusals += [f"{case.label}: {truth}"] if truth else []


def _read(
    case: Case, path: Path, refusals: list[str], reader: Callable[[Case, Path], Read]
) -> Read | None:
    """Read one file; on failure return None, with the reason in ``refusals`` once."""
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
