"""Parameter importances: what made the difference."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from segan_ray.evaluation.report.content import SweepReport
from segan_ray.evaluation.report.drawing import INK, blank_figure
from segan_ray.evaluation.report.page import Section, chart, esc, label, missing
from segan_ray.search.results.importance import FEWEST, importances

SURE = 20


def importance(report: SweepReport) -> Section:
    """Show Optuna's importance of each parameter as a bar."""
    title, short = "Parameter importances", "Importances"
    found = importances(report.sweep.trials, report.sweep.mode)
    if not found:
        why = (
            f"They need at least {FEWEST} trials with a score and a parameter that all of them "
            "have and that varies. More trials:"
        )
        command = "segan-ray tune STORE --space FILE --name SWEEP --trials N --resume"
        return Section("importance", title, missing(why, command), short)
    count = sum(one.score is not None and one.repeat_of is None for one in report.sweep.trials)
    hint = f" Of {count} trials this is a hint at best." if count < SURE else ""
    drawn = chart(
        "importance",
        importance_chart(found),
        spoken="Importance of each parameter as a share of the whole",
        caption=f"Optuna's PED-ANOVA on {esc(report.sweep.metric)} of {count} trials: how far the "
        "best tenth differs from the rest in each parameter. Parameters that only some trials "
        f"have are left out.{hint}",
    )
    return Section("importance", title, drawn, short)


def importance_chart(shares: Mapping[str, float]) -> go.Figure:
    """Draw a bar for each parameter, the greatest on top, its name above it."""
    figure = blank_figure("", 44 * len(shares) + 40)
    names = list(shares)
    figure.add_bar(
        x=[round(share, 4) for share in shares.values()],
        y=list(range(len(names))),
        orientation="h",
        width=0.34,
        marker={"color": "#0072b2"},
        text=[f"{share:.0%}" for share in shares.values()],
        textposition="outside",
        textfont={"color": INK},
        cliponaxis=False,
        hovertemplate="%{text}<extra></extra>",
    )
    for row, name in enumerate(names):
        figure.add_annotation(
            x=0, y=row, text=f"<b>{label(name)}</b>", xanchor="left", yshift=17, showarrow=False,
            borderpad=0, font={"color": INK, "size": 13},
        )  # fmt: skip
    figure.update_layout(margin={"l": 12, "r": 12, "t": 12, "b": 12}, showlegend=False)
    figure.update_xaxes(visible=False, range=[0, 1.14 * max(shares.values())])
    figure.update_yaxes(visible=False, range=[len(names) - 0.6, -0.7], automargin=False)
    return figure
