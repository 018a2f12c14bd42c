"""The page of a sweep: self-contained, safe, complete, and made of every kind of sweep."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from PIL import Image
from plotly.offline import get_plotlyjs

from segan_ray.brats import REGIONS
from segan_ray.errors import DataError
from segan_ray.evaluation.report import Promoted, SweepReport, render_report, write_report
from segan_ray.evaluation.report.sections.curves import THIN, thinned
from segan_ray.search.results.ranking import SweepRecord, TrialRecord, rank
from segan_ray.search.space.space_file import load_space, resolve_space
from segan_ray.search.study.sweep_study import SweepStudy
from tests.unit.shipped import SPACES

EVIL = '</script><script>alert("x")</script><img src=http://evil.example/x onerror=alert(1)>'
PNG = b"\x89PNG\r\n\x1a\n not much of a picture"
SHIPPED = [file.stem for file in SPACES]
VOID = {"meta", "img", "br", "wbr", "link", "input", "hr"}


class Outline(HTMLParser):
    """Elements in order with their attributes and text; refuses what is not nested well."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"} and "tr" in self._open:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def row(self, trial: str) -> list[str]:
        return next(row for row in self.rows if len(row) > 1 and row[1] == trial)


def trial(number: int, status="completed", score: float | None = 0.5, **more) -> TrialRecord:
    params = {
        "segmentor.lr": 0.000125 * (number + 1),
        "critic.depth": 1 + number % 3,
        "training.optimizer": ("adam", "adamw")[number % 2],
        "loss.scale_weights": [0.52, 1.1, 3.0][: 2 + number % 2],
    }
    defaults = {"epochs": 4, "mlflow_run": f"run{number}", "params": params}
    return TrialRecord(f"{number:04d}", status, score=score, **(defaults | more))


def report(*trials: TrialRecord, **more) -> SweepReport:
    sweep = SweepRecord(
        sweep="critic",
        status="finished",
        metric="val/dice_mean",
        mode="max",
        store="9f3c1a7b",
        created="2026-03-02T09:15:00+00:00",
        trials=rank(trials, "max"),
    )
    defaults = {
        "space": "name: critic\nobjective: {metric: val/dice_mean}\n",
        "histories": {
            one.trial: [(epoch, 0.1 * epoch) for epoch in range(1, one.epochs + 1)]
            for one in trials
        },
        "overlay_png": None,
        "evaluation": None,
        "provenance": {"Git commit": "4be1d0c", "Commands": "segan-ray tune store --space F"},
    }
    return SweepReport(sweep=sweep, **(defaults | more))


def usual() -> tuple[TrialRecord, ...]:
    reason = "CUDA out of memory."
    return (
        trial(0, score=0.71234),
        trial(1, "stopped", 0.4),
        trial(2, score=0.8125),
        trial(3, "failed", None, reason=reason),
        trial(4, "failed", None, reason=reason),
    )


def summary(dice: float, hd95: float) -> dict:
    def one(mean: float) -> dict:
        return {"mean": mean, "median": mean, "ci95": [mean * 0.9, mean * 1.1]}

    scores = {"dice": dice, "precision": 0.9, "sensitivity": 0.8, "specificity": 1.0, "hd95": hd95}
    return {region: {name: one(mean) for name, mean in scores.items()} for region in REGIONS}


def case_scores(dice: float) -> dict:
    return {"dice": dice, "precision": 0.9, "sensitivity": 0.8, "specificity": 1.0, "hd95": 4.0}


def evaluation() -> dict:
    patients = ("p1", "p1", "p2", "p3")  # one patient has two visits
    return {
        "model": "models:/segan@champion",
        "split": "test",
        "cases": [
            {"case": f"c{i}", "patient": one, **dict.fromkeys(REGIONS, case_scores(0.6 + i / 10))}
            for i, one in enumerate(patients)
        ],
        "summary": summary(0.8642, 4.25),
        "references": {"threshold": summary(0.4218, 31.06), "unet": summary(0.8517, 5.14)},
        "comparisons": [
            comparison("threshold", 0.4424, 0.3, 0.5),
            comparison("unet", 0.0125, -0.004, 0.031),
        ],
    }


def comparison(against: str, mean: float, low: float, high: float) -> dict:
    difference = {name: {"mean": mean, "ci95": [low, high]} for name in (*REGIONS, "mean")}
    return {
        "model": "models:/segan@champion", "against": against, "difference": difference,
        "patients": 3,
    }  # fmt: skip


