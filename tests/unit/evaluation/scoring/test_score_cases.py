"""Scores of cases: over the original grid, and of the label map that would be written."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from segan_ray.data.layouts.cases import layout_named
from segan_ray.data.store.opened_store import PreparedCase, TuningCases
from segan_ray.evaluation.metrics.lesions import score_case_lesions
from segan_ray.evaluation.metrics.region_metrics import score_case
from segan_ray.evaluation.scoring.score_cases import score_cases


def test_a_perfect_prediction_scores_perfectly(tuning_cases: TuningCases) -> None:
    def truth(case: PreparedCase) -> np.ndarray:
        return np.stack([case.mask() & (1 << bit) != 0 for bit in range(3)])

    for scores in score_cases(truth, tuning_cases.val):
        for region in scores.regions.values():
            assert (region.dice, region.hd95) == (1.0, 0.0)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), share=st.sampled_from([0.0, 0.02, 0.4]))
def test_what_is_scored_is_what_a_label_map_says(
    tuning_cases: TuningCases, seed: int, share: float
) -> None:
    case = tuning_cases.val[0]
    maps = np.random.default_rng(seed).random((3, *case.mask().shape)) < share
    code = layout_named("brats2021").code
    written = code.regions(code.labels(case.restore(maps)))
    expected = score_case(written, case.truth(), case.record.spacing_mm)
    (found,) = score_cases(lambda _: maps, [case], lesion_wise=share < 0.4)
    assert found.regions == expected
    if found.lesions is not None:
        assert found.lesions == score_case_lesions(written, case.truth(), case.record.spacing_mm)
