"""Dividing patients, never cases, into train, val, gate and test, and into folds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from segan_ray.data.layouts.cases import Grade
from segan_ray.errors import SplitError
from segan_ray.sizes import MOST_FOLDS

SplitName = Literal["train", "val", "gate", "test"]
SPLITS: Final[tuple[SplitName, ...]] = ("train", "val", "gate", "test")


class SplitSettings(BaseModel):
    """The share of patients held out for each purpose; the rest trains.

    ``val`` steers the search, ``gate`` is read by promotion alone, ``test`` by evaluation
    alone. ``gate`` may be 0: promotion then judges on the patients that chose the model.
    ``folds`` is the number of folds that divide the train and val patients anew; 0 for none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    val: float = Field(default=0.15, gt=0, lt=1)
    gate: float = Field(default=0.15, ge=0, lt=1)
    test: float = Field(default=0.15, gt=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    folds: int = Field(default=0, ge=0, le=MOST_FOLDS)

    @model_validator(mode="after")
    def _no_single_fold(self) -> SplitSettings:
        if self.folds == 1:
            raise ValueError("folds must be 2 or more, or 0 for none")
        return self


class Fold(BaseModel):
    """One way to divide the patients that are neither gate nor test."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    train: tuple[str, ...]
    val: tuple[str, ...]


def split_settings(
    *, val: float, gate: float, test: float, seed: int, folds: int = 0
) -> SplitSettings:
    """Return checked settings.

    Raises:
        SplitError: naming the share that is not between 0 and 1, or the count of folds.
    """
    try:
        return SplitSettings(val=val, gate=gate, test=test, seed=seed, folds=folds)
    except ValidationError as error:
        problem = error.errors()[0]
        name = problem["loc"][0] if problem["loc"] else "folds"
        if name == "folds":
            raise SplitError(f"--folds {folds}: expected 2 or more, or 0 for none.") from None
        raise SplitError(
            f"--{name} {problem['input']:g}: expected a share of the patients between 0 and 1."
        ) from None


def split_patients(
    grades: Mapping[str, Grade | None], settings: SplitSettings
) -> dict[SplitName, tuple[str, ...]]:
    """Split the patients of ``{patient: grade}``, each grade in the same proportions.

    The same patients, grades and settings always give the same split, in any order.

    Raises:
        SplitError: if the shares leave no patient to train on, or there are too few patients.
    """
    shares: dict[SplitName, float] = {
        "val": settings.val,
        "gate": settings.gate,
        "test": settings.test,
    }
    if sum(shares.values()) >= 1:
        raise SplitError(
            f"val {settings.val:g} + gate {settings.gate:g} + test {settings.test:g} leaves no "
            "patient to train on; together they must stay below 1."
        )
    wanted = {name: _count(share, len(grades)) for name, share in shares.items()}
    if sum(wanted.values()) >= len(grades):
        raise SplitError(
            f"{len(grades)} patients with a segmentation are too few to split: "
            f"{sum(wanted.values())} would be held out for val, gate and test and none would be "
            "left to train on. Add cases."
        )
    shuffled = _shuffled(grades, np.random.default_rng(settings.seed))
    counts = _proportional(
        [*wanted.values(), len(grades) - sum(wanted.values())], [len(each) for each in shuffled]
    )
    split: dict[SplitName, list[str]] = {name: [] for name in (*wanted, "train")}
    for side, row in zip(split.values(), counts, strict=True):
        for members, count in zip(shuffled, row, strict=True):
            side.extend(members[:count])
            del members[:count]
    return {name: tuple(sorted(split[name])) for name in SPLITS}


def split_folds(grades: Mapping[str, Grade | None], folds: int, seed: int) -> tuple[Fold, ...]:
    """Divide the patients of ``{patient: grade}`` into train and val, ``folds`` times.

    Each patient is in val of exactly one fold; folds differ by at most one patient of each
    grade. The same patients, grades and seed always give the same folds, in any order.

    Raises:
        SplitError: if there are fewer patients than folds.
    """
    if len(grades) < folds:
        raise SplitError(
            f"--folds {folds}: expected at least {folds} patients with a segmentation outside "
            f"gate and test, found {len(grades)}. Ask for fewer folds."
        )
    shuffled = _shuffled(grades, np.random.default_rng([seed, folds]))
    queue = [patient for members in shuffled for patient in members]
    return tuple(
        Fold(train=tuple(sorted({*queue} - {*val})), val=tuple(sorted(val)))
        for val in (queue[first::folds] for first in range(folds))
    )


def _count(share: float, patients: int) -> int:
    return max(1, round(share * patients)) if share else 0


def _shuffled(grades: Mapping[str, Grade | None], rng: np.random.Generator) -> list[list[str]]:
    """Return the patients of each grade, in an order that depends on ``rng`` alone."""
    by_grade: dict[str, list[str]] = defaultdict(list)
    for patient in sorted(grades):
        by_grade[grades[patient] or ""].append(patient)
    return [
        [members[index] for index in rng.permutation(len(members))]
        for _, members in sorted(by_grade.items())
    ]


def _proportional(sides: Sequence[int], grades: Sequence[int]) -> list[tuple[int, ...]]:
    """Return how many of each grade go to each side: the exact share, rounded up or down.

    Both sums are kept: each side gets its size, each grade is used up. Such a rounding always
    exists (a transport problem with integer margins has integer solutions).
    """
    total = sum(sides)
    floors = [[side * grade // total for grade in grades] for side in sides]
    rest = [[side * grade % total > 0 for grade in grades] for side in sides]
    missing = [side - sum(row) for side, row in zip(sides, floors, strict=True)]
    open_grades = [
        grade - sum(column) for grade, column in zip(grades, zip(*floors, strict=True), strict=True)
    ]
    chosen = next(_extras(missing, rest, tuple(open_grades)))
    return [
        tuple(floor + (index in extra) for index, floor in enumerate(row))
        for row, extra in zip(floors, chosen, strict=True)
    ]


def _extras(
    missing: Sequence[int], allowed: Sequence[Sequence[bool]], left: tuple[int, ...]
) -> Iterator[list[tuple[int, ...]]]:
    """Yield which grades give each side one patient more than the floor of its share."""
    if not missing:
        if not any(left):
            yield []
        return
    able = [index for index, may in enumerate(allowed[0]) if may and left[index]]
    for extra in combinations(able, missing[0]):
        after = tuple(count - (index in extra) for index, count in enumerate(left))
        for later in _extras(missing[1:], allowed[1:], after):
            yield [extra, *later]
