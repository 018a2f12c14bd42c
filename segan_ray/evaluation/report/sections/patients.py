"""Per-patient distributions: how the evaluated model does on each patient, not on average."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import plotly.graph_objects as go

from segan_ray.brats import REGIONS, Region
from segan_ray.evaluation.report.content import SweepReport
from segan_ray.evaluation.report.drawing import blank_figure
from segan_ray.evaluation.report.page import Section, chart, esc, label, missing, table
from segan_ray.evaluation.report.words import (
    REGION_COLOURS,
    REGION_NAMES,
    chip,
    patient_means,
    scored_patients,
)

TITLE: Final = "Patient by patient"
SHAPES: Final[dict[Region, str]] = {"whole": "circle", "core": "square", "enhancing": "diamond"}
CROWD: Final = 40
"""From more patients on their marks are small."""
Means = Mapping[str, Mapping[Region, float]]


def patients(report: SweepReport) -> Section:
    """Show Dice and HD95 of every patient, by region."""
    if report.evaluation is None:
        why = "No model of this sweep has been evaluated. On the test patients:"
        return Section("patients", TITLE, missing(why, "segan-ray evaluate champion STORE"))
    dice = patient_means(report.evaluation, "dice")
    hd95 = patient_means(report.evaluation, "hd95")
    if not dice:
        return Section("patients", TITLE, missing("The evaluation holds no scores of its cases."))
    body = chart(
        "patients-dice",
        patients_chart(dice, "Dice", (-0.03, 1.03)),
        spoken="Dice of each patient, a row for each region, with quartiles",
        caption=f"Dice of {scored_patients(report.evaluation)}, a mark each (means of those with "
        "several cases); the box spans the middle half of them, its line is the median.",
    )
    if hd95:
        body += chart(
            "patients-hd95",
            patients_chart(hd95, "HD95, mm", None),
            spoken="HD95 of each patient, a row for each region, with quartiles",
            caption="HD95 of the same patients, in mm; smaller is better. A region found where "
            "there is none, or missed altogether, counts 374 mm.",
        )
    return Section("patients", TITLE, body + _all(dice, hd95))


def patients_chart(values: Means, name: str, span: tuple[float, float] | None) -> go.Figure:
    """Draw a mark a patient and a box a region, each in its own shape and colour."""
    figure = blank_figure("", 300)
    for region in reversed(REGIONS):
        figure.add_box(
            x=[round(of[region], 4) for of in values.values()],
            name=REGION_NAMES[region].replace(" ", "<br>"),
            orientation="h",
            boxpoints="all",
            jitter=0.55,
            pointpos=0,
            text=[label(patient) for patient in values],
            hovertemplate="<b>%{text}</b><br>%{x:.3f}<extra></extra>",
            hoveron="points",
            line={"color": "#56636f", "width": 1.2},
            fillcolor="rgba(86, 99, 111, 0.07)",
            marker=_mark(region, 9 if len(values) <= CROWD else 5),
        )
    figure.update_layout(showlegend=False, margin={"l": 84, "r": 14, "t": 12, "b": 44})
    figure.update_xaxes(title=name, range=span, rangemode="tozero")
    figure.update_yaxes(showgrid=False, automargin=False)
    return figure


def _mark(region: Region, size: int) -> dict[str, Any]:
    return {
        "symbol": SHAPES[region],
        "size": size,
        "color": REGION_COLOURS[region],
        "line": {"color": "#1b2733", "width": 0.8},
    }


def _all(dice: Means, hd95: Means) -> str:
    """Return every patient's numbers, the hardest patient first."""
    metrics = [("Dice", dice, 3), *([("HD95, mm", hd95, 1)] if hd95 else [])]
    groups = "".join(
        f'<th scope="colgroup" colspan="{len(metrics)}" class="group">{chip(region)}'
        f"{REGION_NAMES[region].capitalize()}</th>"
        for region in REGIONS
    )
    heads = "".join(f'<th scope="col">{name}</th>' for _ in REGIONS for name, *_ in metrics)
    hardest = sorted(dice, key=lambda patient: (sum(dice[patient].values()), patient))
    rows = [
        f'<tr><th scope="row">{esc(patient)}</th>'
        + "".join(
            f"<td>{values[patient][region]:.{digits}f}</td>"
            for region in REGIONS
            for _, values, digits in metrics
        )
        + "</tr>"
        for patient in hardest
    ]
    head = f'<tr><th scope="col" rowspan="2">Patient</th>{groups}</tr><tr>{heads}</tr>'
    numbers = table(head, rows, kind="patients", caption="Scores of every patient")
    return (
        '<details class="long"><summary>Every patient, the hardest first</summary>'
        f"{numbers}</details>"
    )
