"""The page of a comparison: its arms, their differences, their seeds and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import plotly.graph_objects as go

from segan_ray.brats import REGIONS
from segan_ray.errors import many
from segan_ray.evaluation.metrics.intervals import MINIMUM_PATIENTS, no_interval
from segan_ray.evaluation.report.drawing import BEST, INK, blank_figure
from segan_ray.evaluation.report.page import (
    Section,
    chart,
    esc,
    facts,
    label,
    number,
    page,
    table,
)
from segan_ray.evaluation.report.sections.models import (
    ReportedModel,
    change,
    models_chart,
    models_table,
    whiskers,
)
from segan_ray.evaluation.report.words import REGION_NAMES, chip

Document = Mapping[str, Any]
COLUMNS: Final = (*REGIONS, "mean")
NAMES: Final[dict[str, str]] = {**dict(REGION_NAMES.items()), "mean": "mean of regions"}


def render_comparison(document: Document) -> str:
    """Return the page of a ``compare`` document, which loads nothing from anywhere."""
    sections = [_scores(document), _seeds(document), _settings(document)]
    if document["differences"]:
        sections.insert(1, differences_section(document["differences"]))
    return page(f"{document['comparison']}: comparison", _header(document), sections)


def _header(document: Document) -> str:
    arms, budget = document["arms"], document["budget"]
    best = max(arms, key=_dice)
    equal = (
        f"{many(budget['epochs'], 'epoch')} a trial"
        if document["equal"] == "epochs"
        else f"the seconds of {many(budget['epochs'], 'epoch')} of {esc(arms[0]['arm'])} a trial"
    )
    return (
        f'<p class="eyebrow">Comparison</p>\n<h1>{esc(document["comparison"])}</h1>\n'
        f'<p class="lead">Of {many(len(arms), "arm")} <strong>{esc(best["arm"])}</strong> has the '
        f"highest Dice on {many(document['patients'], 'test patient')}: "
        f'<strong class="number">{_dice(best):.3f}</strong> over regions and seeds.</p>'
        f"\n<p class=meta>The same for all: {equal}. Each was tuned by itself, its best settings "
        f"trained again with {many(budget['seeds'], 'fresh seed')}.</p>"
    )


def _dice(arm: Document) -> float:
    """Return the mean Dice over regions, patients and seeds."""
    return float(arm["summary"]["mean"]["dice"]["mean"])


def _scores(document: Document) -> Section:
    rows = [ReportedModel(arm["arm"], arm["arm"], "", arm["summary"]) for arm in document["arms"]]
    none = why_no_intervals(document)
    about = none or f"Intervals: {document['interval']}."
    body = (
        f"<p>Means over patients and seeds, whole volumes in their original grid. {about} Bold is "
        "the best of a column.</p>"
        + chart(
            "arms",
            models_chart(rows),
            spoken="Mean Dice of each arm, a group for each region",
            caption=f"Mean Dice of each arm{'' if none else ', with its interval'}.",
        )
        + models_table(rows, ("dice", "hd95"), "Scores of each arm")
        + models_table(rows, ("precision", "sensitivity"), "Precision and sensitivity of each arm")
        + _costs(document["arms"])
        + _unscored(document["unscored"])
    )
    return Section("arms", "The arms on test patients", body, "Arms")


def _unscored(arms: Sequence[str]) -> str:
    names = ", ".join(map(esc, arms))
    return f"<p>Not scored, since no seed trained a model: {names}.</p>" if arms else ""


def why_no_intervals(document: Document) -> str:
    """Return why a comparison has no intervals, or nothing if it has some."""
    if document["patients"] < MINIMUM_PATIENTS:
        return no_interval(document["patients"])
    if any(arm["seeds"] < 2 for arm in document["arms"]):
        return "No intervals: a single seed does not tell how much seeds differ."
    return ""


def _costs(arms: Sequence[Document]) -> str:
    heads = ("Arm", "Weights", "Seconds per epoch", "Epochs", "Seeds", "Seeds that failed")
    lines = [
        f'<tr><th scope="row">{esc(arm["arm"])}</th><td>{arm["params"]:,}</td>'
        f"<td>{number(arm['seconds_per_epoch'])}</td><td>{arm['epochs']}</td>"
        f"<td>{arm['seeds']}</td><td>{arm['failed_seeds']}</td></tr>"
        for arm in arms
    ]
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return table(f"<tr>{head}</tr>", lines, kind="ends", caption="What each arm costs")


def differences_section(pairs: Sequence[Document], of: str = "arm") -> Section:
    """Return the section of ``differences`` as a ``compare`` document has them, ``of`` what."""
    heads = "".join(
        f'<th scope="col">{chip(name) if name in REGIONS else ""}{NAMES[name].capitalize()}</th>'
        for name in COLUMNS
    )
    lines = [
        f'<tr><th scope="row">{esc(pair["arms"][0])} − {esc(pair["arms"][1])}</th>'
        + "".join(f"<td>{change(pair[name]['dice'])}</td>" for name in COLUMNS)
        + "</tr>"
        for pair in pairs
    ]
    about = (
        " An interval on one side of 0 tells the two apart. Of many pairs some will be told apart "
        "by chance: one in twenty."
        if all(pair["mean"]["dice"]["ci95"] is not None for pair in pairs)
        else ""
    )
    body = (
        f"<p>Dice of the first less that of the second, patient by patient.{about}</p>"
        + chart(
            "differences",
            _differences_chart(pairs),
            spoken=f"Difference in mean Dice of each pair of {of}s with its interval",
            caption="Difference in mean Dice over regions. Right of 0 the first is better.",
        )
        + table(
            f'<tr><th scope="col">{of.capitalize()}s</th>{heads}</tr>',
            lines,
            kind="tests",
            caption=f"Differences in Dice between {of}s",
        )
    )
    return Section("differences", f"{of.capitalize()} against {of}", body, "Differences")


def _differences_chart(pairs: Sequence[Document]) -> go.Figure:
    figure = blank_figure("", 110 + 36 * len(pairs))
    names = [label(f"{pair['arms'][0]} − {pair['arms'][1]}") for pair in pairs]
    dice = [pair["mean"]["dice"] for pair in pairs]
    figure.add_scatter(
        x=[one["mean"] for one in dice],
        y=names,
        mode="markers",
        marker={"color": BEST, "size": 10},
        error_x=whiskers(dice, INK),
        hovertemplate="%{y}: %{x:+.3f}<extra></extra>",
    )
    figure.add_vline(x=0, line={"color": INK, "width": 1, "dash": "dot"})
    figure.update_layout(showlegend=False)
    figure.update_xaxes(title="difference in Dice")
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def _seeds(document: Document) -> Section:
    heads = "".join(
        f'<th scope="col">{name}</th>'
        for name in ("Arm", "Seed", "Trial", "Validation", *(NAMES[each] for each in COLUMNS))
    )
    lines = [
        f'<tr><th scope="row">{esc(arm["arm"])}</th><td>{run["seed"]}</td><td>{esc(run["trial"])}'
        f"</td><td>{run['validation']:.3f}</td>"
        + "".join(f"<td>{run['dice'][name]:.3f}</td>" for name in COLUMNS)
        + "</tr>"
        for arm in document["arms"]
        for run in arm["runs"]
    ]
    body = "<p>Dice on test patients of every model that was scored.</p>" + table(
        f"<tr>{heads}</tr>", lines, kind="ends", caption="Every seed of every arm"
    )
    return Section("seeds", "Every seed", body)


def _settings(document: Document) -> Section:
    rows = []
    for arm in document["arms"]:
        drawn = ", ".join(
            f"<code>{esc(name)}</code> {esc(said_setting(value))}"
            for name, value in arm["settings"].items()
        )
        rows.append(
            (esc(arm["arm"]), f"{drawn or 'as in the arms file'} (sweep {esc(arm['sweep'])})")
        )
    body = (
        "<p>What the search of each arm chose. Its trials: <code>segan-ray trials SWEEP</code>; "
        f"all as a page: <code>segan-ray report SWEEP</code>. Store {esc(document['store'])}.</p>"
        + facts(rows, "Settings of each arm")
    )
    return Section("settings", "Settings that won", body, "Settings")


def said_setting(value: Any) -> str:
    """Return a setting as a page says it."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return f"[{', '.join(map(said_setting, value))}]"
    return str(value)
