"""From the scores of cases to tables, summaries over patients, and a paired comparison.

The patient is the unit everywhere: a patient's cases (visits) are averaged first, since they
are not independent and would make an interval too narrow. Intervals are percentile bootstrap
intervals of the mean (Efron and Tibshirani 1993, chapters 13 and 16), seeded, so a document can
be reproduced. Those of a paired comparison are expanded for small samples (Hesterberg 2015,
doi.org/10.1080/00031305.2015.1089789, section 5.3), since something is decided by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypedDict

import numpy as np
import pandas as pd

from segan_ray.brats import REGIONS
from segan_ray.evaluation.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jaxtyping import Float64

    from segan_ray.brats import Region
    from segan_ray.evaluation.lesions import LesionScores
    from segan_ray.evaluation.metrics import Metric, RegionScores

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 9999
BATCH: Final = 1000
"""How many resamples to draw at once; it bounds the memory."""
LESION_METRICS: Final = (
    "lesion_dice", "lesion_hd95", "lesions", "missed_lesions", "false_lesions",
)  # fmt: skip


class Summary(TypedDict):
    """One score over patients; ``ci95`` is the interval of the mean. HD95 in mm."""

    mean: float
    median: float
    ci95: list[float]


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
    """Candidate minus champion over the patients that both were scored on."""

    mean: float
    ci95: tuple[float, float]
    patients: tuple[str, ...]

    def as_document(self) -> dict[str, Any]:
        """Return the ``difference`` of the ``promote`` document."""
        return {"mean": self.mean, "ci95": list(self.ci95)}


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
    """Return mean, median and 95% interval over patients of every metric of every region."""
    if not scores:
        raise ValueError("There are no scored cases to summarise.")
    values = patient_table(scores).to_numpy(dtype=np.float64)
    intervals = bootstrap_interval(values, seed=seed, resamples=resamples)
    columns = (
        Summary(
            mean=float(of_patients.mean()),
            median=float(np.median(of_patients)),
            ci95=[float(limit) for limit in limits],
        )
        for of_patients, limits in zip(values.T, intervals, strict=True)
    )
    # The columns of the table come region by region, and metric by metric within.
    metrics = metrics_of(scores)
    return {region: {metric: next(columns) for metric in metrics} for region in REGIONS}


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
    ((low, high),) = paired_interval(differences[:, None], seed=seed, resamples=resamples)
    return PairedDifference(float(differences.mean()), (float(low), float(high)), patients)


def paired_interval(
    differences: Float64[np.ndarray, "patient score"],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Float64[np.ndarray, "score 2"]:
    """Return the 95% interval of each column's mean difference, expanded for few patients.

    A plain percentile interval is too narrow by √((n-1)/n) and takes the normal's quantile for
    Student's: of six patients it leaves out the truth in 13 of 100 cases, not 5. This one goes
    as far into the tails of the resampled means as makes up for both, and never beyond the
    smallest or largest difference; with many patients the two are the same.
    """
    level = _expanded_confidence(len(differences))
    return bootstrap_interval(differences, seed=seed, resamples=resamples, confidence=level)


def _expanded_confidence(patients: int) -> float:
    """Return the level of a percentile interval that covers a mean as Student's does."""
    from scipy.special import ndtr, stdtrit

    if patients == 1:
        return CONFIDENCE
    quantile = stdtrit(patients - 1, (1 + CONFIDENCE) / 2)
    return float(1 - 2 * ndtr(-quantile * np.sqrt(patients / (patients - 1))))


def bootstrap_interval(
    values: Float64[np.ndarray, "patient score"],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Float64[np.ndarray, "score 2"]:
    """Return the percentile bootstrap interval of each column's mean, 95% unless told.

    A single patient says nothing about spread: the interval is then that patient's value.
    """
    if len(values) == 1:
        return np.repeat(values.T, 2, axis=1)
    rng = np.random.default_rng(seed)
    patients = len(values)
    alike = np.full(patients, 1 / patients)
    # How often each patient is drawn, times the scores: far faster than gathering them.
    means = [
        rng.multinomial(patients, alike, size=min(BATCH, resamples - start)) @ values / patients
        for start in range(0, resamples, BATCH)
    ]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    return np.stack([low, high], axis=-1)


def _require_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise ValueError("Every score must be a finite number, found NaN or infinity.")