def markup(page: str) -> str:
    """Return the page without Plotly's own code."""
    library = get_plotlyjs()
    assert page.count(library) == 1
    return page.replace(library, "")


def charts(page: str) -> dict[str, dict]:
    pattern = r'<script type="application/json" data-chart="chart-([\w-]+)">(.*?)</script>'
    return {name: json.loads(data) for name, data in re.findall(pattern, page, flags=re.DOTALL)}


def test_page_loads_nothing_from_anywhere():
    page = markup(render_report(report(*usual(), overlay_png=PNG, evaluation=evaluation())))
    outline = Outline(page)
    sources = [
        value
        for _, attributes in outline.elements
        for name, value in attributes.items()
        if name in {"src", "href", "srcset", "data", "action", "poster"}
    ]
    assert sources
    assert all(value.startswith(("#", "data:")) for value in sources)
    assert outline.named("link") == []
    assert "@import" not in page
    assert "url(" not in page
    assert "http:" not in page
    assert "https:" not in page


def test_page_is_a_document_with_language_title_headings_and_alternatives():
    page = markup(render_report(report(*usual(), overlay_png=PNG, evaluation=evaluation())))
    outline = Outline(page)
    assert page.startswith("<!DOCTYPE html>")
    assert outline.named("html") == [{"lang": "en"}]
    assert any(meta.get("name") == "viewport" for meta in outline.named("meta"))
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    (picture,) = outline.named("img")
    assert picture["alt"]
    assert "example." not in page
    assert all(cell.get("scope") for cell in outline.named("th"))
    anchors = {link["href"] for link in outline.named("a")}
    assert anchors == {f"#{part['id']}" for part in outline.named("section")}


def test_leaderboard_shows_the_numbers_given():
    outline = Outline(markup(render_report(report(*usual()))))
    best = outline.row("0002")
    assert best[0] == "1 ★"
    assert best[2:] == ["0.8125", "●completed", "4", "0.000375", "3", "adam", "0.52, 1.1"]
    assert outline.row("0000")[2] == "0.7123"
    assert outline.row("0001")[2:5] == ["0.4000", "■stopped early", "4"]
    assert outline.row("0001")[-1] == "0.52, 1.1, 3.0"
    assert outline.row("0003")[:5] == ["–", "0003", "–", "✕failed", "4"]


def test_a_parameter_that_a_trial_did_not_draw_is_a_dash():
    some = trial(0, params={"critic.depth": 2}), trial(1, params={"critic.lr": 6.25e-05})
    outline = Outline(markup(render_report(report(*some))))
    assert outline.row("0000")[-2:] == ["2", "–"]
    assert outline.row("0001")[-2:] == ["–", "6.25e-5"]


def test_evaluation_stands_beside_its_references_with_its_patients():
    page = markup(render_report(report(*usual(), evaluation=evaluation())))
    champion, threshold, unet = (
        next(row for row in Outline(page).rows if row[0].startswith(name))
        for name in ("Champion", "Threshold", "U-Net")
    )
    assert champion[1:3] == ["0.864 0.778–0.951", "4.2 3.8–4.7"]
    assert threshold[1:3] == ["0.422 0.380–0.464", "31.1 28.0–34.2"]
    assert unet[1].startswith("0.852 ")
    assert "3 test patients (4 cases)" in page
    # Best of a column: the highest Dice and the lowest distance, both the champion's.
    assert "<strong>0.864</strong>" in page
    assert "<strong>4.2</strong>" in page
    assert "<strong>31.1</strong>" not in page


def test_headline_names_best_trial_evaluation_and_how_trials_ended():
    page = markup(render_report(report(*usual(), evaluation=evaluation())))
    lead = re.sub("<[^>]+>", "", re.search('<p class="lead">(.*?)</p>', page).group(1))
    assert lead == (
        "Trial 0002 won: it reached val/dice_mean 0.812. On 3 test patients the evaluated "
        "model reaches a whole-tumour Dice of 0.864 (95% interval 0.778–0.951). "
        "5 trials: 2 completed, 1 stopped early, 2 failed."
    )
    assert "2 March 2026, 09:15 UTC · finished" in page


