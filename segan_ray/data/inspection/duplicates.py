"""Scans that occur twice under different names, found by the hashes of their voxels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from segan_ray.brats import MODALITIES, Modality
from segan_ray.data.io.volumes import source
from segan_ray.data.layouts.cases import Case

Hashes = Mapping[Modality, str]
_LISTED = 3


def duplicate_problems(
    cases: Sequence[Case], hashes: Mapping[str, Hashes]
) -> dict[str, tuple[str, ...]]:
    """Return the problems of each case that shares voxels with another, or within itself.

    ``hashes`` maps a case's name to the hashes of its readable volumes.
    Two cases that share all four volumes name each other; a single volume that two cases (or
    two modalities of one case) share was copied over another.
    """
    twins: dict[tuple[str, ...], list[str]] = defaultdict(list)
    owners: dict[str, list[tuple[str, Modality]]] = defaultdict(list)
    for name, volumes in hashes.items():
        if len(volumes) == len(MODALITIES):
            twins[_whole(volumes)].append(name)
        for modality, voxels in volumes.items():
            owners[voxels].append((name, modality))
    problems = {}
    for case in cases:
        volumes = hashes.get(case.case, {})
        same = [name for name in twins.get(_whole(volumes), ()) if name != case.case]
        case_problems = [_twin_problem(same)] if same else []
        for modality, voxels in volumes.items():
            others = [
                (name, other)
                for name, other in owners[voxels]
                if name not in same and (name, other) != (case.case, modality)
            ]
            if others:
                case_problems.append(
                    f"{source(case, modality)}: {_copy_problem(case.case, *others[0])}"
                )
        if case_problems:
            problems[case.case] = tuple(case_problems)
    return problems


def _whole(volumes: Hashes) -> tuple[str, ...]:
    return tuple(volumes[modality] for modality in MODALITIES if modality in volumes)


def _twin_problem(same: list[str]) -> str:
    more = f" and {len(same) - _LISTED} more" if len(same) > _LISTED else ""
    return (
        f"its four volumes are voxel for voxel those of {', '.join(same[:_LISTED])}{more}; "
        "expected a scan of its own. Keep one of these cases and exclude the others."
    )


def _copy_problem(case: str, other: str, modality: Modality) -> str:
    whose = "this case" if other == case else f"case {other}"
    return (
        f"holds voxel for voxel the {modality} volume of {whose}; expected a scan of its own. "
        "One was copied over the other: copy both again from the source."
    )
