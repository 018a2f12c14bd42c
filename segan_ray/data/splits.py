"""Dividing patients, never cases, into train, val, gate and test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segan_ray.data.cases import Grade
from segan_ray.errors import SplitError

SplitName = Literal["train", "val", "gate", "test"]
SPLITS: Final[tuple[SplitName, ...]] = ("train", "val", "gate", "test")


class SplitSettings(BaseModel):
    """The share of patients held out for each purpose; the rest trains.

    ``val`` steers the search, ``gate`` is read by promotion alone, ``test`` by evaluation
    alone. ``gate`` may be 0: promotion then judges on the patients that chose the model.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    val: float = Field(default=0.15, gt=0, lt=1)
    gate: float = Field(default=0.15, ge=0, lt=1)
    test: float = Field(default=0.15, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)


def split_settings(*, val: float, gate: float, test: float, seed: int) -> SplitSettings:
    """Return checked settings.

    Raises:
        SplitError: naming the share that is not between 0 and 1.
    """
    try:
        return SplitSettings(val=val, gate=gate, test=test, seed=seed)
    except ValidationError as error:
        problem = error.errors()[0]
        name, found = problem["loc"][0], problem["input"]
        raise SplitError(
            f"--{name} {found:g}: expected a share of the patients between 0 and 1."
        ) from None


def split_patients(
    grades: Mapping[str, Grade | None], settings: SplitSettings
) -> dict[SplitName, tuple[str, ...]]:
    """Split the patients of ``{patient: grade}``, each grade in the same proportions.

    The same patients, grades and settings always give the same split, whatever their order.

    Raises:
        SplitError: if the shares leave nobody to train on, or there are too few patients.
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
            f"{len(grades)} patients are too few to split: {sum(wanted.values())} would be held "
            "out for val, gate and test and none would be left to train on. Add cases."
        )
    queue = _interleave_grades(grades, np.random.default_rng(settings.seed))
    split: dict[SplitName, tuple[str, ...]] = {}
    for name, count in wanted.items():
        split[name] = tuple(sorted(queue[:count]))
        queue = queue[count:]
    return {"train": tuple(sorted(queue)), **split}


def _count(share: float, patients: int) -> int:
    return max(1, round(share * patients)) if share else 0


def _interleave_grades(grades: Mapping[str, Grade | None], rng: np.random.Generator) -> list[str]:
    """Shuffle within each grade, then deal so that any prefix holds each in proportion."""
    by_grade: dict[str, list[str]] = defaultdict(list)
    for patient in sorted(grades):
        by_grade[grades[patient] or ""].append(patient)
    placed: list[tuple[float, str]] = []
    for grade in sorted(by_grade):
        members = by_grade[grade]
        order = rng.permutation(len(members))
        offset = rng.uniform()
        placed += [
            ((rank + offset) / len(members), members[index]) for rank, index in enumerate(order)
        ]
    return [patient for _, patient in sorted(placed)]
