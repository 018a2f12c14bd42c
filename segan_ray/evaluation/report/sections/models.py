"""The evaluated model beside its references, U-Net among them, on patients no trial saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import plotly.graph_objects as go

from segan_ray.brats import REGIONS
from segan_ray.errors import many
from segan_ray.evaluation.metrics.intervals import no_interval
from segan_ray.evaluation.report.content import SweepReport
from segan_ray.evaluation.report.drawing import BEST, blank_figure
from segan_ray.evaluation.report.page import Section, chart, esc, label, missing, table
from segan_ray.evaluation.report.words import (
    REGION_NAMES,
    chip,
    interval,
    scored_patients,
    signed,
)

CHAMPION: Final = "champion"
UNET_ROW: Final = "unet"
NAMES: Final = {UNET_ROW: "U-Net", "threshold": "Threshold"}
METRIC_NAMES: Final = {
    "dice": "Dice",
    "hd95": "HD95, mm",
    "precision": "Precision",
    "sensitivity": "Sensitivity",
}
LOWER_IS_BETTER: Final = {"hd95"}
MARKS: Final = (
    ("circle", BEST),
    ("square", "#0072b2"),
    ("diamond", "#009e73"),
    ("cross", "#cc79a7"),
    ("triangle-up", "#56b4e9"),
)
UNET: Final = (
    "segan-ray train STORE --name unet --set variant=unet\n"
    "segan-ray evaluate champion STORE --reference threshold --reference unet=unet"
)


@dataclass(frozen=True)
class ReportedModel:
    """A row: what the document calls it, its name on the page and what stands below that.

    ``summary`` is ``{region: {metric: summary}}``.
    """

    key: str
    name: str
    note: str
    summary: Mapping[str, Mapping[str, Mapping[str, Any]]]


def models(report: SweepReport) -> Section:
    """Show Dice, HD95 and more of the evaluated model and of each reference."""
    document = report.evaluation
    if document is None:
        why = "No model of this sweep has been evaluated. On the test patients, beside a U-Net:"
        return Section("evaluation", "Test patients", missing(why, UNET), "Test patients")
    references = document.get("references") or {}
    model = str(document["model"])
    name = "Champion" if model.removeprefix("models:/segan@") == CHAMPION else "Evaluated model"
    rows = [ReportedModel(model, name, model, document["summary"])]
    rows += [
        ReportedModel(name, NAMES.get(name, name), "reference", of)
        for name, of in references.items()
    ]
    body = (
        f"<p>Means over {scored_patients(document)} ({many(len(document['cases']), 'case')}), "
        f"scored on whole volumes in their original grid. {_about_intervals(document)} Bold is the "
        "best of a column. HD95, the distance between surfaces, is better the smaller it is.</p>"
        + _against_unet(document)
        + _drawn(rows, intervals=_has_intervals(document))
        + models_table(rows, ("dice", "hd95"), "Dice and HD95 of each model")
        + "<details><summary>Precision and sensitivity</summary>"
        + models_table(rows, ("precision", "sensitivity"), "Precision and sensitivity")
        + "</details>"
        + _over_cases(document, {row.key: row.name for row in rows})
    )
    title = f"{esc(document['split']).capitalize()} patients"
    return Section("evaluation", title, body)


def _has_intervals(document: Mapping[str, Any]) -> bool:
    return document["summary"][REGIONS[0]]["dice"]["ci95"] is not None


def _about_intervals(document: Mapping[str, Any]) -> str:
    if _has_intervals(document):
        return "Below each mean its 95% bootstrap interval."
    return no_interval(len({case["patient"] for case in document["cases"]}))


def _over_cases(document: Mapping[str, Any], rows: Mapping[str, str]) -> str:
    """Return Dice and HD95 as leaderboards average them, where that is another mean."""
    means = document.get("means_over_cases")
    if not means:
        return ""
    at = [(region, metric) for region in REGIONS for metric in ("dice", "hd95")]
    head = "".join(
        f'<th scope="col">{METRIC_NAMES[metric]}, {REGION_NAMES[region]}</th>'
        for region, metric in at
    )
    lines = [
        f'<tr><th scope="row">{esc(name)}</th>'
        + "".join(
            f"<td>{means[key][region][metric]:.{1 if metric == 'hd95' else 3}f}</td>"
            for region, metric in at
        )
        + "</tr>"
        for key, name in rows.items()
        if key in means
    ]
    caption = f"Means over {many(len(document['cases']), 'case')}"
    return (
        "<details><summary>Means over cases, as leaderboards have them</summary>"
        + table(f'<tr><th scope="col">Model</th>{head}</tr>', lines, kind="tests", caption=caption)
        + "</details>"
    )


def _against_unet(document: Mapping[str, Any]) -> str:
    for compared in document["comparisons"]:
        if compared["against"] == UNET_ROW:
            break
    else:
        return missing("There is no U-Net to compare with. To train and add one:", UNET)
    said = ", ".join(
        f"{REGION_NAMES[region]} {change(compared['difference'][region])}" for region in REGIONS
    )
    holds = ""
    if compared["difference"][REGIONS[0]]["ci95"] is not None:
        holds = " Where the 95% interval in brackets holds 0, neither is shown to be better."
    return (
        f"<p>Dice minus U-Net's, patient by patient ({many(compared['patients'], 'patient')}): "
        f"{said}.{holds}</p>"
    )


def change(difference: Mapping[str, Any]) -> str:
    """Return a difference with its interval, if there is one, as HTML."""
    mean = f"<strong class=number>{signed(difference['mean'])}</strong>"
    if difference["ci95"] is None:
        return mean
    low, high = difference["ci95"]
    return f'{mean} <span class="interval">[{signed(low)}, {signed(high)}]</span>'


def _drawn(rows: Sequence[ReportedModel], *, intervals: bool) -> str:
    if len(rows) < 2:
        return ""
    having = " with its 95% interval" if intervals else ""
    overlap = (
        " Where intervals overlap, the patients are too few to tell the models apart this way."
    )
    return chart(
        "models",
        models_chart(rows),
        spoken=f"Mean Dice of each model{having}, a group for each region",
        caption=f"Mean Dice{having}.{overlap if intervals else ''}",
    )


def models_chart(rows: Sequence[ReportedModel]) -> go.Figure:
    """Draw each model's mean Dice with whiskers, below each other in a group a region."""
    figure = blank_figure("", 90 + 3 * (34 + 18 * len(rows)))
    step = 0.44 / max(1, len(rows) - 1)
    for index, row in enumerate(rows):
        symbol, colour = MARKS[index % len(MARKS)]
        dice = [row.summary[region]["dice"] for region in REGIONS]
        means = [round(one["mean"], 4) for one in dice]
        figure.add_scatter(
            x=means,
            y=[place - 0.22 + index * step for place in range(len(REGIONS))],
            mode="markers",
            name=label(row.name),
            marker={"symbol": symbol, "color": colour, "size": 10},
            error_x=whiskers(dice, colour),
            hovertemplate=f"{label(row.name)}: %{{x:.3f}}<extra></extra>",
        )
    names = [REGION_NAMES[region].replace(" ", "<br>") for region in REGIONS]
    figure.update_layout(margin={"l": 84, "r": 14, "t": 44, "b": 44})
    figure.update_xaxes(title="Dice", range=[0, 1.005])
    figure.update_yaxes(
        tickvals=list(range(len(REGIONS))), ticktext=names, range=[len(REGIONS) - 0.45, -0.55],
        showgrid=False, automargin=False,
    )  # fmt: skip
    return figure


