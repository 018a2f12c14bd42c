"""The arms of a comparison side by side: summaries over patients and seeds, and differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from segan_ray.brats import REGIONS
from segan_ray.evaluation.metrics.mixed_interval import difference_intervals, mean_intervals
from segan_ray.evaluation.metrics.region_metrics import METRICS, RegionScores
from segan_ray.evaluation.metrics.scores import CaseScores, case_table, patient_table

if TYPE_CHECKING:
    from jaxtyping import Float64

INTERVAL: Final = (
    "95% over patients and seeds: the bootstrap interval over patients of means over seeds, paired "
    "over patients for differences, widened by Student's interval of the seeds' means (squares "
    "added)"
)
MEAN: Final = "mean"
COLUMNS: Final = tuple((metric, region) for metric in METRICS for region in REGIONS)


@dataclass(frozen=True)
class ScoredSeed:
    """One model of an arm: the trial that trained it, its seed and validation score, and scores."""

    trial: str
    seed: int
    validation: float
    cases: Sequence[CaseScores]

    def document(self) -> dict[str, Any]:
        """Return the entry of the arm's ``runs``."""
        table = patient_table(self.cases).mean()
        dice = {region: float(table["dice", region]) for region in REGIONS}
        return {
            "trial": self.trial,
            "seed": self.seed,
            "validation": self.validation,
            "dice": {**dice, MEAN: float(np.mean(list(dice.values())))},
        }


@dataclass(frozen=True)
class ScoredArm:
    """The winner of an arm's sweep, trained again with fresh seeds and scored on test patients.

    ``params`` counts the weights of the segmentor, ``seconds_per_epoch`` is the median over the
    epochs of all seeds, validation included; ``failed`` counts the seeds that trained no model.
    """

    arm: str
    sweep: str
    settings: Mapping[str, Any]
    params: int
    epochs: int
    seconds_per_epoch: float
    seeds: tuple[ScoredSeed, ...]
    failed: int = 0

    def scores(self) -> Float64[np.ndarray, "seed patient score"]:
        """Return the scores of each seed and patient, metric by metric and region by region.

        After the columns of ``COLUMNS`` comes Dice over the regions.
        """
        tables = [patient_table(seed.cases)[[*COLUMNS]] for seed in self.seeds]
        values = np.stack([table.to_numpy(dtype=np.float64) for table in tables])
        dice = [COLUMNS.index(("dice", region)) for region in REGIONS]
        mean = values[..., dice].mean(axis=-1, keepdims=True)
        return np.concatenate([values, mean], axis=-1)

    def document(self) -> dict[str, Any]:
        """Return the entry of ``arms`` of the ``compare`` document."""
        scores = self.scores()
        return {
            "arm": self.arm,
            "sweep": self.sweep,
            "settings": dict(self.settings),
            "params": self.params,
            "epochs": self.epochs,
            "seconds_per_epoch": self.seconds_per_epoch,
            "seeds": len(self.seeds),
            "failed_seeds": self.failed,
            "summary": _by_region(scores.mean(axis=(0, 1)), _possible(mean_intervals(scores))),
            "runs": [seed.document() for seed in self.seeds],
        }


def differences(arms: Sequence[ScoredArm]) -> list[dict[str, Any]]:
    """Return ``differences`` of the ``compare`` document: the first of each pair less the second.

    Pairs are in the order of the arms.
    """
    scores = {arm.arm: arm.scores() for arm in arms}
    return [
        {
            "arms": [one, other],
            **_by_region(
                scores[one].mean(axis=(0, 1)) - scores[other].mean(axis=(0, 1)),
                difference_intervals(scores[one], scores[other]),
            ),
        }
        for one, other in combinations(scores, 2)
    ]


def _possible(
    intervals: Sequence[tuple[float, float] | None],
) -> list[tuple[float, float] | None]:
    """Cut intervals off where no score can be: below 0, and above 1 of all but HD95."""
    most = [math.inf if metric == "hd95" else 1.0 for metric, _ in (*COLUMNS, ("dice", MEAN))]
    return [
        None if limits is None else (max(0.0, limits[0]), min(limits[1], end))
        for limits, end in zip(intervals, most, strict=True)
    ]


def _by_region(
    means: Float64[np.ndarray, " score"], intervals: Sequence[tuple[float, float] | None]
) -> dict[str, Any]:
    """Return ``{region: {metric: {"mean", "ci95"}}}``, and of the mean over regions Dice."""
    summary: dict[str, Any] = {region: {} for region in (*REGIONS, MEAN)}
    for (metric, region), mean, limits in zip(
        (*COLUMNS, ("dice", MEAN)), means, intervals, strict=True
    ):
        ci95 = None if limits is None else list(limits)
        summary[region][metric] = {"mean": float(mean), "ci95": ci95}
    return summary


def arm_table(arm: ScoredArm) -> pd.DataFrame:
    """Return one row per seed, case and region, from which ``seeds_of`` reads the seeds back."""
    parts = [
        case_table(seed.cases).assign(trial=seed.trial, seed=seed.seed, validation=seed.validation)
        for seed in arm.seeds
    ]
    return pd.concat(parts, ignore_index=True)


def seeds_of(table: pd.DataFrame) -> tuple[ScoredSeed, ...]:
    """Return the seeds of a table that ``arm_table`` made."""
    return tuple(
        ScoredSeed(
            str(trial),
            int(rows["seed"].iloc[0]),
            float(rows["validation"].iloc[0]),
            _cases_of(rows),
        )
        for trial, rows in table.groupby("trial", sort=False)
    )


def _cases_of(rows: pd.DataFrame) -> list[CaseScores]:
    return [
        CaseScores(
            str(case),
            str(of_case["patient"].iloc[0]),
            {
                row["region"]: RegionScores(**{metric: float(row[metric]) for metric in METRICS})
                for row in of_case.to_dict("records")
            },
        )
        for case, of_case in rows.groupby("case", sort=False)
    ]