def test_failures_are_told_once_for_each_reason():
    page = render_report(report(*usual(), trial(5, "failed", None, epochs=1)))
    assert page.count("CUDA out of memory.") == 1
    assert "2 trials (0003, 0004)</strong>: CUDA out of memory." in page
    assert "Trial 0005, after 1 epoch</strong>: No reason was recorded." in page


def test_texts_from_outside_are_shown_and_never_run():
    evil = trial(0, params={EVIL: EVIL, "list": [EVIL]}, reason=EVIL)
    evil = replace(evil, trial=EVIL, status="failed")
    document = evaluation() | {"model": EVIL, "split": EVIL, "references": {EVIL: summary(0.1, 9)}}
    whole = report(
        evil, *usual(), space=EVIL, evaluation=document, overlay_png=PNG, provenance={EVIL: EVIL}
    )
    names = dict.fromkeys(("sweep", "metric", "store", "created", "status"), EVIL)
    page = markup(render_report(replace(whole, sweep=replace(whole.sweep, **names))))
    harmless = markup(render_report(report(*usual(), evaluation=document, overlay_png=PNG)))
    outline = Outline(page)
    assert EVIL not in page
    assert len(outline.named("img")) == 1
    assert len(outline.named("script")) == len(Outline(harmless).named("script"))
    assert not any("onerror" in attributes for _, attributes in outline.elements)
    # Plotly makes elements of tags in its labels, so they come to it escaped as well.
    assert set(charts(page)) == set(charts(harmless))
    assert "<img" not in json.dumps(charts(page))
    assert "&lt;img" in json.dumps(charts(page))


def test_page_of_a_sweep_in_which_every_trial_failed():
    failed = [trial(i, "failed", None, epochs=0, reason="No GPU.") for i in range(3)]
    page = markup(render_report(report(*failed)))
    Outline(page)
    assert "No trial has a score. 3 trials: all failed." in page
    assert "No GPU." in page
    assert charts(page) == {}


def test_page_of_a_sweep_without_a_trial():
    page = markup(render_report(report(provenance={}, space="")))
    Outline(page)
    assert "No trial has a score." in page


def test_page_of_a_single_trial():
    page = markup(render_report(report(trial(0, score=0.61))))
    assert "The only trial reached val/dice_mean <strong>0.610</strong>." in page
    assert set(charts(page)) == {"curves"}
    assert page.count('<p class="missing">') >= 4


def test_sections_without_content_say_which_command_fills_them():
    page = render_report(report(*usual()))
    missing = re.findall(r'<p class="missing">(.*?)</p>', page, re.DOTALL)
    assert any("segan-ray evaluate champion STORE" in line for line in missing)
    assert any("segan-ray promote critic" in line for line in missing)
    assert "Dice, whole tumour" not in page
    assert "Pareto" not in markup(page)


def test_picture_is_inside_the_page_and_its_colours_are_named():
    page = render_report(report(*usual(), overlay_png=PNG))
    assert f"data:image/png;base64,{base64.b64encode(PNG).decode()}" in page
    for colour, region in (
        ("#E69F00", "whole tumour"),
        ("#56B4E9", "tumour core"),
        ("#CC79A7", "enhancing tumour"),
    ):
        assert re.search(f'{colour}"></span>{region}', page)


def test_space_and_commands_are_shown():
    page = render_report(report(*usual()))
    assert "name: critic\nobjective: {metric: val/dice_mean}" in page
    assert "<pre><code>segan-ray tune store --space F</code></pre>" in page


@pytest.mark.parametrize(("mode", "expected"), [("max", [0.7, 0.7, 0.9]), ("min", [0.7, 0.4, 0.4])])
def test_best_so_far_follows_the_order_of_trials(mode, expected):
    some = [trial(0, score=0.7), trial(1, score=0.4), trial(2, score=0.9)]
    given = report(*some)
    sweep = replace(given.sweep, mode=mode, trials=rank(some, mode))
    drawn = charts(markup(render_report(replace(given, sweep=sweep))))["history"]["data"]
    so_far = next(one for one in drawn if one["name"] == "best so far")
    assert so_far["x"] == ["0000", "0001", "0002"]
    assert so_far["y"] == expected