def whiskers(dice: Sequence[Mapping[str, Any]], colour: str) -> dict[str, Any] | None:
    """Return the intervals as Plotly draws them, or None where there are none."""
    if any(one["ci95"] is None for one in dice):
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": [round(one["ci95"][1] - one["mean"], 4) for one in dice],
        "arrayminus": [round(one["mean"] - one["ci95"][0], 4) for one in dice],
        "color": colour,
        "thickness": 1.6,
        "width": 4,
    }


def models_table(rows: Sequence[ReportedModel], metrics: Sequence[str], caption: str) -> str:
    """Return a table of some metrics of each model, region by region, the best in bold."""
    at = [(region, metric) for region in REGIONS for metric in metrics]
    groups = "".join(
        f'<th scope="colgroup" colspan="{len(metrics)}" class="group">{chip(region)}'
        f"{REGION_NAMES[region].capitalize()}</th>"
        for region in REGIONS
    )
    heads = "".join(
        f'<th scope="col"{_group(metric == metrics[0])}>{METRIC_NAMES[metric]}</th>'
        for _, metric in at
    )
    best = {
        (region, metric): _best_of(metric, [row.summary[region][metric] for row in rows])
        for region, metric in at
    }
    lines = [
        f'<tr><th scope="row">{esc(row.name)}<span class="sub">{esc(row.note)}</span></th>'
        + "".join(
            f"<td{_group(metric == metrics[0])}>"
            f"{_cell(row.summary[region][metric], metric, best[region, metric])}</td>"
            for region, metric in at
        )
        + "</tr>"
        for row in rows
    ]
    head = f'<tr><th scope="col" rowspan="2">Model</th>{groups}</tr><tr>{heads}</tr>'
    return table(head, lines, kind="tests", caption=caption)


def _group(first: bool) -> str:
    return ' class="group"' if first else ""


def _best_of(metric: str, summaries: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the best mean, or None where a single model has nothing to be better than."""
    if len(summaries) < 2:
        return None
    better = min if metric in LOWER_IS_BETTER else max
    return float(better(summary["mean"] for summary in summaries))


def _cell(summary: Mapping[str, Any], metric: str, best: float | None) -> str:
    digits = 1 if metric == "hd95" else 3
    mean = f"{summary['mean']:.{digits}f}"
    shown = f"<strong>{mean}</strong>" if summary["mean"] == best else mean
    limits = interval(summary, digits)
    return f'{shown} <span class="interval">{limits}</span>' if limits else shown
