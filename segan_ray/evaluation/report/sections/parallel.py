"""Parallel coordinates: which parameters go with good scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import plotly.graph_objects as go

from segan_ray.evaluation.report.content import SweepReport
from segan_ray.evaluation.report.drawing import (
    BEST,
    GAP,
    GREY,
    INK,
    MANY,
    PALE,
    SHADES,
    SOFT,
    Point,
    add,
    blank_figure,
    in_order,
    scored,
    tints_of,
    told,
    winner_of,
)
from segan_ray.evaluation.report.page import Section, chart, label, missing, number
from segan_ray.search.results.columns import columns, is_number
from segan_ray.search.results.ranking import SweepRecord, TrialRecord

DECADE: Final = 10


def parameters(report: SweepReport) -> Section:
    """Show score and parameters of each trial, joined by a line."""
    title, short = "Parameters against score", "Parallel coordinates"
    axes = _axes(report.sweep)
    if len(scored(report.sweep)) < 2 or len(axes) < 2:
        why = "Fewer than two trials have a score and parameters yet."
        return Section("parameters", title, missing(why), short)
    tints = (
        "Blue lines are the best tenth of the trials"
        if len(scored(report.sweep)) > MANY
        else 'Tints run from the worst <span class="ramp"></span> to the best scores'
    )
    drawn = chart(
        "parameters",
        parameters_chart(report.sweep, axes),
        spoken="Parallel coordinates: score and parameters of each trial, joined by a line",
        caption=f"Follow a line down to read one trial. {tints}; the winner is the thick line. "
        "A line breaks off where a trial has no such parameter.",
    )
    return Section("parameters", title, drawn, short)


def _axes(sweep: SweepRecord) -> list[Axis]:
    """Return the score's axis, then one for each parameter, those that all trials have first."""
    trials = scored(sweep)
    scores = {one.trial: float(one.score or 0.0) for one in trials}
    first = [numeric_axis(sweep.metric, scores, linear=True)] if scores else []
    return first + [_axis(name, one) for name, one in columns(in_order(trials)).items()]


def _axis(name: str, values: Mapping[str, Any]) -> Axis:
    if all(is_number(one) for one in values.values()):
        return numeric_axis(name, {trial: float(one) for trial, one in values.items()})
    return named_axis(name, {trial: str(one) for trial, one in values.items()})


@dataclass(frozen=True)
class Axis:
    """One axis of the parallel coordinates: a trial's place in [0, 1], and labelled places."""

    name: str
    places: Mapping[str, float]
    texts: Mapping[str, str]
    ticks: Mapping[str, float]


def numeric_axis(name: str, values: Mapping[str, float], *, linear: bool = False) -> Axis:
    """Return an axis of numbers, logarithmic where they span a decade unless told otherwise."""
    low, high = min(values.values()), max(values.values())
    logarithmic = not linear and low > 0 and high / low >= DECADE
    scale = math.log if logarithmic else float
    span = scale(high) - scale(low)

    def scaled(value: float) -> float:
        return (scale(value) - scale(low)) / span if span else 0.5

    few = sorted(set(values.values()))
    shown = few if len(few) <= 5 and all(float(one).is_integer() for one in few) else [low, high]
    return Axis(
        name + (" (log)" if logarithmic else ""),
        {trial: scaled(value) for trial, value in values.items()},
        {trial: number(value) for trial, value in values.items()},
        {number(value): scaled(value) for value in shown},
    )


def named_axis(name: str, values: Mapping[str, str]) -> Axis:
    """Return an axis of names, evenly spaced."""
    names = sorted(set(values.values()))
    places = {
        one: index / (len(names) - 1) if names[1:] else 0.5 for index, one in enumerate(names)
    }
    return Axis(name, {trial: places[one] for trial, one in values.items()}, values, places)


def parameters_chart(sweep: SweepRecord, axes: Sequence[Axis]) -> go.Figure:
    """Draw parallel coordinates lying on their side, so they fit a phone: a line a trial."""
    best, tints = winner_of(sweep), tints_of(sweep)
    others = [one for one in scored(sweep) if best is None or one.trial != best.trial]
    figure = blank_figure("", 60 * len(axes) + 40)
    figure.update_layout(margin={"l": 12, "r": 12, "t": 34, "b": 26}, showlegend=False)
    figure.update_xaxes(visible=False, range=[-0.005, 1.005])
    figure.update_yaxes(visible=False, range=[len(axes) - 0.9, -0.1], automargin=False)
    for row, axis in enumerate(axes):
        _add_axis(figure, row, axis)
    width = 1.6 if len(others) < MANY else 0.8
    for shade in (PALE, *SHADES):
        group = [one for one in reversed(others) if tints[one.trial] == shade]
        points = [point for one in group for point in (*_path(one, axes), GAP)]
        if points:
            _add_path(figure, points, shade, width)
    if best is not None:
        _add_path(figure, _path(best, axes), BEST, 3.2)
    return figure


def _path(trial: TrialRecord, axes: Sequence[Axis]) -> list[Point]:
    return [
        (
            axis.places.get(trial.trial),
            row,
            told(trial, f"{label(axis.name)}: {label(axis.texts.get(trial.trial, ''))}"),
        )
        for row, axis in enumerate(axes)
    ]


def _add_path(figure: go.Figure, points: Sequence[Point], colour: str, width: float) -> None:
    line = {"color": colour, "width": width}
    marker = {"color": colour, "size": 4 + 1.8 * width, "line": {"color": "#fff", "width": 1}}
    add(figure, points, mode="lines+markers", line=line, marker=marker)


def _add_axis(figure: go.Figure, row: int, axis: Axis) -> None:
    line = {"color": GREY, "width": 1}
    figure.add_shape(type="line", x0=0, x1=1, y0=row, y1=row, line=line, layer="below")
    plain = {"showarrow": False, "borderpad": 0}
    name = {"text": f"<b>{label(axis.name)}</b>", "font": {"color": INK, "size": 13}}
    figure.add_annotation(x=0, y=row, xanchor="left", yshift=17, **name, **plain)
    for text, scaled in axis.ticks.items():
        anchor = "left" if scaled < 0.02 else "right" if scaled > 0.98 else "center"
        tick = {"text": label(text), "font": {"color": SOFT, "size": 12}}
        figure.add_annotation(x=scaled, y=row, xanchor=anchor, yshift=-14, **tick, **plain)
