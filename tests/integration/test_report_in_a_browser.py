"""The report in a browser without a network: it draws, says nothing, and fits a phone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from segan_ray.evaluation.report import SweepReport, write_report
from segan_ray.evaluation.sweeps_page import render_sweeps
from segan_ray.filesystem.atomic_files import write_text
from segan_ray.search.results.ranking import rank
from tests.integration.browsing import chromium
from tests.unit.evaluation.test_report import evaluation, picture, report, trial, usual
from tests.unit.evaluation.test_sweeps_page import OTHER, compared

pytestmark = pytest.mark.full

QUIET = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update",
)  # fmt: skip
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with chromium(QUIET) as launched:
        yield launched


def whole() -> SweepReport:
    """Return a report that has something in every section."""
    names = ("val/dice_mean", "time/epoch_s")
    trials = [
        replace(one, objectives={names[0]: one.score or 0.0, names[1]: 9.0 + index})
        for index, one in enumerate((*usual(), trial(5, score=0.6), trial(6, score=0.7)))
    ]
    given = report(
        *trials,
        evaluation=evaluation(),
        showcase={"best": picture(1200), "median": picture(1201), "worst": picture(1202)},
        provenance={"Commands to reproduce": f"segan-ray tune {'long' * 50}"},
    )
    objectives = ((names[0], "max"), (names[1], "min"))
    sweep = replace(given.sweep, sweep="a" * 100, objectives=objectives, trials=rank(trials, "max"))
    return replace(given, sweep=sweep)


def shown(browser, folder: Path, given: SweepReport, viewport: dict):
    """Open the report offline."""
    out = folder / "report.html"
    write_report(given, out)
    return opened(browser, out, viewport)


def opened(browser, out: Path, viewport: dict):
    """Open a page offline; fail on anything on the console, and on any request."""
    context = browser.new_context(viewport=viewport, offline=True)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(request.url))
    page.goto(out.as_uri())
    page.wait_for_load_state("networkidle")
    assert said == []
    return page


@pytest.mark.parametrize("viewport", [PHONE, {"width": 1280, "height": 900}], ids=["phone", "desk"])
def test_every_chart_is_drawn_and_nothing_sticks_out(browser, tmp_path, viewport) -> None:
    page = shown(browser, tmp_path, whole(), viewport)
    charts = page.locator("figure.chart > div")
    assert charts.count() == 8
    for chart in charts.all():
        assert chart.locator(".main-svg").count() > 0
        assert chart.locator(".trace, .point, path.js-line").count() > 0
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= viewport["width"]


@pytest.mark.parametrize("viewport", [PHONE, {"width": 1280, "height": 900}], ids=["phone", "desk"])
def test_sweeps_side_by_side_are_drawn_and_nothing_sticks_out(browser, tmp_path, viewport) -> None:
    out = tmp_path / "sweeps.html"
    write_text(out, render_sweeps([compared("a" * 60), compared("b", OTHER)]))
    page = opened(browser, out, viewport)
    charts = page.locator("figure.chart > div")
    assert charts.count() == 4
    for chart in charts.all():
        assert chart.locator(".trace").count() > 0
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= viewport["width"]


@pytest.mark.parametrize(
    "given",
    [report(), report(trial(0, "failed", None, epochs=0, reason="<script>boom()</script>"))],
    ids=["nothing", "failed"],
)
def test_a_page_with_little_to_show_fits_a_phone(browser, tmp_path, given) -> None:
    page = shown(browser, tmp_path, given, PHONE)
    assert page.locator("p.missing").count() >= 6
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    if given.sweep.trials:
        assert page.get_by_text("<script>boom()</script>").count() == 1


def test_it_prints_with_pictures_whole(browser, tmp_path) -> None:
    page = shown(browser, tmp_path, whole(), PHONE)
    page.emulate_media(media="print")
    rule = "getComputedStyle(document.querySelector('figure')).breakInside"
    assert page.evaluate(rule) == "avoid"
    assert page.pdf(format="A4").startswith(b"%PDF")
