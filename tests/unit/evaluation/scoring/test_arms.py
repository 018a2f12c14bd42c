"""The arms of a comparison side by side, as a document, a table and a page."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from segan_ray.brats import REGIONS
from segan_ray.evaluation.comparison_page import render_comparison
from segan_ray.evaluation.metrics.region_metrics import RegionScores
from segan_ray.evaluation.metrics.scores import CaseScores
from segan_ray.evaluation.scoring.arms import (
    INTERVAL,
    ScoredArm,
    ScoredSeed,
    arm_table,
    differences,
    seeds_of,
)


def arm(name: str, level: float, *, seeds: int = 3, patients: int = 8) -> ScoredArm:
    rng = np.random.default_rng(patients)
    hard = rng.uniform(-0.1, 0.1, patients)  # the same patients for every arm

    def case(patient: int, seed: int) -> CaseScores:
        dice = level + hard[patient] + 0.01 * seed
        scores = RegionScores(dice, precision=0.9, sensitivity=0.8, specificity=1.0, hd95=4.0)
        return CaseScores(f"case{patient}", f"P{patient}", dict.fromkeys(REGIONS, scores))

    return ScoredArm(
        arm=name,
        sweep=f"sweep-{name}",
        settings={"segmentor.lr": 0.001, "loss.scale_weights": [0.5, 2.0]},
        params=1234,
        epochs=4,
        seconds_per_epoch=2.5,
        seeds=tuple(
            ScoredSeed(
                f"{seed:03d}", seed, 0.5, [case(patient, seed) for patient in range(patients)]
            )
            for seed in range(seeds)
        ),
    )


def document(*arms: ScoredArm, patients: int = 8) -> dict[str, Any]:
    return {
        "comparison": "methods",
        "store": "abc",
        "patients": patients,
        "equal": "epochs",
        "budget": {"trials": {}, "epochs": 4, "seeds": 3},
        "interval": INTERVAL,
        "arms": [each.document() for each in arms],
        "unscored": ["dead & gone"],
        "differences": differences(arms),
    }


def test_every_pair_is_compared_the_first_less_the_second() -> None:
    found = differences([arm("a", 0.8), arm("b", 0.7), arm("c", 0.7)])
    assert [pair["arms"] for pair in found] == [["a", "b"], ["a", "c"], ["b", "c"]]
    for region in (*REGIONS, "mean"):
        assert found[0][region]["dice"]["mean"] == pytest.approx(0.1)
        low, high = found[0][region]["dice"]["ci95"]
        # Patients cancel out, as both arms find the same ones hard; seeds do not.
        assert 0.05 < low < 0.1 < high < 0.15
        assert found[2][region]["dice"]["mean"] == pytest.approx(0)


def test_a_summary_is_over_patients_and_seeds() -> None:
    found = arm("a", 0.8)
    (wanted,) = {round(float(value), 6) for value in (found.scores()[..., -1].mean(),)}
    made = found.document()
    assert made["summary"]["mean"]["dice"]["mean"] == pytest.approx(wanted)
    assert made["summary"]["core"]["hd95"]["mean"] == 4.0
    assert made["seeds"] == 3
    assert [run["seed"] for run in made["runs"]] == [0, 1, 2]
    assert made["runs"][2]["dice"]["mean"] - made["runs"][0]["dice"]["mean"] == pytest.approx(0.02)


def test_no_interval_goes_where_no_score_can_be() -> None:
    found = arm("a", 0.88, seeds=2).document()["summary"]["whole"]["dice"]["ci95"]
    assert found[1] <= 1


def test_the_seeds_come_back_from_their_table() -> None:
    before = arm("a", 0.8)
    again = seeds_of(arm_table(before))
    assert [(seed.trial, seed.seed, seed.validation) for seed in again] == [
        (seed.trial, seed.seed, seed.validation) for seed in before.seeds
    ]
    assert [list(seed.cases) for seed in again] == [list(seed.cases) for seed in before.seeds]


def test_the_page_shows_arms_differences_seeds_and_settings_as_text() -> None:
    page = render_comparison(document(arm("<b>a</b>", 0.8), arm("b", 0.7)))
    assert "<b>a</b>" not in page
    assert "no seed trained a model: dead &amp; gone." in page
    assert "&lt;b&gt;a&lt;/b&gt; − b" in page
    assert re.search(r"<strong class=number>\+0\.100</strong>", page)
    assert "<td>1,234</td><td>2.5</td><td>4</td><td>3</td><td>0</td>" in page
    assert "[0.5, 2]" in page
    assert page.count('<th scope="row">b</th>') == 3 + 2  # seeds, costs, and settings


def test_the_page_of_one_seed_has_no_intervals() -> None:
    single = document(arm("a", 0.8, seeds=1), arm("b", 0.7, seeds=1))
    assert single["arms"][0]["summary"]["mean"]["dice"]["ci95"] is None
    assert "a single seed does not tell" in render_comparison(single)


def test_the_page_of_few_patients_has_no_intervals() -> None:
    few = document(arm("a", 0.8, patients=3), arm("b", 0.7, patients=3), patients=3)
    assert few["differences"][0]["mean"]["dice"]["ci95"] is None
    assert "3 patients are too few" in render_comparison(few)
