"""The promotion gate: is a candidate better than the champion, and not by luck?

Both are scored on the same patients, and compared patient by patient. A model that is equal to
the champion passes in less than 5% of cases. That holds for the best of fifty too, since the
gate's patients chose none of them. At any of ten tries on the same patients it passes in about
5%, since each try has a wider interval than the one before
(tests/unit/evaluation/scoring/test_gate_rate.py).

The gate cannot see a failure that none of its patients shows. ``benchmarks/gate.py`` simulates
how often a model passes that pays for a small gain with a failure in every twentieth patient.
Failures that do show are counted, and may not be more than the champion's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from jaxtyping import Bool, Float64

from segan_ray.brats import REGIONS, Region
from segan_ray.evaluation.metrics.intervals import CONFIDENCE, MINIMUM_PATIENTS
from segan_ray.evaluation.metrics.scores import (
    CaseScores,
    PairedDifference,
    paired_difference,
    patient_scores,
)

FAILED_DICE: Final = 0.1
"""A region of a case whose Dice is below this is failed."""
NAMED: Final = 3
"""How many failed regions a reason names, the worst first."""


@dataclass(frozen=True)
class Verdict:
    """The gate's decision in a word, its ``reason`` in a sentence, and the numbers behind it.

    ``tries`` is the number of this try on these patients. ``interval``, at ``level``, decided.
    ``failed`` counts the failed regions of candidate and champion. All are None where nothing was
    compared, and all but ``failed`` where the patients are too few.
    """

    verdict: Literal["promoted", "kept"]
    """``kept``: the champion stays."""
    reason: str
    difference: PairedDifference | None = None
    """Of the patients' mean Dice, candidate less champion."""
    tries: int | None = None
    level: float | None = None
    interval: tuple[float, float] | None = None
    failed: tuple[int, int] | None = None


@dataclass(frozen=True)
class _Evidence:
    """The basis of a verdict: differences, the interval that decides, and failures in words."""

    difference: PairedDifference
    regions: Mapping[Region, PairedDifference]
    tries: int
    level: float
    interval: tuple[float, float]
    failures: str

    def passes(self, margin: float) -> bool:
        """Tell whether the candidate is better than ``-margin``, by intervals and by failures."""
        of_regions = np.array([one.at_level(CONFIDENCE) for one in self.regions.values()])
        better = passes(np.array(self.interval), of_regions, margin)
        return bool(better) and not self.failures

    def shown(self) -> str:
        """Return the interval in words, with its level, its patients and the tries on them."""
        low, high = self.interval
        return (
            f"{_percent(self.level)} interval {low:.3f} to {high:.3f}, "
            f"{len(self.difference.patients)} patients, try {self.tries} on them"
        )


def first_champion() -> Verdict:
    """Return the verdict where there is no champion."""
    return Verdict("promoted", "There was no champion to compare with.")


def level_of(tries: int) -> float:
    """Return the level of a try's interval: 95% for the first, then 98.75%, 99.44% and so on.

    The risk of a try falls with the square of its number, so all tries together risk at most 1.64
    times as much as the first. Of candidates that are no better, 3% pass at the first try on six
    patients and about 5% at any. A risk that halves from try to try would leave the tenth hardly
    a chance.
    """
    return 1 - (1 - CONFIDENCE) / tries**2


def judge(
    candidate: Sequence[CaseScores],
    champion: Sequence[CaseScores],
    *,
    margin: float | None = None,
    tries: int = 1,
) -> Verdict:
    """Promote a candidate whose Dice is better over the regions and clearly worse in none.

    Better: the interval of the mean paired difference lies above 0, on at least
    ``MINIMUM_PATIENTS`` patients. The interval widens with ``tries``, the number of this try on
    these patients. Clearly worse: a region's 95% interval lies wholly below 0, or more regions
    failed (Dice below ``FAILED_DICE``) than the champion's. Each case counts for itself there, so
    that a patient's good visit hides no bad one.

    With a ``margin``, in Dice, a candidate that is not worse is promoted as well: ``-margin``
    replaces 0 in both rules. A region stops a candidate only if it is proved to be worse. Proof
    that each region is not worse would turn away most equal models, for the smallest region's
    noise.
    """
    difference = _difference(candidate, champion, None)
    patients = difference.patients
    ours, theirs = (_failed(scores, patients) for scores in (candidate, champion))
    failed, failures = (len(ours), len(theirs)), _failures(ours, theirs)
    if len(patients) < MINIMUM_PATIENTS:
        few = f"{len(patients)} patients are too few to tell; {MINIMUM_PATIENTS} are needed."
        return Verdict("kept", _sentences(few, failures), difference, failed=failed)
    level = level_of(tries)
    regions = {name: _difference(candidate, champion, name) for name in REGIONS}
    interval = difference.at_level(level)
    evidence = _Evidence(difference, regions, tries, level, interval, failures)
    verdict, reason = _decide(evidence, margin)
    return Verdict(verdict, reason, difference, tries, level, interval, failed)


