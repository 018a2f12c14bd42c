"""Split files: a user's own division of the patients, checked before any work.

A YAML or JSON file names patients or cases for ``train``, ``val``, ``test`` and, if wanted,
``gate``. A case stands for its patient: naming one time point places all of them. The file must
place every patient; there is no silent default. To evaluate on a store that was prepared
otherwise, a file needs ``test`` alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from segan_ray import documents
from segan_ray.data.layouts.cases import Case
from segan_ray.data.store.splits import SPLITS, SplitName
from segan_ray.errors import SplitError, cut, nearest, said

if TYPE_CHECKING:
    from segan_ray.data.store.manifest import CaseRecord


HELD_AND_TRAINED: Final[tuple[SplitName, ...]] = ("train", "val", "test")


@dataclass(frozen=True)
class SplitFile:
    """The content of a split file: names of patients or cases for each side, not yet checked."""

    path: Path
    sides: Mapping[SplitName, tuple[str, ...]]


@dataclass(frozen=True)
class Placement:
    """The side of each patient, by a split file."""

    path: Path
    sides: Mapping[str, SplitName]

    def patients(self, side: SplitName) -> tuple[str, ...]:
        """Return the patients of a side, sorted."""
        return tuple(sorted(patient for patient, placed in self.sides.items() if placed == side))

    @property
    def digest(self) -> str:
        """16 hex digits of the patients' sides; the wording of the file does not matter."""
        text = json.dumps(self.sides, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_split_file(path: Path, needed: Sequence[SplitName] = HELD_AND_TRAINED) -> SplitFile:
    """Read a split file, in which the sides ``needed`` must not be empty.

    Raises:
        SplitError: if it cannot be read, or does not hold lists of names for the sides.
    """
    try:
        text = documents.read_text(path, documents.LIST_BYTES)
        content = documents.parse_yaml_list(text)
    except FileNotFoundError:
        raise SplitError(f"{path}: no such split file.") from None
    except documents.BoundsError as error:
        raise SplitError(f"{path}: {error}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SplitError(f"{path}: cannot be read ({said(error)}).") from None
    except documents.DocumentError as error:
        raise SplitError(f"{path}: is neither YAML nor JSON{error.at} ({error}).") from None
    if not isinstance(content, dict):
        raise SplitError(f"{path}: expected lists of patients for {', '.join(SPLITS)}.")
    for name in content:
        if name not in SPLITS:
            hint = nearest(str(name), SPLITS)
            raise SplitError(
                f"{path}: unknown side '{cut(name)}'.{hint} Known: {', '.join(SPLITS)}."
            )
    sides = {name: _names(path, name, content.get(name)) for name in SPLITS}
    empty = [name for name in needed if not sides[name]]
    if empty:
        least = (
            "Only gate may be empty: promotion then judges on the val patients."
            if tuple(needed) == HELD_AND_TRAINED
            else f"Name them as {empty[0]}: [patient, patient]."
        )
        raise SplitError(f"{path}: {empty[0]} has no patient. {least}")
    return SplitFile(path, sides)


def _names(path: Path, side: str, listed: Any) -> tuple[str, ...]:
    if listed is None:
        return ()
    if not isinstance(listed, list):
        raise SplitError(f"{path}: {side} is no list. Write it as {side}: [patient, patient].")
    for name in listed:
        if not isinstance(name, str):
            raise SplitError(f"{path}: {side} holds {cut(repr(name))}; expected a name, in quotes.")
    return tuple(listed)


def assign_sides(file: SplitFile, cases: Sequence[Case]) -> Placement:
    """Return the side that ``file`` gives each patient of ``cases``, bad cases included.

    Raises:
        SplitError: for a name that no patient or case has, a patient on two sides or on none,
            or a patient without any segmentation outside train.
    """
    sides = _sides(file, cases, checked=SPLITS)
    _refuse_left_out(file.path, sorted({case.patient for case in cases} - {*sides}))
    _refuse_blind(file.path, sides, {case.patient for case in cases if case.label})
    return Placement(file.path, sides)


def assign_tested(file: SplitFile, cases: Sequence[CaseRecord]) -> Placement:
    """Return the side of each patient of a store's ``cases`` that ``file`` names.

    Other patients are on no side. Sides other than test may name patients that the store lacks.

    Raises:
        SplitError: for a test name that the store lacks, a patient on two sides, or a test
            patient without any segmentation.
    """
    sides = _sides(file, cases, checked=("test",))
    seen = {case.patient for case in cases if case.has_truth}
    blind = sorted(name for name, side in sides.items() if side == "test" and name not in seen)
    if blind:
        raise SplitError(
            f"{file.path}: test names patient {blind[0]}, who has no segmentation in the store. "
            "Leave out who cannot be scored."
        )
    return Placement(file.path, sides)


def _sides(
    file: SplitFile, cases: Sequence[Case] | Sequence[CaseRecord], checked: Sequence[SplitName]
) -> dict[str, SplitName]:
    """Return the side of each named patient; ``cases`` must have the names of sides ``checked``."""
    patients = {case.case: case.patient for case in cases}
    patients |= {case.patient: case.patient for case in cases}
    sides: dict[str, SplitName] = {}
    named_as: dict[str, str] = {}
    for side, names in file.sides.items():
        for name in names:
            if name not in patients and side not in checked:
                continue
            if name not in patients:
                raise SplitError(
                    f"{file.path}: {side} names '{cut(name)}', no patient or case of the data."
                    f"{nearest(name, patients)}"
                )
            patient = patients[name]
            if sides.setdefault(patient, side) != side:
                raise SplitError(_twice(file.path, patient, named_as[patient], name, sides, side))
            named_as.setdefault(patient, name)
    return sides


def _twice(
    path: Path, patient: str, first: str, second: str, sides: Mapping[str, str], side: str
) -> str:
    if first == second:
        return f"{path}: '{first}' is in {sides[patient]} and in {side}. Keep one of them."
    return (
        f"{path}: '{first}' is in {sides[patient]}, '{second}' in {side}, and both are of patient "
        f"{patient}. All cases of a patient must be on one side."
    )


def _refuse_left_out(path: Path, missing: Sequence[str]) -> None:
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise SplitError(
            f"{path}: {len(missing)} patients are on no side: {', '.join(missing[:5])}{more}.\n"
            "Place every patient; those you do not want belong in another folder."
        )


def _refuse_blind(path: Path, sides: Mapping[str, str], seen: set[str]) -> None:
    blind = sorted(name for name, side in sides.items() if side != "train" and name not in seen)
    if blind:
        raise SplitError(
            f"{path}: patient {blind[0]} is in {sides[blind[0]]} but has no segmentation to be "
            "judged by. Put it to train."
        )
