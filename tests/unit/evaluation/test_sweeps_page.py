"""The page of sweeps side by side."""

from __future__ import annotations

from dataclasses import replace

import pytest

from segan_ray.brats import REGIONS
from segan_ray.evaluation.sweeps_page import ComparedSweep, render_sweeps
from segan_ray.search.results.progress import BestSoFar
from segan_ray.search.results.question import question
from tests.unit.evaluation.test_report import (
    Outline,
    case_scores,
    charts,
    evaluation,
    report,
    usual,
)

SPACE = """\
name: critic
parameters:
  critic.depth: {type: int, low: 1, high: 3}
budget: {trials: 9}
"""
OTHER = """\
name: rates
parameters:
  segmentor.lr: {type: float, low: 0.001, high: 0.1, log: true}
budget: {trials: 9}
"""


def compared(name: str, space: str = SPACE, **more: object) -> ComparedSweep:
    made = report(*usual())
    points = (BestSoFar(1, 0.5, 0.4), BestSoFar(7, 2.25, 0.8125))
    document = {**evaluation(), "store": "f"}
    defaults = {"asked": question(space), "progress": points, "evaluation": document}
    return ComparedSweep(sweep=replace(made.sweep, sweep=name), **(defaults | more))  # type: ignore[arg-type]


def better(dice: float) -> dict:
    made = {**evaluation(), "store": "f"}
    made["cases"] = [
        {**case, **dict.fromkeys(REGIONS, case_scores(dice))} for case in made["cases"]
    ]
    return made


def cells(page: str, first: str) -> list[str]:
    return next(row for row in Outline(page).rows if row and row[0] == first)


def test_each_sweep_has_its_line_with_epochs_and_hours() -> None:
    page = render_sweeps([compared("a"), compared("b", OTHER)])
    assert cells(page, "a")[1:6] == [
        "finished",
        "5",
        "7",
        "2 h 15 min",
        "val/dice_mean 0.812 (trial 0002)",
    ]
    drawn = charts(page)
    assert {"best-by-epochs", "best-by-hours"} <= drawn.keys()
    lines = drawn["best-by-hours"]["data"]
    assert [line["name"] for line in lines] == ["a", "b"]
    assert len({line["line"]["dash"] for line in lines}) == 2


def test_what_is_different_in_their_spaces_stands_side_by_side() -> None:
    page = render_sweeps([compared("a"), compared("b", OTHER)])
    assert cells(page, "critic.depth") == ["critic.depth", "whole numbers 1 to 3", "–"]
    assert cells(page, "segmentor.lr")[1:] == ["–", "0.001 to 0.1, logarithmic"]
    same = render_sweeps([compared("a"), compared("b")])
    assert "Their spaces are the same." in same


def test_models_on_the_same_patients_are_compared_patient_by_patient() -> None:
    page = render_sweeps([compared("a"), compared("b", evaluation=better(0.5))])
    assert "differences" in charts(page)
    row = cells(page, "a − b")
    # Patients p1 (0.6 and 0.7), p2 (0.8), p3 (0.9) against 0.5: too few for an interval.
    assert row[1:] == ["+0.283"] * 4


@pytest.mark.parametrize("change", [{"store": "g"}, {"cases": evaluation()["cases"][:2]}])
def test_models_on_other_patients_are_not(change: dict) -> None:
    other = {**better(0.5), **change}
    page = render_sweeps([compared("a"), compared("b", evaluation=other)])
    assert "differences" not in charts(page)
    assert "Scores of the model of each sweep" in page


def test_sweeps_without_scores_models_or_spaces_say_so() -> None:
    bare = compared("bare", asked=None, progress=(), evaluation=None)
    bare = replace(
        bare, sweep=replace(bare.sweep, trials=(), store="other", metric="val/dice_core")
    )
    page = render_sweeps([compared("a", evaluation=None), bare])
    assert "No model of these sweeps has been evaluated" in page
    assert "No space that can be read is recorded of bare." in page
    assert "different stores" in page
    assert "different objectives" in page
    only = render_sweeps([compared("a"), replace(bare, evaluation=None)])
    assert "Not evaluated: bare." in only


def test_names_are_text_and_never_markup() -> None:
    page = render_sweeps([compared("<b>a</b>"), compared("b")])
    assert "<b>a</b>" not in page
