"""Learning curves: how each trial learned, and what was stopped when."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go

from segan_ray.evaluation.report.content import SweepReport
from segan_ray.evaluation.report.drawing import (
    BEST,
    GAP,
    GREY,
    INK,
    MANY,
    MARKERS,
    Point,
    add,
    blank_figure,
    tints_of,
    winner_of,
)
from segan_ray.evaluation.report.page import Section, chart, esc, label, missing, table
from segan_ray.evaluation.report.words import WORDS
from segan_ray.search.results.ranking import SweepRecord, TrialRecord, TrialStatus

History = Sequence[tuple[int, float]]

THIN: Final = 40
"""How many points a line keeps where there are many lines."""
NAMED: Final = 12
PENS: Final[dict[TrialStatus, dict[str, Any]]] = {
    "completed": {"color": "#0072b2", "dash": "solid"},
    "stopped": {"color": "#7a8793", "dash": "dot"},
    "failed": {"color": INK, "dash": "dash"},
    "running": {"color": "#009e73", "dash": "longdash"},
    "paused": {"color": "#7a8793", "dash": "dot"},
    "pending": {"color": "#009e73", "dash": "longdash"},
}
"""How the line of a trial is drawn, by how it ended: told apart by dashes as well as colour."""


def curves(report: SweepReport) -> Section:
    """Show the objective after each epoch, and which trials ended early."""
    title = "Learning curves"
    if not any(report.histories.values()):
        return Section("curves", title, missing("No trial has finished an epoch yet."))
    drawn = chart(
        "curves",
        curves_chart(report.sweep, report.histories),
        spoken="The objective after each epoch, one line for each trial",
        caption=f"{esc(report.sweep.metric)} after each epoch, a line a trial: solid if it "
        "completed, dotted up to a square if the scheduler stopped it early, dashed up to a "
        "cross if it failed. The thick line is the winner.",
    )
    return Section("curves", title, drawn + _ends_table(report.sweep))


def curves_chart(sweep: SweepRecord, histories: Mapping[str, History]) -> go.Figure:
    """Draw one line a trial; of many trials, one trace for each way to end."""
    figure, tints = blank_figure(label(sweep.metric), 420), tints_of(sweep)
    lines = {
        one.trial: _curve(one, histories[one.trial])
        for one in reversed(sweep.trials)
        if histories.get(one.trial)
    }
    best = winner_of(sweep)
    others = [one for one in reversed(sweep.trials) if one.trial in lines and one is not best]
    if len(others) > MANY:
        _add_many(figure, others, lines)
    else:
        for one in others:
            shade = tints.get(one.trial, GREY) if one.status == "completed" else None
            pen = PENS[one.status] | ({"color": shade} if shade else {}) | {"width": 1.8}
            _add_curve(figure, lines[one.trial], pen, showlegend=False)
    if best is not None and best.trial in lines:
        name = f"winner: {label(best.trial)}"
        _add_curve(figure, lines[best.trial], {"color": BEST, "width": 3.4}, name=name)
    _add_ends(figure, sweep, lines)
    longest = max(len(line) for line in lines.values())
    ticks = {"dtick": 1} if longest <= 12 else {"tickformat": "d"}
    figure.update_xaxes(title="epoch", showgrid=False, rangemode="tozero", **ticks)
    return figure


def thinned(line: Sequence[Point]) -> list[Point]:
    """Return at most ``THIN`` points of a line, evenly chosen, with its first and last."""
    if len(line) <= THIN:
        return list(line)
    chosen = {round(at * (len(line) - 1) / (THIN - 1)) for at in range(THIN)}
    return [point for index, point in enumerate(line) if index in chosen]


def _add_many(
    figure: go.Figure, trials: Sequence[TrialRecord], lines: Mapping[str, Sequence[Point]]
) -> None:
    """Draw a backdrop: a trace for each status whose lines are lifted between trials."""
    for status in reversed(WORDS):
        ours = [one for one in trials if one.status == status]
        points = [
            at
            for one in ours
            for at in (*((x, y) for x, y, _ in thinned(lines[one.trial])), GAP[:2])
        ]
        if points:
            # Plotly goes through a list number by number, several times.
            xs, ys = np.array(points, dtype=np.float32).T
            pen = PENS[status] | {"width": 0.8}
            figure.add_scatter(
                x=xs, y=ys, mode="lines", line=pen, opacity=0.55, hoverinfo="skip",
                name=WORDS[status], showlegend=False,
            )  # fmt: skip


def _curve(trial: TrialRecord, history: History) -> list[Point]:
    return [(epoch, round(value, 4), label(trial.trial)) for epoch, value in sorted(history)]


def _add_curve(
    figure: go.Figure, line: Sequence[Point], pen: Mapping[str, Any], **style: Any
) -> None:
    mode = "lines" if len(line) > 1 else "markers"
    said = "<b>trial %{text}</b><br>epoch %{x}: %{y:.4f}<extra></extra>"
    add(
        figure, line, mode=mode, line=dict(pen), marker_color=pen["color"], hovertemplate=said,
        **style,
    )  # fmt: skip


def _add_ends(figure: go.Figure, sweep: SweepRecord, lines: Mapping[str, list[Point]]) -> None:
    """Mark where the lines of stopped and failed trials break off."""
    for status in ("stopped", "failed"):
        ends = [
            lines[one.trial][-1]
            for one in sweep.trials
            if one.status == status and one.trial in lines
        ]
        if ends:
            size = MARKERS[status]["size"] if len(lines) <= MANY else 5
            mark = MARKERS[status] | {"size": size}
            add(figure, ends, name=WORDS[status], mode="markers", marker=mark)


def _ends_table(sweep: SweepRecord) -> str:
    """Show after which epoch which trials were stopped or failed."""
    ended: dict[int, dict[TrialStatus, list[str]]] = defaultdict(lambda: defaultdict(list))
    for one in sorted(sweep.trials, key=lambda one: (len(one.trial), one.trial)):
        ended[one.epochs][one.status].append(one.trial)
    early = {epoch: of for epoch, of in sorted(ended.items()) if of["stopped"] or of["failed"]}
    if not early:
        return "<p>No trial was stopped early, and none failed.</p>"
    rows = [
        f'<tr><th scope="row">{epoch}</th><td>{_names(of["stopped"])}</td>'
        f"<td>{_names(of['failed'])}</td><td>{_left(sweep, epoch)}</td></tr>"
        for epoch, of in early.items()
    ]
    heads = ("After epoch", "Stopped early", "Failed", "Went on")
    head = "<tr>" + "".join(f'<th scope="col">{text}</th>' for text in heads) + "</tr>"
    return "<h3>What was stopped when</h3>" + table(
        head, rows, kind="ends", caption="What was stopped when"
    )


def _left(sweep: SweepRecord, epoch: int) -> int:
    return sum(one.epochs > epoch for one in sweep.trials)


def _names(trials: Sequence[str]) -> str:
    if not trials:
        return "–"
    named = ", ".join(esc(one) for one in trials[:NAMED])
    return f"{len(trials)}: {named}{', …' * (len(trials) > NAMED)}"
