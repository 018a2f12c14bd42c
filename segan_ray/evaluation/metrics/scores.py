"""From the scores of cases to tables, summaries over patients, and a paired comparison.

The patient is the unit everywhere: a patient's cases (visits) are averaged first, since they
are not independent and would make an interval too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypedDict

import numpy as np
import pandas as pd

from segan_ray.brats import REGIONS
from segan_ray.evaluation.metrics.intervals import (
    CONFIDENCE,
    RESAMPLES,
    intervals_if_enough,
    no_interval,
    widened,
)
from segan_ray.evaluation.metrics.region_metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from segan_ray.brats import Region
    from segan_ray.evaluation.metrics.lesions import LesionScores
    from segan_ray.evaluation.metrics.region_metrics import Metric, RegionScores

LESION_METRICS: Final = (
    "lesion_dice", "lesion_hd95", "lesions", "missed_lesions", "false_lesions",
)  # fmt: skip


class Summary(TypedDict):
    """One score over patients; HD95 in mm.

    ``ci95`` is the interval of the mean, or None (``null`` in JSON) below ``MINIMUM_PATIENTS``.
    """

    mean: float
    median: float
    ci95: list[float] | None


@dataclass(frozen=True)
class CaseScores:
    """The scores of one case, for every region."""

    case: str
    patient: str
    regions: Mapping[Region, RegionScores]
    lesions: Mapping[Region, LesionScores] | None = None

    def of(self, region: Region) -> dict[str, float]:
        """Return the scores of a region by name, those of its lesions last if there are any."""
        scores = {str(name): value for name, value in self.regions[region].as_dict().items()}
        if self.lesions is None:
            return scores
        found = self.lesions[region]
        values = (found.dice, found.hd95, found.lesions, found.missed, found.false_positives)
        return scores | dict(zip(LESION_METRICS, values, strict=True))

    def as_document(self) -> dict[str, Any]:
        """Return the entry of this case in the ``cases`` list of the ``evaluate`` document."""
        document: dict[str, Any] = {"case": self.case, "patient": self.patient}
        return document | {region: self.of(region) for region in REGIONS}


@dataclass(frozen=True)
class PairedDifference:
    """Candidate minus champion over the ``patients`` that both were scored on.

    ``ci95`` is None of fewer than six (``MINIMUM_PATIENTS``).
    """

    mean: float
    """The mean over patients."""
    ci95: tuple[float, float] | None
    """The 95% interval of the mean."""
    patients: tuple[str, ...]

    def at_level(self, level: float) -> tuple[float, float]:
        """Return the interval at another level than 95%.

        Raises:
            ValueError: if the patients are too few for an interval.
        """
        if self.ci95 is None:
            raise ValueError(no_interval(len(self.patients)))
        if level == CONFIDENCE:
            return self.ci95
        limits = np.array(self.ci95)
        low, high = widened(limits, np.array(self.mean), len(self.patients), level)
        return float(low), float(high)

    def as_document(self) -> dict[str, Any]:
        """Return the ``difference`` of the ``promote`` document; ``ci95`` may be None."""
        return {"mean": self.mean, "ci95": None if self.ci95 is None else list(self.ci95)}


def case_table(scores: Sequence[CaseScores]) -> pd.DataFrame:
    """Return one row per case and region, with the columns case, patient, region, *metrics."""
    rows = [
        {"case": one.case, "patient": one.patient, "region": region, **one.of(region)}
        for one in scores
        for region in REGIONS
    ]
    return pd.DataFrame(rows, columns=["case", "patient", "region", *metrics_of(scores)])


def metrics_of(scores: Sequence[CaseScores]) -> tuple[str, ...]:
    """Return the names of what every case was scored by, in order."""
    lesion_wise = bool(scores) and all(one.lesions is not None for one in scores)
    return (*METRICS, *LESION_METRICS) if lesion_wise else METRICS


def patient_table(scores: Sequence[CaseScores]) -> pd.DataFrame:
    """Return one row per patient, sorted, and one column per (metric, region).

    Values are means over the patient's cases, which therefore weigh the same.
    """
    cases = case_table(scores)
    metrics = list(metrics_of(scores))
    # Checked here, since a mean in pandas would skip a NaN and hide it.
    _require_finite(cases[metrics].to_numpy(dtype=np.float64))
    table = cases.pivot_table(index="patient", columns="region", values=metrics)
    return table[[(metric, region) for region in REGIONS for metric in metrics]]


def patient_scores(
    scores: Sequence[CaseScores], metric: Metric, region: Region | None = None
) -> dict[str, float]:
    """Return one number per patient: ``metric`` of ``region``, or its mean over all regions."""
    table = patient_table(scores)
    regions = REGIONS if region is None else (region,)
    chosen = table[[(metric, name) for name in regions]].mean(axis="columns")
    return {str(patient): float(value) for patient, value in chosen.items()}


def summarise(
    scores: Sequence[CaseScores], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[Region, dict[str, Summary]]:
    """Return mean, median and 95% interval over patients of every metric of every region.

    Below ``MINIMUM_PATIENTS`` there is no interval.
    """
    if not scores:
        raise ValueError("There are no scored cases to summarise.")
    values = patient_table(scores).to_numpy(dtype=np.float64)
    intervals = intervals_if_enough(values, seed=seed, resamples=resamples)
    columns = (
        Summary(
            mean=float(column.mean()),
            median=float(np.median(column)),
            ci95=None if limits is None else list(limits),
        )
        for column, limits in zip(values.T, intervals, strict=True)
    )
    # The columns of the table come region by region, and metric by metric within.
    metrics = metrics_of(scores)
    return {region: {metric: next(columns) for metric in metrics} for region in REGIONS}


def means_over_cases(scores: Sequence[CaseScores]) -> dict[Region, dict[str, float]] | None:
    """Return the mean of every metric of every region over cases, as the leaderboards have it.

    None where it is the mean over patients: where each of them has as many cases.
    """
    cases = case_table(scores)
    if cases["patient"].value_counts().nunique() < 2:
        return None
    metrics = metrics_of(scores)
    return {
        region: {metric: float(np.mean(of_region[metric])) for metric in metrics}
        for region in REGIONS
        for of_region in (cases[cases["region"] == region],)
    }


def evaluation_document(
    model: str, split: str, scores: Sequence[CaseScores], *, seed: int = 0
) -> dict[str, Any]:
    """Return the JSON document of ``evaluate``."""
    return {
        "model": model,
        "split": split,
        "cases": [one.as_document() for one in scores],
        "summary": summarise(scores, seed=seed),
    }


def paired_difference(
    candidate: Mapping[str, float],
    champion: Mapping[str, float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> PairedDifference:
    """Return the mean over shared patients of candidate minus champion, with its 95% interval.

    Both map a patient to one score. Patients are resampled, each with the scores of both models,
    so what makes a patient hard for both cancels out.
    """
    patients = tuple(sorted(candidate.keys() & champion.keys()))
    if not patients:
        raise ValueError("Candidate and champion were not scored on any patient in common.")
    differences = np.array([candidate[name] - champion[name] for name in patients])
    _require_finite(differences)
    (ci95,) = intervals_if_enough(differences[:, None], seed=seed, resamples=resamples)
    return PairedDifference(float(differences.mean()), ci95, patients)


def _require_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise ValueError("Every score must be a finite number, found NaN or infinity.")
