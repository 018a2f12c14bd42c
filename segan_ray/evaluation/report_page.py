"""How a report looks: the page, its tables, and its charts.

Everything that comes from outside (names of trials, parameters, reasons) is text to show and
never markup: ``esc`` for HTML, ``label`` for Plotly, which reads tags in its texts.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import accumulate
from string import Template
from typing import Any, Final

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from segan_ray.search.ranking import SweepRecord, TrialRecord, TrialStatus

INK: Final = "#1b2733"
SOFT: Final = "#56636f"
GREY: Final = "#b4bfc9"
PALE: Final = "#dde4ea"
# From Okabe and Ito's palette: vermilion for the best, tints of blue from worst to best.
BEST: Final = "#d55e00"
SHADES: Final = ("#c9d8e5", "#a3c2da", "#6fa4cb", "#3685ba", "#005c90")
DECADE: Final = 10
MANY: Final = 30  # from here on single lines cannot be told apart, so they only make a backdrop
GAP: Final = (None, None, "")

# Said by sign and word; colour only repeats it. The selector keeps phones from drawing an emoji.
SYMBOLS: Final[dict[TrialStatus, str]] = {
    "completed": "●",
    "stopped": "■",
    "failed": "✕",
    "running": "▶\ufe0e",
    "pending": "○",
}
WORDS: Final[dict[TrialStatus, str]] = {
    "completed": "completed",
    "stopped": "stopped early",
    "failed": "failed",
    "running": "running",
    "pending": "pending",
}
MARKERS: Final[dict[TrialStatus, dict[str, Any]]] = {
    "completed": {"symbol": "circle", "color": "#0072b2", "size": 9},
    "stopped": {"symbol": "square", "color": "#7a8793", "size": 8},
    "failed": {"symbol": "x-thin", "size": 8, "line": {"width": 2.2, "color": INK}},
    "running": {"symbol": "triangle-right", "color": "#009e73", "size": 10},
    "pending": {"symbol": "circle-open", "color": SOFT, "size": 9},
}

Point = tuple[float | None, float | None, str]  # x, y, what to say about it
History = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Section:
    """One part of the page: ``anchor`` names it in links, ``body`` is finished HTML."""

    anchor: str
    title: str
    body: str


def esc(value: object) -> str:
    """Return ``value`` as text that HTML shows letter by letter."""
    return html.escape(str(value))


def label(value: object) -> str:
    """Return ``value`` as text that Plotly, which knows no ``&quot;``, shows letter by letter."""
    return html.escape(str(value), quote=False)


def number(value: float) -> str:
    """Return a parameter's value in four digits, without an exponent's padding."""
    return f"{value:.4g}".replace("e-0", "e-").replace("e+0", "e+")


def page(title: str, header: str, sections: Sequence[Section]) -> str:
    """Return the whole page; ``title`` is plain text, ``header`` and the sections are HTML."""
    links = "".join(f'<li><a href="#{one.anchor}">{one.title}</a></li>' for one in sections)
    parts = "\n".join(
        f'<section id="{one.anchor}"><h2>{one.title}</h2>\n{one.body}</section>' for one in sections
    )
    body = (
        f'<header class="top">\n{header}\n<nav aria-label="Contents"><ul>{links}</ul></nav>\n'
        f"</header>\n<main>\n{parts}\n</main>\n<footer><p>Made by segan-ray. This page holds all "
        "it shows: it needs no network and can be sent as it is.</p></footer>"
    )
    template = files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=esc(title), body=body, ramp=", ".join(SHADES), plotly=get_plotlyjs()
    )


def table(head: str, rows: Sequence[str], *, kind: str, caption: str) -> str:
    """Return a table in a box of its own, which scrolls when the screen is too narrow."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">\n'
        f'<table class="{kind}"><caption>{caption}</caption>\n<thead>{head}</thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>\n"
    )


def chart(name: str, figure: go.Figure, *, spoken: str, caption: str) -> str:
    """Return the place of a chart and its data; ``spoken`` is for those who cannot see it."""
    # A "<" inside the data could end the script element that carries it.
    data = str(figure.to_json()).replace("<", "\\u003c")
    return (
        f'<figure class="chart"><div id="chart-{name}" role="img" aria-label="{spoken}" '
        f'style="min-height:{figure.layout.height}px"></div>\n'
        "<noscript><p>Charts need JavaScript.</p></noscript>\n"
        f"<figcaption>{caption}</figcaption></figure>\n"
        f'<script type="application/json" data-chart="chart-{name}">{data}</script>\n'
    )


