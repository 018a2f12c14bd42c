"""Records of prepared cases → the manifest: the split, the folds and the fingerprint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segan_ray.data.layouts.cases import Case, Grade
from segan_ray.data.store.manifest import (
    STORE_VERSION,
    CaseRecord,
    Manifest,
    PrepareSettings,
    SkippedCase,
    fingerprint,
)
from segan_ray.data.store.split_file import Placement
from segan_ray.data.store.splits import (
    SPLITS,
    Fold,
    SplitName,
    SplitSettings,
    split_folds,
    split_patients,
)
from segan_ray.errors import SplitError

Splits = dict[SplitName, tuple[str, ...]]


def bind(
    layout: str,
    settings: PrepareSettings,
    split_settings: SplitSettings,
    placement: Placement | None,
    records: tuple[CaseRecord, ...],
    skipped: tuple[SkippedCase, ...],
) -> Manifest:
    """Split the patients of ``records`` and return the manifest of the store.

    Raises:
        SplitError: if the patients cannot be split as asked.
    """
    _refuse_no_truth([record.has_truth for record in records])
    if placement is None:
        splits = split_cases(records, split_settings)
    else:
        splits = placed_cases(records, placement)
    folds = fold_cases(records, splits, split_settings)
    return Manifest(
        version=STORE_VERSION,
        layout=layout,
        settings=settings,
        split_settings=split_settings,
        split_file=None if placement is None else placement.digest,
        cases=records,
        skipped=skipped,
        splits=splits,
        folds=folds,
        fingerprint=fingerprint(layout, settings, records, splits, folds),
    )


def refuse_impossible_split(
    cases: Sequence[Case], split_settings: SplitSettings, placement: Placement | None
) -> None:
    """Refuse a split that the names alone show to be impossible, before any voxel is read.

    Raises:
        SplitError: if no case has a segmentation, or too few patients have one for the shares
            or the folds.
    """
    _refuse_no_truth([case.label is not None for case in cases])
    grades: dict[str, Grade | None] = {
        case.patient: case.grade for case in cases if case.label is not None
    }
    if placement is None:
        sides = split_patients(grades, split_settings)
        foldable = [*sides["train"], *sides["val"]]
    else:
        foldable = [p for p in grades if placement.sides[p] in ("train", "val")]
    if split_settings.folds:
        split_folds({p: grades[p] for p in foldable}, split_settings.folds, split_settings.seed)


def _refuse_no_truth(have: Sequence[bool]) -> None:
    if not any(have):
        raise SplitError(
            f"None of the {len(have)} cases has a segmentation, so there is nothing to train on. "
            "segan-ray inspect names files that may be one and are not read."
        )


def split_cases(records: Sequence[CaseRecord], split_settings: SplitSettings) -> Splits:
    """Split the patients of ``records``; patients who share a scan stay on one side.

    Patients without any segmentation can be neither validated nor tested on: they train.
    """
    leader = _leaders(records)
    grades = {leader[record.patient]: record.grade for record in records if record.has_truth}
    side = {
        patient: name
        for name, patients in split_patients(grades, split_settings).items()
        for patient in patients
    }
    return _by_side({patient: side.get(leader[patient], "train") for patient in leader})


def placed_cases(records: Sequence[CaseRecord], placement: Placement) -> Splits:
    """Split the patients of ``records`` as a split file says.

    Raises:
        SplitError: if two sides hold the same scan under two names, or every patient of a side
            was left out as bad.
    """
    first: dict[str, CaseRecord] = {}
    for record in records:
        twin = first.setdefault(record.voxels_sha256, record)
        ours, theirs = placement.sides[record.patient], placement.sides[twin.patient]
        if ours != theirs:
            raise SplitError(
                f"{placement.path}: cases {twin.case} in {theirs} and {record.case} in {ours} "
                "hold the same voxels. Put both on one side; what is prepared is kept."
            )
    splits = _by_side({record.patient: placement.sides[record.patient] for record in records})
    for side in SPLITS:
        if side in placement.sides.values() and not splits[side]:
            raise SplitError(f"{placement.path}: every patient of {side} was left out as bad.")
    return splits


def fold_cases(
    records: Sequence[CaseRecord], splits: Splits, split_settings: SplitSettings
) -> tuple[Fold, ...]:
    """Divide the train and val patients into folds; patients who share a scan stay together.

    Patients without any segmentation train in every fold.

    Raises:
        SplitError: if there are fewer patients than folds.
    """
    if not split_settings.folds:
        return ()
    foldable = {*splits["train"], *splits["val"]}
    ours = [record for record in records if record.patient in foldable]
    leader = _leaders(ours)
    grades = {leader[record.patient]: record.grade for record in ours if record.has_truth}
    folds = split_folds(grades, split_settings.folds, split_settings.seed)
    validates = [
        tuple(sorted(patient for patient in leader if leader[patient] in fold.val))
        for fold in folds
    ]
    return tuple(Fold(train=tuple(sorted(foldable - {*val})), val=val) for val in validates)


def _by_side(sides: Mapping[str, SplitName]) -> Splits:
    return {
        name: tuple(sorted(patient for patient, side in sides.items() if side == name))
        for name in SPLITS
    }


def _leaders(records: Sequence[CaseRecord]) -> dict[str, str]:
    """Map each patient to the representative of all patients who share an identical scan."""
    leader = {record.patient: record.patient for record in records}
    first: dict[str, str] = {}
    for record in records:
        other = first.setdefault(record.voxels_sha256, record.patient)
        ours, theirs = leader[record.patient], leader[other]
        if ours != theirs:
            leader = {patient: theirs if head == ours else head for patient, head in leader.items()}
    return leader