def test_curves_mark_where_stopped_and_failed_trials_end():
    drawn = charts(markup(render_report(report(*usual()))))["curves"]["data"]
    ends = {one["name"]: sorted(one["text"]) for one in drawn if one["mode"] == "markers"}
    assert ends == {"stopped early": ["0001"], "failed": ["0003", "0004"]}
    best = next(one for one in drawn if one.get("name") == "winner: 0002")
    assert best["y"] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_parameters_have_an_axis_for_each_entry_of_a_list():
    layout = charts(markup(render_report(report(*usual()))))["parameters"]["layout"]
    texts = [one["text"] for one in layout["annotations"]]
    names = [text for text in texts if text.startswith("<b>")]
    assert names == [
        "<b>val/dice_mean</b>",
        "<b>segmentor.lr</b>",
        "<b>critic.depth</b>",
        "<b>training.optimizer</b>",
        "<b>loss.scale_weights[0]</b>",
        "<b>loss.scale_weights[1]</b>",
        "<b>loss.scale_weights[2]</b>",
    ]


def test_numbers_that_are_not_finite_leave_a_readable_page():
    nan, infinite = float("nan"), float("inf")
    broken = trial(7, score=nan, params={"segmentor.lr": infinite, "critic.depth": nan})
    histories = {"0000": [(1, 0.2), (2, nan)], "0007": [(1, infinite)]}
    page = markup(render_report(report(*usual(), broken, histories=histories)))
    assert {"history", "curves", "parameters"} <= set(charts(page))
    assert not re.search(r"[:,\[](NaN|-?Infinity)", json.dumps(charts(page)))


def test_the_winner_of_repeats_is_marked_at_any_rank():
    lucky = [trial(i, score=0.9 - i / 1000) for i in range(25)]
    steady = [trial(30 + i, score=0.6 + i / 100, repeat_of="0024") for i in range(2)]
    poor = [trial(40 + i, score=0.1, repeat_of="0000") for i in range(2)]
    given = report(*lucky, *steady, *poor)
    assert given.sweep.best.trial == "0024"
    page = markup(render_report(given))
    outline = Outline(page)
    assert outline.row("0024")[0] == "25 ★"
    assert outline.row("0000")[0] == "1"
    # The winner is in the table that is open, the others below rank 20 in the one that is not.
    assert page.index(">0024<") < page.index("<summary>The other") < page.index(">0022<")
    assert "mean of 0.605 ± 0.007 over 2 fresh seeds" in page
    drawn = charts(page)
    assert any(one.get("name") == "winner: 0024" for one in drawn["history"]["data"])
    thickest = max(drawn["parameters"]["data"], key=lambda one: one["line"]["width"])
    assert "trial 0024" in thickest["text"][0]


def test_the_question_is_told_in_words():
    space = (
        "name: c\nobjective: [{metric: val/dice_mean}, {metric: time/epoch_s, mode: min}]\n"
        "base: {training: {epochs: 7}}\nparameters:\n"
        "  critic.lr: {type: float, low: 1.0e-5, high: 1.0e-3, log: true}\n"
        "  critic.depth: {type: int, low: 1, high: 3}\n"
        "  segmentor.lr: {type: choice, values: [0.1, 0.2], when: {critic.depth: [2, 3]}}\n"
        "sampler: {type: random, seed: 4}\nscheduler: {type: none}\nbudget: {trials: 9}\n"
    )
    rows = Outline(markup(render_report(report(*usual(), space=space)))).rows
    assert ["critic.lr", "1e-05 to 0.001, logarithmic", ""] in rows
    assert ["critic.depth", "whole numbers 1 to 3", ""] in rows
    assert ["segmentor.lr", "0.1 or 0.2", "critic.depth is 2 or 3"] in rows
    assert ["Sampler", "random (seed 4)"] in rows
    assert ["Scheduler", "none"] in rows
    assert ["Same in every trial", "training.epochs 7"] in rows
    assert any("9 trials of at most 7 epochs" in row[-1] for row in rows if row[0] == "Budget")


@pytest.mark.parametrize("space", ["", "name: [", "- a list", "name: other\nkeys: none\n"])
def test_a_space_that_cannot_be_read_is_shown_as_it_is(space):
    page = markup(render_report(report(*usual(), space=space)))
    assert space in page
    Outline(page)


