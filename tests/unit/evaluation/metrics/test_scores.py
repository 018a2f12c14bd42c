"""Tables, summaries over patients, and the paired comparison."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segan_ray.brats import REGIONS
from segan_ray.evaluation.metrics.intervals import (
    MINIMUM_PATIENTS,
    bootstrap_interval,
    expanded_interval,
    no_interval,
)
from segan_ray.evaluation.metrics.region_metrics import METRICS, RegionScores
from segan_ray.evaluation.metrics.scores import (
    CaseScores,
    case_table,
    evaluation_document,
    means_over_cases,
    paired_difference,
    patient_scores,
    patient_table,
    summarise,
)

unit_floats = st.floats(0, 1, allow_nan=False)


def region_scores(dice: float, hd95: float = 1.0) -> RegionScores:
    return RegionScores(dice=dice, precision=0.5, sensitivity=0.25, specificity=0.75, hd95=hd95)


def scored(case: str, patient: str, dice: float, *, core: float | None = None) -> CaseScores:
    return CaseScores(
        case=case,
        patient=patient,
        regions={
            "whole": region_scores(dice),
            "core": region_scores(dice if core is None else core, hd95=20.0),
            "enhancing": region_scores(dice / 2, hd95=300.0),
        },
    )


# P1 was seen twice, all others once.
COHORT = (
    scored("P2-0", "P2", 0.9),
    scored("P1-0", "P1", 0.2),
    scored("P3-0", "P3", 0.4),
    scored("P1-1", "P1", 0.4),
)
SIX = (*COHORT, *(scored(f"P{i}-0", f"P{i}", 0.6) for i in (4, 5, 6)))


def test_case_table_has_a_row_per_case_and_region() -> None:
    table = case_table(COHORT)
    assert list(table.columns) == ["case", "patient", "region", *METRICS]
    assert list(table["region"]) == list(REGIONS) * 4
    assert list(table["case"].unique()) == ["P2-0", "P1-0", "P3-0", "P1-1"]
    row = table[(table["case"] == "P1-1") & (table["region"] == "enhancing")].iloc[0]
    assert row["dice"] == 0.2
    assert row["hd95"] == 300.0


def test_case_table_of_nothing_has_its_columns() -> None:
    assert list(case_table(()).columns) == ["case", "patient", "region", *METRICS]


def test_patient_table_averages_a_patients_cases() -> None:
    table = patient_table(COHORT)
    assert list(table.index) == ["P1", "P2", "P3"]
    assert list(table[("dice", "whole")]) == pytest.approx([0.3, 0.9, 0.4])
    columns = [(metric, region) for region in REGIONS for metric in METRICS]
    assert table.columns.equals(pd.MultiIndex.from_tuples(columns))


def test_patient_scores_of_a_region_and_of_all() -> None:
    cases = (scored("a", "A", 0.6, core=0.3), scored("b", "B", 0.8))
    assert patient_scores(cases, "dice", "core") == pytest.approx({"A": 0.3, "B": 0.8})
    # The enhancing region has half the Dice of the whole: (0.6 + 0.3 + 0.3) / 3.
    assert patient_scores(cases, "dice") == pytest.approx({"A": 0.4, "B": 2 / 3})


def test_summary_weighs_patients_not_cases() -> None:
    dice = summarise(COHORT)["whole"]["dice"]
    assert dice["mean"] == pytest.approx((0.3 + 0.9 + 0.4) / 3)
    assert dice["median"] == pytest.approx(0.4)
    dice = summarise(SIX)["whole"]["dice"]
    assert dice["mean"] == pytest.approx((0.3 + 0.9 + 0.4 + 3 * 0.6) / 6)
    # Its mean is that of the patients, as if P1 had been seen once.
    once = [one for one in SIX if one.patient != "P1"] + [scored("P1-2", "P1", 0.3)]
    assert dice["ci95"] == pytest.approx(summarise(once)["whole"]["dice"]["ci95"])


def test_means_over_cases_weigh_cases() -> None:
    means = means_over_cases(COHORT)
    assert means is not None
    assert tuple(means) == REGIONS
    assert tuple(means["core"]) == METRICS
    assert means["whole"]["dice"] == pytest.approx((0.9 + 0.2 + 0.4 + 0.4) / 4)
    assert means["enhancing"]["hd95"] == 300.0


def test_where_patients_have_as_many_cases_there_are_no_other_means() -> None:
    assert means_over_cases(COHORT[:3]) is None
    twice = [replace(one, case=f"{one.case}-{visit}") for one in COHORT[:3] for visit in "ab"]
    assert means_over_cases(twice) is None


def test_summary_holds_every_score_in_its_place() -> None:
    summary = summarise(SIX)
    assert tuple(summary) == REGIONS
    assert all(tuple(summary[region]) == METRICS for region in REGIONS)
    assert [summary[region]["hd95"]["mean"] for region in REGIONS] == pytest.approx([1, 20, 300])
    assert summary["core"]["sensitivity"]["ci95"] == [0.25, 0.25]
    assert summary["enhancing"]["dice"]["median"] == pytest.approx(0.3)


def test_summary_is_reproducible_and_ignores_order() -> None:
    random = np.random.default_rng(0)
    cases = [scored(f"c{i}", f"p{i}", float(x)) for i, x in enumerate(random.random(30))]
    assert summarise(cases, seed=3) == summarise(cases[::-1], seed=3)
    assert summarise(cases, seed=3) != summarise(cases, seed=4)


def test_many_visits_do_not_narrow_the_interval() -> None:
    once = [scored(f"p{i}-0", f"p{i}", i / 8) for i in range(8)]
    often = [replace(one, case=f"{one.case}-{visit}") for one in once for visit in range(10)]
    narrow, wide = (summarise(cases)["whole"]["dice"]["ci95"] for cases in (often, once))
    assert narrow == pytest.approx(wide)


def test_interval_is_near_that_of_a_normal_mean() -> None:
    dice = np.clip(np.random.default_rng(0).normal(0.6, 0.1, size=400), 0, 1)
    low, high = summarise([scored(f"c{i}", f"p{i}", float(x)) for i, x in enumerate(dice)])[
        "whole"
    ]["dice"]["ci95"]
    half = 1.96 * dice.std() / math.sqrt(len(dice))
    assert [low, high] == pytest.approx([dice.mean() - half, dice.mean() + half], abs=half * 0.1)


@pytest.mark.parametrize("patients", range(1, MINIMUM_PATIENTS + 1))
def test_few_patients_have_no_interval(patients: int) -> None:
    # Three visits of one patient are no three patients.
    cases = [scored(f"c{i}{visit}", f"p{i}", 0.7) for i in range(patients) for visit in "abc"]
    dice = summarise(cases)["whole"]["dice"]
    few = patients < MINIMUM_PATIENTS
    assert dice["ci95"] == (None if few else pytest.approx([0.7, 0.7]))
    assert (dice["mean"], dice["median"]) == pytest.approx((0.7, 0.7))
    values = {f"p{i}": 0.5 for i in range(patients)}
    difference = paired_difference(values, values)
    assert difference.ci95 == (None if few else (0, 0))
    json.dumps(difference.as_document(), allow_nan=False)
    if few:
        with pytest.raises(ValueError, match="too few"):
            difference.at_level(0.99)


def test_why_there_is_no_interval() -> None:
    assert no_interval(1) == "No intervals: 1 patient is too few for one, 6 are needed."
    assert no_interval(5) == "No intervals: 5 patients are too few for one, 6 are needed."


def test_a_summary_has_the_expanded_interval() -> None:
    dice = np.array([0.1, 0.5, 0.6, 0.7, 0.8, 0.9])
    cases = [scored(f"c{i}", f"p{i}", float(x)) for i, x in enumerate(dice)]
    low, high = summarise(cases)["whole"]["dice"]["ci95"]
    (plain,) = bootstrap_interval(dice[:, None], seed=0)
    assert low < plain[0]
    assert plain[1] < high
    assert (low, high) == pytest.approx(tuple(expanded_interval(dice[:, None])[0]))


def test_document_is_json_with_the_promised_keys() -> None:
    document = evaluation_document("segan@champion", "test", COHORT)
    document = json.loads(json.dumps(document, allow_nan=False))
    assert list(document) == ["model", "split", "cases", "summary"]
    assert [case["case"] for case in document["cases"]] == ["P2-0", "P1-0", "P3-0", "P1-1"]
    assert list(document["cases"][0]) == ["case", "patient", *REGIONS]
    assert document["cases"][1]["enhancing"] == {
        "dice": 0.1,
        "precision": 0.5,
        "sensitivity": 0.25,
        "specificity": 0.75,
        "hd95": 300.0,
    }
    assert list(document["summary"]["core"]["hd95"]) == ["mean", "median", "ci95"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    # The patient's other case is fine, and must not hide this one.
    with pytest.raises(ValueError, match="finite"):
        summarise([*COHORT, scored("P1-2", "P1", bad)])
    with pytest.raises(ValueError, match="finite"):
        paired_difference({"A": bad}, {"A": 0.5})


def test_nothing_to_summarise_is_refused() -> None:
    with pytest.raises(ValueError, match="no scored cases"):
        summarise([])


def test_paired_difference_of_shared_patients() -> None:
    same = dict.fromkeys("DEF", 0.5)
    candidate = {"A": 0.9, "B": 0.5, "C": 0.7, "only candidate": 0.0, **same}
    champion = {"C": 0.6, "B": 0.5, "A": 0.6, "only champion": 1.0, **same}
    difference = paired_difference(candidate, champion)
    assert difference.patients == ("A", "B", "C", "D", "E", "F")
    assert difference.mean == pytest.approx((0.3 + 0.0 + 0.1) / 6)
    assert difference.ci95 is not None
    assert difference.ci95[0] == 0.0
    document = json.loads(json.dumps(difference.as_document()))
    assert document == {"mean": difference.mean, "ci95": list(difference.ci95)}


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=9), st.floats(0.95, 0.9999))
@settings(max_examples=25, deadline=None)
def test_a_higher_level_has_a_wider_interval(values: list[float], level: float) -> None:
    ours = {f"p{i}": value for i, value in enumerate(values)}
    difference = paired_difference(ours, dict.fromkeys(ours, 0.0), resamples=200)
    assert difference.at_level(0.95) == difference.ci95
    low, high = difference.at_level(level)
    assert difference.ci95 is not None
    rounding = 1e-12
    assert low <= difference.ci95[0] + rounding
    assert difference.ci95[1] - rounding <= high
    # An interval that is without width stays so: the same in all patients is certain.
    constant = paired_difference(ours, {name: value - 0.25 for name, value in ours.items()})
    assert constant.at_level(level) == pytest.approx((0.25, 0.25))


def test_a_constant_gain_is_certain_however_patients_vary() -> None:
    champion = {f"p{i}": i / 10 for i in range(8)}
    candidate = {patient: score + 0.05 for patient, score in champion.items()}
    difference = paired_difference(candidate, champion)
    assert (difference.mean, *difference.ci95) == pytest.approx((0.05, 0.05, 0.05))


def test_paired_difference_is_reproducible_and_ignores_order() -> None:
    random = np.random.default_rng(0)
    candidate, champion = (
        {f"p{i:02}": float(x) for i, x in enumerate(random.random(20))} for _ in range(2)
    )
    backwards = dict(reversed(candidate.items()))
    assert paired_difference(candidate, champion) == paired_difference(backwards, champion)
    assert paired_difference(candidate, champion, seed=1).ci95 != pytest.approx(
        paired_difference(candidate, champion, seed=2).ci95, abs=1e-9
    )


def test_no_shared_patient_is_refused() -> None:
    with pytest.raises(ValueError, match="in common"):
        paired_difference({"A": 0.5}, {"B": 0.5})


@given(st.dictionaries(st.text(max_size=3), st.tuples(unit_floats, unit_floats), min_size=6))
@settings(max_examples=25, deadline=None)
def test_interval_lies_within_the_differences(pairs: dict[str, tuple[float, float]]) -> None:
    candidate, champion = ({name: pair[i] for name, pair in pairs.items()} for i in range(2))
    difference = paired_difference(candidate, champion, resamples=100)
    differences = [a - b for a, b in pairs.values()]
    assert difference.ci95 is not None
    low, high = difference.ci95
    rounding = 1e-12
    assert min(differences) - rounding <= low <= high <= max(differences) + rounding
