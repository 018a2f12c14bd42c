from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from segan_ray.brats import REGIONS
from segan_ray.evaluation.metrics.intervals import MINIMUM_PATIENTS
from segan_ray.evaluation.metrics.region_metrics import RegionScores
from segan_ray.evaluation.metrics.scores import CaseScores
from segan_ray.evaluation.scoring.gate import first_champion, judge, level_of


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
    assert verdict.difference is not None
    assert verdict.difference.ci95 is None
    assert (verdict.tries, verdict.level, verdict.interval) == (None, None, None)


def test_a_region_that_got_worse_is_kept() -> None:
    champion = np.full((8, 3), 0.5)
    candidate = champion + np.array([0.3, 0.3, -0.1])
    verdict = judge(scores(candidate), scores(champion))
    assert verdict.verdict == "kept"
    assert "enhancing region is clearly worse" in verdict.reason


def test_more_failed_regions_are_kept_however_good_the_rest() -> None:
    champion = np.full((20, 3), 0.6)
    candidate = champion + 0.2
    assert judge(scores(candidate), scores(champion)).verdict == "promoted"
    candidate[3, 2], candidate[7, 1] = 0.05, 0.0
    for margin in (None, 0.5):
        verdict = judge(scores(candidate), scores(champion), margin=margin)
        assert verdict.verdict == "kept"
        assert verdict.failed == (2, 0)
        assert verdict.reason == (
            "It fails in 2 regions (Dice below 0.1), the champion in 0; it alone in "
            "patient7 (case case7) core 0.000, patient3 (case case3) enhancing 0.050."
        )
    # As many failures as the champion, if of others, are no more.
    champion[0, 0], champion[1, 0] = 0.099, 0.0
    verdict = judge(scores(candidate), scores(champion))
    assert (verdict.verdict, verdict.failed) == ("promoted", (2, 2))
    # A tenth is no failure.
    candidate[9, 0] = 0.1
    assert judge(scores(candidate), scores(champion)).failed == (2, 2)


def test_failures_are_said_beside_any_other_objection() -> None:
    champion = np.full((8, 3), 0.6)
    candidate = champion.copy()
    candidate[0] = 0.0
    reason = judge(scores(candidate), scores(champion)).reason
    assert reason.startswith("Dice differs by -0.075 (95% interval")
    assert "It fails in 3 regions" in reason
    few = judge(scores(candidate[:5]), scores(champion[:5])).reason
    assert few.startswith("5 patients are too few to tell; 6 are needed. It fails in 3 regions")


def test_only_the_worst_failures_are_named() -> None:
    champion = np.full((8, 3), 0.6)
    candidate = np.linspace(0.0, 0.08, 24).reshape(8, 3)
    reason = judge(scores(candidate), scores(champion)).reason
    assert reason.count("patient") - reason.count("patients") == 3
    assert reason.endswith("patient0 (case case0) enhancing 0.007 and 21 more.")


def test_a_good_visit_hides_no_failed_one() -> None:
    champion = scores(np.full((8, 3), 0.5))
    candidate = scores(np.full((8, 3), 0.9))
    again = [replace(one, case=f"{one.case}-later") for one in (candidate[0], champion[0])]
    bad = RegionScores(0.05, 1.0, 1.0, 1.0, 0.0)
    missed = replace(again[0], regions={**again[0].regions, "core": bad})
    verdict = judge([*candidate, missed], [*champion, again[1]])
    assert (verdict.verdict, verdict.failed) == ("kept", (1, 0))
    assert "patient0 (case case0-later) core 0.050" in verdict.reason


def test_every_try_needs_a_wider_interval() -> None:
    levels = [level_of(tries) for tries in range(1, 200)]
    assert levels[:2] == pytest.approx([0.95, 0.9875])
    assert levels == sorted(levels)
    # Two-sided they add up to 0.082, so that tries in one direction risk less than 0.05 together.
    assert sum(1 - level for level in levels) / 2 < 0.05


def test_a_gain_may_be_enough_for_the_first_try_and_not_for_the_tenth() -> None:
    champion = np.full((8, 3), 0.6)
    candidate = champion + np.linspace(0.0, 0.1, 8)[:, None]
    first, third, tenth = (
        judge(scores(candidate), scores(champion), tries=tries) for tries in (1, 3, 10)
    )
    assert [one.verdict for one in (first, third, tenth)] == ["promoted", "promoted", "kept"]
    assert first.difference == tenth.difference
    assert (first.tries, first.level, first.interval) == (1, 0.95, first.difference.ci95)
    assert "(95% interval 0." in first.reason
    assert "8 patients, try 1 on them)" in first.reason
    assert "(99.44% interval 0." in third.reason
    assert "(99.95% interval -0." in tenth.reason
    assert "try 10 on them): not clearly better." in tenth.reason
    assert tenth.interval is not None
    assert tenth.interval[0] < 0 < first.interval[0]
    assert "99.9995% interval" in judge(scores(candidate), scores(champion), tries=100).reason
    # The same for being no worse by a margin.
    worse = [
        judge(scores(candidate - 0.03), scores(champion), margin=0.02, tries=tries).verdict
        for tries in (1, 10)
    ]
    assert worse == ["promoted", "kept"]


def test_a_region_that_got_worse_is_judged_at_95_percent_at_every_try() -> None:
    rng = np.random.default_rng(0)
    champion = np.full((10, 3), 0.5)
    candidate = champion + np.array([0.3, 0.3, -0.03]) + rng.normal(0, 0.03, (10, 3)) * [0, 0, 1]
    for tries in (1, 10):
        verdict = judge(scores(candidate), scores(champion), tries=tries)
        assert "The enhancing region is clearly worse" in verdict.reason


def test_without_a_champion() -> None:
    assert first_champion().verdict == "promoted"
