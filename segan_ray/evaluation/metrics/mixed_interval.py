"""Intervals over patients and seeds, for methods that were trained several times.

Which patients are scored and how a training run happens to end are two sources of chance. Their
intervals are put together by recovering variance estimates (Zou and Donner 2008,
doi.org/10.1002/sim.3095): the distances from the mean to each limit are added as squares. That of
the patients is the bootstrap interval of every other table, of means over seeds; that of the seeds
is Student's, of means over patients. Each holds a little of the other's variance, which makes the
whole rather too wide than too narrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from segan_ray.evaluation.metrics.intervals import CONFIDENCE, intervals_if_enough

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float64

    Scores = Float64[np.ndarray, "seed patient score"]
    Interval = tuple[float, float]


def mean_intervals(scores: Scores) -> list[Interval | None]:
    """Return the 95% interval of each score's mean over patients and seeds.

    None for each if the patients are too few, or there is a single seed.
    """
    return _mixed(scores.mean(axis=0), [scores])


def difference_intervals(ours: Scores, theirs: Scores) -> list[Interval | None]:
    """Return the 95% interval of each mean difference, paired over patients, not over seeds.

    None for each if the patients are too few, or a side has a single seed.
    """
    return _mixed(ours.mean(axis=0) - theirs.mean(axis=0), [ours, theirs])


def _mixed(
    of_patients: Float64[np.ndarray, "patient score"], sides: Sequence[Scores]
) -> list[Interval | None]:
    seeds = np.sum([_seed_half_width(side) ** 2 for side in sides], axis=0)
    if np.isnan(seeds).any():
        return [None] * of_patients.shape[1]
    return [
        None if limits is None else _widened(limits, float(mean), float(squared))
        for limits, mean, squared in zip(
            intervals_if_enough(of_patients), of_patients.mean(axis=0), seeds, strict=True
        )
    ]


def _widened(limits: Interval, mean: float, squared: float) -> Interval:
    low, high = limits
    return (
        float(mean - np.sqrt((mean - low) ** 2 + squared)),
        float(mean + np.sqrt((high - mean) ** 2 + squared)),
    )


def _seed_half_width(scores: Scores) -> Float64[np.ndarray, " score"]:
    """Return half the width of Student's interval of the seeds' means; NaN of a single seed."""
    from scipy.special import stdtrit

    count = len(scores)
    if count < 2:
        return np.full(scores.shape[2], np.nan)
    spread = scores.mean(axis=1).std(axis=0, ddof=1)
    return np.asarray(stdtrit(count - 1, (1 + CONFIDENCE) / 2) * spread / np.sqrt(count))