def passes(
    overall: Float64[np.ndarray, "*shape 2"],
    regions: Float64[np.ndarray, "region *shape 2"],
    margin: float = 0,
) -> Bool[np.ndarray, "*shape"]:
    """Tell whether intervals of differences show better than ``-margin``, and no region worse.

    The last axis of ``overall`` and ``regions`` is the low and the high limit. Any number of
    candidates can be asked about at once.
    """
    worse = (regions[..., 1] < -margin).any(axis=0)
    return np.asarray((overall[..., 0] > -margin) & ~worse)


def _decide(evidence: _Evidence, margin: float | None) -> tuple[Literal["promoted", "kept"], str]:
    if evidence.passes(0):
        return "promoted", f"Dice is better by {evidence.difference.mean:.3f} ({evidence.shown()})."
    if margin is not None and evidence.passes(margin):
        return "promoted", f"Dice is not worse by more than {margin:g} ({evidence.shown()})."
    return "kept", _sentences(_objection(evidence, margin), evidence.failures)


def _difference(
    candidate: Sequence[CaseScores], champion: Sequence[CaseScores], region: Region | None
) -> PairedDifference:
    return paired_difference(
        patient_scores(candidate, "dice", region), patient_scores(champion, "dice", region)
    )


def _failed(
    scores: Sequence[CaseScores], patients: Sequence[str]
) -> dict[tuple[str, str, Region], float]:
    """Return the Dice of each failed region by patient, case and region, the worst first."""
    dice = {
        (case.patient, case.case, region): case.regions[region].dice
        for case in scores
        if case.patient in patients
        for region in REGIONS
    }
    failed = (item for item in dice.items() if item[1] < FAILED_DICE)
    return dict(sorted(failed, key=lambda item: (item[1], item[0])))


def _failures(
    ours: Mapping[tuple[str, str, Region], float], theirs: Mapping[tuple[str, str, Region], float]
) -> str:
    """Return the candidate's failures in words, or nothing if it has no more than the champion."""
    if len(ours) <= len(theirs):
        return ""
    fresh = [(where, dice) for where, dice in ours.items() if where not in theirs]
    told = ", ".join(
        f"{patient if case == patient else f'{patient} (case {case})'} {region} {dice:.3f}"
        for (patient, case, region), dice in fresh[:NAMED]
    )
    more = f" and {len(fresh) - NAMED} more" if len(fresh) > NAMED else ""
    regions = "region" if len(ours) == 1 else "regions"
    return (
        f"It fails in {len(ours)} {regions} (Dice below {FAILED_DICE:g}), the champion in "
        f"{len(theirs)}; it alone in {told}{more}."
    )


def _objection(evidence: _Evidence, margin: float | None) -> str:
    """Return why the intervals did not let a candidate pass, or nothing if they did.

    ``margin`` is None where it had to be better.
    """
    differences = (evidence.difference, *evidence.regions.values())
    if not any(limit for difference in differences for limit in difference.at_level(CONFIDENCE)):
        patients = len(evidence.difference.patients)
        return f"It scores the same as the champion on all {patients} patients."
    if evidence.interval[0] <= -(margin or 0):
        told = "clearly better" if margin is None else f"clearly within {margin:g} of the champion"
        return f"Dice differs by {evidence.difference.mean:.3f} ({evidence.shown()}): not {told}."
    limits = {
        name: difference.at_level(CONFIDENCE) for name, difference in evidence.regions.items()
    }
    worse = [name for name, (_, high) in limits.items() if high < -(margin or 0)]
    if not worse:
        return ""
    by = "" if margin is None else f", by more than {margin:g}"
    low, high = limits[worse[0]]
    return f"The {worse[0]} region is clearly worse{by} (interval {low:.3f} to {high:.3f})."


def _sentences(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _percent(level: float) -> str:
    """Return a level as a percentage, with two digits of what it leaves to chance."""
    left = 100 * (1 - level)
    return f"{round(100 - left, 1 - math.floor(math.log10(left))):.12g}%"
