"""The promotion gate: is a candidate better than the champion, and not by luck?

Both are scored on the same patients, and compared patient by patient. Equal models pass in less
than 5% of cases (tests/unit/test_gate_rate.py), also the best of fifty: the gate's patients chose
none of them. What no patient of the gate shows, no interval can know of: a model that pays for a
small gain with a failure in every twentieth patient passes more easily, the fewer patients are
asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from jaxtyping import Bool, Float64

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


def judge(
    candidate: Sequence[CaseScores],
    champion: Sequence[CaseScores],
    *,
    margin: float | None = None,
) -> Verdict:
    """Promote a candidate whose Dice is better over the regions and clearly worse in none.

    Better: the 95% interval of the mean paired difference lies above 0, on at least
    ``MINIMUM_PATIENTS`` patients. Clearly worse: a region's interval lies wholly below 0.

    With a ``margin``, in Dice, a candidate that is not worse is promoted as well: ``-margin``
    takes the place of 0 in both rules. Of a region too it takes proof to stand in the way: to ask
    each of three for proof that it is not worse would turn away most equals for the smallest
    region's noise.
    """
    difference = _difference(candidate, champion, None)
    regions = {name: _difference(candidate, champion, name) for name in REGIONS}
    patients = len(difference.patients)
    if patients < MINIMUM_PATIENTS:
        few = f"{patients} patients are too few to tell; {MINIMUM_PATIENTS} are needed."
        return Verdict("kept", few, difference)
    if _passes(difference, regions, 0):
        reason = f"Dice is better by {difference.mean:.3f} ({_interval(difference)})."
        return Verdict("promoted", reason, difference)
    if margin is not None and _passes(difference, regions, margin):
        reason = f"Dice is not worse by more than {margin:g} ({_interval(difference)})."
        return Verdict("promoted", reason, difference)
    return Verdict("kept", _objection(difference, regions, margin), difference)


def passes(
    overall: Float64[np.ndarray, "*shape 2"],
    regions: Float64[np.ndarray, "region *shape 2"],
    margin: float = 0,
) -> Bool[np.ndarray, "*shape"]:
    """Tell whether intervals of differences say better than ``-margin``, and no region worse.

    ``overall`` and ``regions`` end in the low and high limit; any number can be asked at once.
    """
    worse = (regions[..., 1] < -margin).any(axis=0)
    return np.asarray((overall[..., 0] > -margin) & ~worse)


def _passes(
    difference: PairedDifference, regions: Mapping[Region, PairedDifference], margin: float
) -> bool:
    of_regions = np.array([found.ci95 for found in regions.values()])
    return bool(passes(np.array(difference.ci95), of_regions, margin))


def _difference(
    candidate: Sequence[CaseScores], champion: Sequence[CaseScores], region: Region | None
) -> PairedDifference:
    return paired_difference(
        patient_scores(candidate, "dice", region), patient_scores(champion, "dice", region)
    )


def _objection(
    difference: PairedDifference, regions: Mapping[Region, PairedDifference], margin: float | None
) -> str:
    """Say why a candidate did not pass; ``margin`` is None where it had to be better."""
    found = _interval(difference)
    if not any(limit for one in (difference, *regions.values()) for limit in one.ci95):
        return f"It scores the same as the champion on all {len(difference.patients)} patients."
    if difference.ci95[0] <= -(margin or 0):
        told = "clearly better" if margin is None else f"clearly within {margin:g} of the champion"
        return f"Dice differs by {difference.mean:.3f} ({found}): not {told}."
    worse = [name for name, one in regions.items() if one.ci95[1] < -(margin or 0)]
    by = "" if margin is None else f", by more than {margin:g}"
    low, high = regions[worse[0]].ci95
    return f"The {worse[0]} region is clearly worse{by} (interval {low:.3f} to {high:.3f})."


def _interval(difference: PairedDifference) -> str:
    low, high = difference.ci95
    return f"95% interval {low:.3f} to {high:.3f}, {len(difference.patients)} patients"
