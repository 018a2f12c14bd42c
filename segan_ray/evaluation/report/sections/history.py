"""Optimisation history: whether the search still finds better trials."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import plotly.graph_objects as go

from segan_ray.evaluation.report.content import SweepReport
from segan_ray.evaluation.report.drawing import (
    BEST,
    INK,
    MARKERS,
    add,
    blank_figure,
    in_order,
    scored,
    told,
    winner_of,
)
from segan_ray.evaluation.report.page import Section, chart, label, missing
from segan_ray.evaluation.report.words import WORDS
from segan_ray.search.results.ranking import SweepRecord, TrialRecord, TrialStatus


def history(report: SweepReport) -> Section:
    """Show each trial's score in the order of trials, and the best score so far."""
    title = "Optimisation history"
    if len(scored(report.sweep)) < 2:
        return Section(
            "history", title, missing("Fewer than two trials have a score yet."), "History"
        )
    drawn = chart(
        "history",
        history_chart(report.sweep),
        spoken="Score of each trial in the order of trials, with the best score so far",
        caption="Each mark is a trial, the line the best score so far: where it is flat, the "
        "search found nothing better. The star is the winner.",
    )
    return Section("history", title, drawn, "History")


def history_chart(sweep: SweepRecord) -> go.Figure:
    """Draw each trial's score in the order of trials, and the best score so far."""
    better = max if sweep.mode == "max" else min
    ordered, drawn = in_order(sweep.trials), {one.trial for one in scored(sweep)}
    with_score = [one for one in ordered if one.trial in drawn]
    able = [one for one in with_score if not one.infeasible]
    so_far = list(accumulate((float(one.score or 0.0) for one in able), better))
    figure = blank_figure(label(sweep.metric), 360)
    line = {"color": INK, "width": 1.6, "shape": "hv"}
    add(
        figure,
        [(*at, "") for at in zip((label(one.trial) for one in able), so_far, strict=True)],
        name="best so far",
        mode="lines",
        line=line,
        hoverinfo="skip",
    )
    for status in WORDS:
        _add_scores(figure, status, [one for one in with_score if one.status == status])
    _add_without_score(figure, [one for one in ordered if one.trial not in drawn])
    _add_star(figure, sweep)
    names = [label(one.trial) for one in ordered]
    figure.update_xaxes(
        title="trial", type="category", categoryarray=names, nticks=12, tickangle=0, showgrid=False
    )
    return figure


def _add_scores(figure: go.Figure, status: TrialStatus, trials: Sequence[TrialRecord]) -> None:
    if trials:
        points = [(label(one.trial), one.score, told(one)) for one in trials]
        add(figure, points, name=WORDS[status], mode="markers", marker=MARKERS[status])


def _add_without_score(figure: go.Figure, trials: Sequence[TrialRecord]) -> None:
    """Mark trials without a score on the floor of the chart, since they have no height."""
    if not trials:
        return
    points = [(label(one.trial), 0.0, told(one)) for one in trials]
    add(figure, points, name="no score", mode="markers", marker=MARKERS["failed"], yaxis="y2")
    figure.data[-1].update(cliponaxis=False)
    figure.update_layout(
        yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
    )


def _add_star(figure: go.Figure, sweep: SweepRecord) -> None:
    best = winner_of(sweep)
    if best is not None:
        points = [(label(best.trial), best.score, told(best))]
        star = {"symbol": "star", "size": 17, "color": BEST, "line": {"color": "#fff", "width": 1}}
        add(figure, points, name=f"winner: {label(best.trial)}", mode="markers", marker=star)