def test_the_pareto_front_is_drawn_of_several_objectives():
    values = [(0.9, 30.0), (0.8, 10.0), (0.7, 20.0)]
    names = ("val/dice_mean", "time/epoch_s")
    some = [
        trial(i, score=pair[0], objectives=dict(zip(names, pair, strict=True)))
        for i, pair in enumerate(values)
    ]
    given = report(*some, trial(3, "failed", None))
    sweep = replace(given.sweep, objectives=((names[0], "max"), (names[1], "min")))
    page = markup(render_report(replace(given, sweep=sweep)))
    drawn = {one["name"]: one for one in charts(page)["pareto-0"]["data"]}
    assert drawn["beaten"]["x"] == [0.7]
    assert drawn["Pareto front"]["x"] == [0.8, 0.9]
    assert drawn["Pareto front"]["y"] == [10.0, 30.0]
    assert Outline(page).row("0000")[:4] == ["1 ★", "0000", "0.9000", "30.0000"]


def test_champion_and_previous_are_compared_as_the_gate_did():
    difference = {"mean": -0.0123, "ci95": [-0.04, 0.01]}
    promoted = (
        Promoted("3", ("champion",), "0002", "Forced. Dice <differs>.", difference, forced=True),
        Promoted("2", (), "0001", "There was no champion.", None, optimistic=True),
    )
    rows = Outline(markup(render_report(report(*usual(), promoted=promoted)))).rows
    newest = next(row for row in rows if row[:3] == ["3", "champion", "0002"])
    assert newest[3] == "−0.012 −0.040 to +0.010"
    assert newest[4] == "Forced. Dice <differs>. (forced)"
    first = next(row for row in rows if row[:3] == ["2", "–", "0001"])
    assert first[3] == "nobody to compare with"
    assert "chose it" in first[4]


def test_every_patient_is_drawn_once_with_the_mean_of_its_visits():
    page = markup(render_report(report(*usual(), evaluation=evaluation())))
    boxes = charts(page)["patients-dice"]["data"]
    assert [len(box["x"]) for box in boxes] == [3, 3, 3]
    assert boxes[0]["x"] == pytest.approx([0.65, 0.8, 0.9])
    assert len({box["marker"]["symbol"] for box in boxes}) == 3
    assert Outline(page).row("0.650")[0] == "p1"


def test_the_difference_to_unet_is_told():
    page = markup(render_report(report(*usual(), evaluation=evaluation())))
    assert "whole tumour <strong class=number>+0.013</strong>" in page
    assert "[−0.004, +0.031]" in page
    assert "patient by patient (3 patients)" in page
    alone = evaluation() | {"references": {}, "comparisons": []}
    page = markup(render_report(report(*usual(), evaluation=alone)))
    assert "There is no U-Net to compare with" in page


def test_few_patients_have_no_intervals_and_the_page_says_why():
    few = without_intervals(evaluation())
    page = markup(render_report(report(*usual(), evaluation=few)))
    Outline(page)
    assert page.count("No intervals: 3 patients are too few for one, 6 are needed.") == 1
    assert "95% interval" not in page
    assert 'interval"></span>' not in page
    assert all("error_x" not in one for one in charts(page)["models"]["data"])
    assert "whole tumour <strong class=number>+0.013</strong>" in page
    given = {"mean": 0.05, "ci95": None}
    promoted = (Promoted("3", ("champion",), "0002", "Forced.", given, forced=True),)
    rows = Outline(markup(render_report(report(*usual(), promoted=promoted)))).rows
    newest = next(row for row in rows if row[:3] == ["3", "champion", "0002"])
    assert newest[3] == "+0.050 too few patients for an interval"


def without_intervals(document):
    """Return a document as it is where patients are too few: every ``ci95`` is None."""
    if isinstance(document, dict):
        return {
            name: None if name == "ci95" else without_intervals(value)
            for name, value in document.items()
        }
    return [without_intervals(one) for one in document] if isinstance(document, list) else document


def test_means_over_cases_are_told_where_they_are_others():
    means = {region: {"dice": 0.75, "hd95": 12.0} for region in REGIONS}
    of_rows = {"models:/segan@champion": means, "threshold": means, "unet": means}
    given = evaluation() | {"means_over_cases": of_rows}
    page = markup(render_report(report(*usual(), evaluation=given)))
    assert "Means over 4 cases" in page
    assert ["U-Net", *["0.750", "12.0"] * 3] in Outline(page).rows
    page = markup(render_report(report(*usual(), evaluation=evaluation())))
    assert "Means over cases" not in page


