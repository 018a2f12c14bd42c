"""The champion against the one before: what the gate found on its own patients."""

from __future__ import annotations

from segan_ray.evaluation.report.content import Promoted, SweepReport
from segan_ray.evaluation.report.page import Section, esc, missing, table
from segan_ray.evaluation.report.words import signed


def previous(report: SweepReport) -> Section:
    """Show every registered model of the sweep with the gate's verdict, newest first."""
    title, short = "Champion against the previous one", "Against the previous"
    if not report.promoted:
        why = "No model of this sweep is registered. The gate compares it with the champion:"
        command = f"segan-ray promote {report.sweep.sweep}"
        return Section("previous", title, missing(why, command), short)
    heads = ("Version", "Alias", "Trial", "Dice, difference to the champion then", "The gate said")
    head = "<tr>" + "".join(f'<th scope="col">{text}</th>' for text in heads) + "</tr>"
    rows = [_row(one) for one in report.promoted]
    body = (
        "<p>Mean Dice over the regions, compared patient by patient on patients that no trial saw, "
        "with the 95% interval of the mean difference: above 0 the new one is better.</p>"
        + table(head, rows, kind="gate", caption="Registered models of this sweep")
    )
    return Section("previous", title, body, short)


def _row(one: Promoted) -> str:
    flags = ["forced"] * one.forced + ["judged on the patients that chose it"] * one.optimistic
    said = f" ({', '.join(flags)})" if flags else ""
    return (
        f'<tr><th scope="row">{esc(one.version)}</th><td>{esc(", ".join(one.aliases) or "–")}</td>'
        f"<td>{esc(one.trial)}</td><td>{_difference(one)}</td>"
        f'<td class="words">{esc(one.verdict)}{said}</td></tr>'
    )


def _difference(one: Promoted) -> str:
    if one.difference is None:
        return "nobody to compare with"
    mean = f"<strong>{signed(one.difference['mean'])}</strong>"
    if one.difference["ci95"] is None:
        return f'{mean} <span class="interval">too few patients for an interval</span>'
    low, high = (signed(limit) for limit in one.difference["ci95"])
    return f'{mean} <span class="interval">{low} to {high}</span>'
