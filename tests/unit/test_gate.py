from __future__ import annotations

import numpy as np
import pytest

from segan_ray.brats import REGIONS
from segan_ray.evaluation.gate import MINIMUM_PATIENTS, first_champion, judge
from segan_ray.evaluation.metrics import RegionScores
from segan_ray.evaluation.scores import CaseScores


def scores(dice: np.ndarray) -> list[CaseScores]:
    """Return the scores of as many patients as ``dice`` (patient, region) has rows."""
    return [
        CaseScores(
            f"case{index}",
            f"patient{index}",
            {
                region: RegionScores(float(value), 1.0, 1.0, 1.0, 0.0)
                for region, value in zip(REGIONS, row, strict=True)
            },
        )
        for index, row in enumerate(dice)
    ]


def test_clearly_better_is_promoted() -> None:
    rng = np.random.default_rng(0)
    champion = rng.uniform(0.5, 0.7, (8, 3))
    verdict = judge(scores(champion + 0.1), scores(champion))
    assert verdict.verdict == "promoted"
    assert verdict.difference is not None
    assert verdict.difference.mean == np.float64(0.1).item() or verdict.difference.mean > 0.099


def test_equal_is_kept() -> None:
    champion = np.full((8, 3), 0.6)
    verdict = judge(scores(champion), scores(champion))
    assert verdict.verdict == "kept"
    assert verdict.reason == "It scores the same as the champion on all 8 patients."
    assert verdict.difference is not None
    assert verdict.difference.ci95 == (0, 0)


def test_the_same_gain_in_every_patient_is_certain() -> None:
    champion = np.full((MINIMUM_PATIENTS, 3), 0.6)
    verdict = judge(scores(champion + 0.001), scores(champion))
    assert verdict.verdict == "promoted"
    assert verdict.difference is not None
    assert verdict.difference.ci95 == pytest.approx((0.001, 0.001))


def test_the_verdict_is_reproducible() -> None:
    rng = np.random.default_rng(2)
    champion, candidate = rng.uniform(0.4, 0.8, (2, 10, 3))
    assert judge(scores(candidate), scores(champion)) == judge(scores(candidate), scores(champion))


def test_a_margin_lets_equals_and_slightly_worse_pass() -> None:
    champion = np.full((8, 3), 0.6)
    for loss in (0.0, 0.01):
        verdict = judge(scores(champion - loss), scores(champion), margin=0.02)
        assert verdict.verdict == "promoted"
        assert "not worse by more than 0.02 (95% interval" in verdict.reason
    assert judge(scores(champion - 0.03), scores(champion), margin=0.02).verdict == "kept"


def test_a_margin_says_better_of_what_is_better() -> None:
    champion = np.full((8, 3), 0.6)
    assert "better by 0.100" in judge(scores(champion + 0.1), scores(champion), margin=0.02).reason


def test_a_margin_holds_for_every_region() -> None:
    champion = np.full((8, 3), 0.6)
    for loss, expected in ((0.01, "promoted"), (0.05, "kept")):
        candidate = champion + np.array([0.01, 0.01, -loss])
        assert judge(scores(candidate), scores(champion), margin=0.02).verdict == expected
    verdict = judge(scores(candidate + 0.01), scores(champion), margin=0.02)
    assert "enhancing region is clearly worse, by more than 0.02" in verdict.reason


def test_a_wide_interval_is_no_proof_of_being_no_worse() -> None:
    rng = np.random.default_rng(3)
    champion = rng.uniform(0.3, 0.8, (6, 3))
    noise = rng.normal(0, 0.1, (6, 3))
    verdict = judge(scores(champion + noise - noise.mean()), scores(champion), margin=0.02)
    assert verdict.verdict == "kept"
    assert "not clearly within 0.02" in verdict.reason


def test_noise_is_kept() -> None:
    rng = np.random.default_rng(1)
    champion = rng.uniform(0.4, 0.8, (10, 3))
    noise = rng.normal(0, 0.05, (10, 3))
    assert judge(scores(champion + noise - noise.mean()), scores(champion)).verdict == "kept"


def test_too_few_patients_are_kept_however_good() -> None:
    champion = np.full((MINIMUM_PATIENTS - 1, 3), 0.2)
    verdict = judge(scores(champion + 0.5), scores(champion))
    assert verdict.verdict == "kept"
    assert "too few" in verdict.reason


def test_a_region_that_got_worse_is_kept() -> None:
    champion = np.full((8, 3), 0.5)
    candidate = champion + np.array([0.3, 0.3, -0.1])
    verdict = judge(scores(candidate), scores(champion))
    assert verdict.verdict == "kept"
    assert "enhancing region is clearly worse" in verdict.reason


def test_with_nobody_to_beat() -> None:
    assert first_champion().verdict == "promoted"