def in_order(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return trials in the order of their numbers, zero-padded or not."""
    return sorted(trials, key=lambda trial: (len(trial.trial), trial.trial))


def scored(sweep: SweepRecord) -> list[TrialRecord]:
    """Return the trials with a score that can be drawn, best first."""
    return [one for one in sweep.trials if one.score is not None and math.isfinite(one.score)]


def history_chart(sweep: SweepRecord) -> go.Figure:
    """Draw each trial's score in the order of trials, and the best score so far."""
    better = max if sweep.mode == "max" else min
    ordered, drawn = in_order(sweep.trials), {one.trial for one in scored(sweep)}
    with_score = [one for one in ordered if one.trial in drawn]
    so_far = list(accumulate((float(one.score or 0.0) for one in with_score), better))
    figure = _figure(label(sweep.metric), 360)
    line = {"color": INK, "width": 1.6, "shape": "hv"}
    _add(
        figure,
        [(*at, "") for at in zip((label(one.trial) for one in with_score), so_far, strict=True)],
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


def curves_chart(sweep: SweepRecord, histories: Mapping[str, History]) -> go.Figure:
    """Draw the objective after each epoch, one line a trial, and how those cut short ended."""
    figure, shades = _figure(label(sweep.metric), 420), _shades(sweep)
    lines = {
        one.trial: _curve(one, histories[one.trial])
        for one in reversed(sweep.trials)
        if histories.get(one.trial)
    }
    best = sweep.best.trial if sweep.best else None
    others = {trial: line for trial, line in lines.items() if trial != best}
    if len(others) > MANY:
        joined = [point for line in others.values() for point in (*line, GAP)]
        _add_curve(figure, joined, GREY, 0.8, showlegend=False)
    else:
        for trial, line in others.items():
            _add_curve(figure, line, shades.get(trial, GREY), 1.8, showlegend=False)
    if best in lines:
        _add_curve(figure, lines[best], BEST, 3.2, name=f"best: {label(best)}", showlegend=True)
    _add_ends(figure, sweep, lines)
    longest = max(len(line) for line in lines.values())
    ticks = {"dtick": 1} if longest <= 12 else {"tickformat": "d"}
    figure.update_xaxes(title="epoch", showgrid=False, rangemode="tozero", **ticks)
    return figure


def _figure(y_title: str, height: int) -> go.Figure:
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


def _add(figure: go.Figure, points: Sequence[Any], **style: Any) -> None:
    """Add one trace; ``points`` are (x, y, text), and a GAP lifts the pen."""
    xs, ys, texts = zip(*points, strict=True)
    told = {"text": texts, "hovertemplate": "%{text}<extra></extra>"}
    figure.add_scatter(x=xs, y=ys, **(told | style))


def _add_curve(
    figure: go.Figure, line: Sequence[Point], colour: str, width: float, **style: Any
) -> None:
    mode = "lines" if len(line) > 1 else "markers"
    told = "<b>trial %{text}</b><br>epoch %{x}: %{y:.4f}<extra></extra>"
    pen = {"color": colour, "width": width}
    _add(figure, line, mode=mode, line=pen, marker_color=colour, hovertemplate=told, **style)


def _told(trial: TrialRecord, *more: str) -> str:
    score = "no score" if trial.score is None else f"score {trial.score:.4f}"
    return "<br>".join([f"<b>trial {label(trial.trial)}</b>, {WORDS[trial.status]}", score, *more])


def _shades(sweep: SweepRecord) -> dict[str, str]:
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


def _curve(trial: TrialRecord, history: History) -> list[Point]:
    return [(epoch, round(value, 5), label(trial.trial)) for epoch, value in sorted(history)]


def _add_scores(figure: go.Figure, status: TrialStatus, trials: Sequence[TrialRecord]) -> None:
    if trials:
        points = [(label(one.trial), one.score, _told(one)) for one in trials]
        _add(figure, points, name=WORDS[status], mode="markers", marker=MARKERS[status])


def _add_without_score(figure: go.Figure, trials: Sequence[TrialRecord]) -> None:
    """Mark trials without a score on the floor of the chart, since they have no height."""
    if not trials:
        return
    points = [(label(one.trial), 0.0, _told(one)) for one in trials]
    _add(figure, points, name="no score", mode="markers", marker=MARKERS["failed"], yaxis="y2")
    figure.data[-1].update(cliponaxis=False)
    figure.update_layout(
        yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True}
    )


def _add_star(figure: go.Figure, sweep: SweepRecord) -> None:
    if sweep.best:
        points = [(label(sweep.best.trial), sweep.best.score, _told(sweep.best))]
        star = {"symbol": "star", "size": 17, "color": BEST, "line": {"color": "#fff", "width": 1}}
        _add(figure, points, name=f"best: {label(sweep.best.trial)}", mode="markers", marker=star)


def _add_ends(figure: go.Figure, sweep: SweepRecord, lines: Mapping[str, list[Point]]) -> None:
    """Mark where the lines of stopped and failed trials break off."""
    for status in ("stopped", "failed"):
        ends = [
            lines[one.trial][-1]
            for one in sweep.trials
            if one.status == status and one.trial in lines
        ]
        if ends:
            _add(figure, ends, name=WORDS[status], mode="markers", marker=MARKERS[status])


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

    def place(value: float) -> float:
        return (scale(value) - scale(low)) / span if span else 0.5

    few = sorted(set(values.values()))
    shown = few if len(few) <= 5 and all(float(one).is_integer() for one in few) else [low, high]
    return Axis(
        name + (" (log)" if logarithmic else ""),
        {trial: place(value) for trial, value in values.items()},
        {trial: number(value) for trial, value in values.items()},
        {number(value): place(value) for value in shown},
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
    trials, shades = scored(sweep), _shades(sweep)
    figure = _figure("", 60 * len(axes) + 40)
    figure.update_layout(margin={"l": 12, "r": 12, "t": 34, "b": 26}, showlegend=False)
    figure.update_xaxes(visible=False, range=[-0.005, 1.005])
    figure.update_yaxes(visible=False, range=[len(axes) - 0.9, -0.1], automargin=False)
    for row, axis in enumerate(axes):
        _add_axis(figure, row, axis)
    width = 1.6 if len(trials) <= MANY else 0.8
    for shade in (PALE, *SHADES):
        group = [one for one in reversed(trials[1:]) if shades[one.trial] == shade]
        points = [point for one in group for point in (*_path(one, axes), GAP)]
        if points:
            _add_path(figure, points, shade, width)
    _add_path(figure, _path(trials[0], axes), BEST, 3.2)
    return figure


def _path(trial: TrialRecord, axes: Sequence[Axis]) -> list[Point]:
    return [
        (
            axis.places.get(trial.trial),
            row,
            _told(trial, f"{label(axis.name)}: {label(axis.texts.get(trial.trial, ''))}"),
        )
        for row, axis in enumerate(axes)
    ]


def _add_path(figure: go.Figure, points: Sequence[Point], colour: str, width: float) -> None:
    line = {"color": colour, "width": width}
    marker = {"color": colour, "size": 4 + 1.8 * width, "line": {"color": "#fff", "width": 1}}
    _add(figure, points, mode="lines+markers", line=line, marker=marker)


def _add_axis(figure: go.Figure, row: int, axis: Axis) -> None:
    line = {"color": GREY, "width": 1}
    figure.add_shape(type="line", x0=0, x1=1, y0=row, y1=row, line=line, layer="below")
    plain = {"showarrow": False, "borderpad": 0}
    name = {"text": f"<b>{label(axis.name)}</b>", "font": {"color": INK, "size": 13}}
    figure.add_annotation(x=0, y=row, xanchor="left", yshift=17, **name, **plain)
    for text, place in axis.ticks.items():
        anchor = "left" if place < 0.02 else "right" if place > 0.98 else "center"
        tick = {"text": label(text), "font": {"color": SOFT, "size": 12}}
        figure.add_annotation(x=place, y=row, xanchor=anchor, yshift=-14, **tick, **plain)
