"""Two models side by side: their difference on the same patients, with an interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from segan_ray.brats import REGIONS, Region
from segan_ray.evaluation.metrics.scores import (
    CaseScores,
    PairedDifference,
    paired_difference,
    patient_scores,
)

MEAN: Final = "mean"
Column = Region | Literal["mean"]


@dataclass(frozen=True)
class Comparison:
    """Dice of ``model`` minus that of ``against``, of each region and of their mean."""

    model: str
    against: str
    difference: Mapping[Column, PairedDifference]

    def document(self) -> dict[str, Any]:
        """Return the entry of the ``comparisons`` of the ``evaluate`` document.

        The ``ci95`` of its differences is None where the patients are too few for an interval.
        """
        return {
            "model": self.model,
            "against": self.against,
            "difference": {name: paired.as_document() for name, paired in self.difference.items()},
            "patients": len(self.difference[MEAN].patients),
        }


def compare(
    model: str, against: str, ours: Sequence[CaseScores], theirs: Sequence[CaseScores]
) -> Comparison:
    """Return how two models differ, patient by patient, each scored on the same cases."""
    columns: tuple[tuple[Column, Region | None], ...] = (
        *((region, region) for region in REGIONS),
        (MEAN, None),
    )
    return Comparison(
        model,
        against,
        {
            name: paired_difference(
                patient_scores(ours, "dice", region), patient_scores(theirs, "dice", region)
            )
            for name, region in columns
        },
    )
