"""The promotion gate: is a candidate better than the champion, and not by luck?

Both are scored on the same patients, and compared patient by patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from segan_ray.brats import REGIONS, Region
from segan_ray.evaluation.scores import (
    CaseScores,
    PairedDifference,
    paired_difference,
    patient_scores,
)

MINIMUM_PATIENTS: Final = 6


@dataclass(frozen=True)
class Verdict:
    """The gate's decision in a word, its reason in a sentence, and the numbers behind it."""

    verdict: Literal["promoted", "kept"]
    reason: str
    difference: PairedDifference | None = None


def first_champion() -> Verdict:
    """Return the verdict where there is nobody to beat."""
    return Verdict("promoted", "There was no champion to compare with.")


def judge(candidate: Sequence[CaseScores], champion: Sequence[CaseScores]) -> Verdict:
    """Promote a candidate whose Dice is better over the regions and worse in none.

    Better: the 95% interval of the mean paired difference lies above 0, on at least
    ``MINIMUM_PATIENTS`` patients. Worse: a region's interval lies below 0.
    """
    difference = paired_difference(
        patient_scores(candidate, "dice"), patient_scores(champion, "dice")
    )
    regions = {
        name: paired_difference(
            patient_scores(candidate, "dice", name), patient_scores(champion, "dice", name)
        )
        for name in REGIONS
    }
    reason = _objection(difference, regions)
    if reason:
        return Verdict("kept", reason, difference)
    low, high = difference.ci95
    return Verdict(
        "promoted",
        f"Dice is better by {difference.mean:.3f} (95% interval {low:.3f} to {high:.3f}, "
        f"{len(difference.patients)} patients).",
        difference,
    )


def _objection(
    difference: PairedDifference, regions: Mapping[Region, PairedDifference]
) -> str | None:
    patients = len(difference.patients)
    if patients < MINIMUM_PATIENTS:
        return f"{patients} patients are too few to tell; {MINIMUM_PATIENTS} are needed."
    low, high = difference.ci95
    if low <= 0:
        return (
            f"Dice differs by {difference.mean:.3f} (95% interval {low:.3f} to {high:.3f}, "
            f"{patients} patients): not clearly better."
        )
    worse = [name for name, found in regions.items() if found.ci95[1] < 0]
    return f"The {worse[0]} region is clearly worse." if worse else None
