"""The Pareto front of a sweep with several objectives."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from segan_ray.evaluation.report.content import SweepReport
from segan_ray.evaluation.report.drawing import BEST, Point, add, blank_figure, in_order
from segan_ray.evaluation.report.page import Section, chart, esc, label, missing, table
from segan_ray.search.results.ranking import SweepRecord, TrialRecord


def pareto(report: SweepReport) -> Section | None:
    """Show the trials that no other beats in every objective; None of a single objective."""
    sweep = report.sweep
    if len(sweep.objectives) < 2:
        return None
    if not sweep.pareto:
        why = "No trial has a value of every objective yet."
        return Section("pareto", "Pareto front", missing(why))
    (first, _), *others = sweep.objectives
    drawn = "".join(
        chart(
            f"pareto-{index}",
            pareto_chart(sweep, first, other),
            spoken=f"{esc(other)} against {esc(first)} of every trial, the Pareto front marked",
            caption="A diamond is a trial that no other beats in every objective; circles are "
            f"beaten. {_better(sweep)}",
        )
        for index, (other, _) in enumerate(others)
    )
    return Section("pareto", "Pareto front", drawn + _front_table(sweep))


def pareto_chart(sweep: SweepRecord, across: str, up: str) -> go.Figure:
    """Draw every trial at two of its objectives, those on the front joined if there are two."""
    figure = blank_figure(label(up), 400)
    front = set(sweep.pareto)
    has_both = [one for one in in_order(sweep.trials) if {across, up} <= one.objectives.keys()]
    beaten = [_point(one, across, up) for one in has_both if one.trial not in front]
    members = sorted(
        (_point(one, across, up) for one in has_both if one.trial in front),
        key=lambda point: (point[0], point[1]),
    )
    if beaten:
        grey = {"symbol": "circle", "size": 8, "color": "#7a8793"}
        add(figure, beaten, name="beaten", mode="markers", marker=grey)
    mode = "lines+markers" if len(sweep.objectives) == 2 else "markers"
    mark = {"symbol": "diamond", "size": 12, "color": BEST, "line": {"color": "#fff", "width": 1}}
    pen = {"color": BEST, "width": 1.4, "dash": "dot"}
    add(figure, members, name="Pareto front", mode=mode, marker=mark, line=pen)
    figure.update_xaxes(title=label(across))
    return figure


def _point(one: TrialRecord, across: str, up: str) -> Point:
    x, y = one.objectives[across], one.objectives[up]
    said = f"<b>trial {label(one.trial)}</b><br>{label(across)} {x:.4g}<br>{label(up)} {y:.4g}"
    return round(x, 6), round(y, 6), said


def _better(sweep: SweepRecord) -> str:
    toward = {"max": "higher", "min": "lower"}
    said = [f"{esc(name)} the {toward[mode]}" for name, mode in sweep.objectives]
    return f"Better is {', '.join(said)}."


def _front_table(sweep: SweepRecord) -> str:
    by_name = {one.trial: one for one in sweep.trials}
    names = [name for name, _ in sweep.objectives]
    rows = [_front_row(by_name[trial], names) for trial in sweep.pareto]
    heads = ("Trial", *(f"<code>{esc(name)}</code>" for name in names))
    head = "<tr>" + "".join(f'<th scope="col">{text}</th>' for text in heads) + "</tr>"
    return table(head, rows, kind="front", caption="Trials on the Pareto front")


def _front_row(one: TrialRecord, names: Sequence[str]) -> str:
    cells = "".join(f"<td>{one.objectives[name]:.4g}</td>" for name in names)
    return f'<tr><th scope="row">{esc(one.trial)}</th>{cells}</tr>'