def test_pictures_are_in_the_page_once_and_told_together_where_they_are_the_same():
    one, other = picture(8), picture(16)
    showcase = {"best": one, "median": one, "worst": other}
    page = markup(render_report(report(*usual(), showcase=showcase, overlay_png=PNG)))
    assert page.count(base64.b64encode(one).decode()) == 1
    assert "<h3>Best patient and Median patient</h3>" in page
    assert "<h3>Worst patient</h3>" in page
    assert page.count('viewBox="0 0 8 4"') == 2
    assert base64.b64encode(PNG).decode() not in page


def test_pages_of_cases_beside_the_report_are_linked(tmp_path: Path) -> None:
    given = report(*usual(), showcase={"best": picture(8)}, evaluation=evaluation())
    out, case = tmp_path / "report.html", evaluation()["cases"][0]["case"]
    write_report(given, out)
    page = markup(out.read_text())
    assert "segan-ray view DATA/CASE LABELS/CASE.nii.gz --out CASE.html" in page
    assert f'href="{case}.html"' not in page
    (tmp_path / f"{case}.html").write_text("a page of the viewer")
    (tmp_path / "other.html").write_text("no case of the evaluation")
    write_report(given, out)
    page = markup(out.read_text())
    assert f'<a href="{case}.html">{case}</a>' in page
    assert "other.html" not in page


def picture(width: int) -> bytes:
    drawn = io.BytesIO()
    Image.new("RGB", (width, 4)).save(drawn, format="PNG")
    return drawn.getvalue()


def test_a_sweep_that_runs_says_so():
    given = report(trial(0, "running", None, epochs=0), trial(1, "pending", None, epochs=0))
    page = markup(render_report(replace(given, sweep=replace(given.sweep, status="running"))))
    Outline(page)
    assert "The sweep is still running" in page
    assert "No trial has a score yet." in page
    assert charts(page) == {}


def test_what_was_stopped_when_is_told():
    some = (
        trial(0, epochs=9), trial(1, "stopped", 0.4, epochs=3),
        trial(2, "stopped", 0.3, epochs=1), trial(3, "failed", None, epochs=3),
    )  # fmt: skip
    rows = Outline(markup(render_report(report(*some)))).rows
    assert ["1", "1: 0002", "–", "3"] in rows
    assert ["3", "1: 0001", "1: 0003", "1"] in rows


@pytest.mark.parametrize("name", SHIPPED)
def test_a_sweep_of_every_shipped_space_is_shown(name):
    file = resolve_space(name)
    space, chance = load_space(file), random.Random(0)
    study, drawn = SweepStudy.create(name, space, None), []
    for number in range(min(12, study.most_trials)):
        point, score = study.ask(), chance.random()
        study.report(number, 1, *(score for _ in space.objectives))
        study.tell(number, "completed")
        drawn.append(trial(number, score=score, epochs=1, params=dict(point.params)))
    page = markup(render_report(report(*drawn, space=file.read_text())))
    assert all(one.trial in page for one in drawn)


@pytest.mark.parametrize("length", [1, 2, THIN, THIN + 1, 1000])
def test_a_thinned_line_keeps_its_ends(length):
    line = [(epoch, epoch / 7, "t") for epoch in range(length)]
    kept = thinned(line)
    assert len(kept) == min(length, THIN)
    assert (kept[0], kept[-1]) == (line[0], line[-1])
    assert kept == sorted(kept)


def test_five_hundred_trials_fit_an_email(tmp_path):
    chance = random.Random(0)
    status = ("completed", "stopped", "completed", "failed")
    trials = [
        trial(i, status[i % 4], None if status[i % 4] == "failed" else chance.random(), epochs=100)
        for i in range(500)
    ]
    histories = {one.trial: [(epoch, chance.random()) for epoch in range(1, 101)] for one in trials}
    write_report(report(*trials, histories=histories), tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 10e6


def test_report_is_written_whole_and_replaces_the_old(tmp_path):
    out = tmp_path / "report.html"
    out.write_text("old")
    given = report(*usual())
    write_report(given, out)
    assert out.read_text(encoding="utf-8") == render_report(given)
    assert list(tmp_path.iterdir()) == [out]


def test_failing_to_write_leaves_the_old_page_and_nothing_else(tmp_path, monkeypatch):
    out = tmp_path / "report.html"
    out.write_text("old")

    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match=r"report\.html.*No space left on device"):
        write_report(report(*usual()), out)
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        write_report(report(*usual()), tmp_path / "none" / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_place_of_the_page_is_told(tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        write_report(report(*usual()), tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
