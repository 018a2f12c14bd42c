"""The reference of FLAIR thresholds, tuned on the training patients."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement

import numpy as np

from segan_ray.brats import as_written
from segan_ray.data.store.opened_store import BRAIN_BIT, PreparedCase, TuningCases
from segan_ray.evaluation.metrics.region_metrics import overlap
from segan_ray.evaluation.scoring.threshold import CANDIDATES, FLAIR, tuned_threshold


def test_thresholds_are_the_best_of_those_that_give_nested_regions(
    tuning_cases: TuningCases,
) -> None:
    cases = tuning_cases.train[:2]
    predict = tuned_threshold(cases)

    def dice(region: int, found: Callable[[PreparedCase], np.ndarray]) -> float:
        pairs = [(found(case), case.mask() & (1 << region) != 0) for case in cases]
        return float(np.mean([overlap(*pair).dice for pair in pairs]))

    def above(threshold: float) -> Callable[[PreparedCase], np.ndarray]:
        return lambda case: (
            (case.image()[:, FLAIR].astype(np.float32) > threshold) & (case.mask() & BRAIN_BIT != 0)
        )

    tried = CANDIDATES[::6]
    by_region = [[dice(region, above(threshold)) for threshold in tried] for region in range(3)]
    best = max(
        sum(by_region[region][index] for region, index in enumerate(indices))
        for indices in combinations_with_replacement(range(len(tried)), 3)
    )
    assert (
        sum(dice(region, lambda case, at=region: predict(case)[at]) for region in range(3)) >= best
    )
    for case in cases:
        np.testing.assert_array_equal(predict(case), as_written(predict(case)))
