"""What the charts share: colours and marks, an empty figure, and how lines are added to it.

Blue is what ended well, grey what was stopped, black crosses what failed, vermilion the winner
(Okabe and Ito's palette); marks and dashes say the same without colour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import plotly.graph_objects as go

from segan_ray.evaluation.report.page import label
from segan_ray.evaluation.report.words import words_of
from segan_ray.search.results.ranking import SweepRecord, TrialRecord, TrialStatus

INK: Final = "#1b2733"
SOFT: Final = "#56636f"
GREY: Final = "#b4bfc9"
PALE: Final = "#dde4ea"
# From Okabe and Ito's palette: vermilion for the best, tints of blue from worst to best.
BEST: Final = "#d55e00"
SHADES: Final = ("#c9d8e5", "#a3c2da", "#6fa4cb", "#3685ba", "#005c90")
MANY: Final = 30  # from here on single lines cannot be told apart, so they only make a backdrop
GAP: Final = (None, None, "")

MARKERS: Final[dict[TrialStatus, dict[str, Any]]] = {
    "completed": {"symbol": "circle", "color": "#0072b2", "size": 9},
    "stopped": {"symbol": "square", "color": "#7a8793", "size": 8},
    "failed": {"symbol": "x-thin", "size": 8, "line": {"width": 2.2, "color": INK}},
    "running": {"symbol": "triangle-right", "color": "#009e73", "size": 10},
    "paused": {"symbol": "square-open", "color": "#7a8793", "size": 8},
    "pending": {"symbol": "circle-open", "color": SOFT, "size": 9},
}

Point = tuple[float | None, float | None, str]  # x, y, what to say about it


def in_order(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return trials in the order of their numbers, zero-padded or not."""
    return sorted(trials, key=lambda trial: (len(trial.trial), trial.trial))


def scored(sweep: SweepRecord) -> list[TrialRecord]:
    """Return the trials with a score that can be drawn, best first."""
    return [one for one in sweep.trials if one.score is not None and math.isfinite(one.score)]


def blank_figure(y_title: str, height: int) -> go.Figure:
    """Return a figure of ``height`` pixels without a trace, whose axes stay where they are."""
    figure = go.Figure()
    figure.update_layout(
        template="none",
        height=height,
        autosize=True,
        margin={"l": 58, "r": 14, "t": 44, "b": 48},
        font={"size": 13, "color": SOFT},
        hovermode="closest",
        hoverlabel={"bgcolor": "#fff", "bordercolor": GREY, "font": {"color": INK}},
        dragmode=False,  # a finger on a chart scrolls the page
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "itemclick": False},
    )
    axis = {
        "fixedrange": True,
        "zeroline": False,
        "gridcolor": "#edf0f3",
        "linecolor": GREY,
        "title_font_size": 13,
    }
    figure.update_xaxes(**axis, showline=True, ticks="outside", tickcolor=GREY, ticklen=4)
    figure.update_yaxes(**axis, title=y_title, automargin=True)
    return figure


def add(figure: go.Figure, points: Sequence[Any], **style: Any) -> None:
    """Add one trace; ``points`` are (x, y, text), and a GAP lifts the pen."""
    xs, ys, texts = zip(*points, strict=True)
    told = {"text": texts, "hovertemplate": "%{text}<extra></extra>"}
    figure.add_scatter(x=xs, y=ys, **(told | style))


def told(trial: TrialRecord, *more: str) -> str:
    """Return what a mark of ``trial`` says when it is pointed at; ``more`` is escaped already."""
    score = "no score" if trial.score is None else f"score {trial.score:.4f}"
    return "<br>".join([f"<b>trial {label(trial.trial)}</b>, {words_of(trial)}", score, *more])


def winner_of(sweep: SweepRecord) -> TrialRecord | None:
    """Return the winner if it can be drawn."""
    best = sweep.best
    drawable = best is not None and best.score is not None and math.isfinite(best.score)
    return best if drawable else None


def tints_of(sweep: SweepRecord) -> dict[str, str]:
    """Return a tint for every scored trial, by rank: one odd score does not wash out the rest.

    Of many trials only the best tenth is blue, since a mass of tints would hide it.
    """
    ranked = scored(sweep)
    if len(ranked) > MANY:
        blue = len(ranked) // 10
        tints = [SHADES[-2]] * blue + [PALE] * (len(ranked) - blue)
    else:
        tints = [SHADES[-1 - index * len(SHADES) // len(ranked)] for index in range(len(ranked))]
    return {one.trial: tint for one, tint in zip(ranked, tints, strict=True)}
