"""The leaderboard: every trial with its parameters, the winner marked, and why some failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from segan_ray.errors import many
from segan_ray.evaluation.report.content import SweepReport
from segan_ray.evaluation.report.drawing import in_order
from segan_ray.evaluation.report.page import Section, esc, missing, number, table
from segan_ray.evaluation.report.words import SYMBOLS, direction, words_of
from segan_ray.search.results.ranking import Repeats, SweepRecord, TrialRecord

SHOWN: Final = 20
"""How many trials are shown without asking for the rest."""
NAMED: Final = 12
"""How many failed trials one reason names."""


def leaderboard(report: SweepReport) -> Section:
    """Show the best trials, the winner among them, and the others on demand."""
    sweep = report.sweep
    if not sweep.trials:
        why = "No trial has started yet."
        return Section("leaderboard", "Leaderboard", missing(why))
    best = sweep.best
    ranked = list(enumerate(sweep.trials, start=1))
    shown = [at for at in ranked if at[0] <= SHOWN or at[1] is best]
    rest = [at for at in ranked if at not in shown]
    body = f"<p>{_said(sweep)}</p>" + _table(sweep, shown, "Trials, best first")
    if rest:
        body += (
            f'<details class="long"><summary>The other {many(len(rest), "trial")}</summary>'
            f"{_table(sweep, rest, 'The other trials')}</details>"
        )
    body += _repeats(sweep.repeats, sweep) + _failures(sweep.trials)
    return Section("leaderboard", "Leaderboard", body)


def _said(sweep: SweepRecord) -> str:
    wins = " ★ marks the winner." if sweep.best is not None else ""
    if sweep.repeats:
        wins = (
            " ★ marks the winner: of the settings that were repeated with fresh seeds, those with "
            "the best mean, since the best of many single scores is partly luck."
        )
    return (
        f"Best first; {direction(sweep)}. A trial's score is that of its best epoch, whatever "
        f"came after.{wins}"
    )


def _table(sweep: SweepRecord, ranked: Sequence[tuple[int, TrialRecord]], caption: str) -> str:
    names = _parameter_names(sweep.trials)
    repeated = any(one.repeat_of is not None for one in sweep.trials)
    metrics = [name for name, _ in sweep.objectives] or [sweep.metric]
    heads = ["Rank", "Trial", *(f"<code>{esc(name)}</code>" for name in metrics)]
    heads += ["Status", "Epochs", *["Repeats"] * repeated]
    heads += [f"<code>{esc(name)}</code>" for name in names]
    head = "<tr>" + "".join(f'<th scope="col">{text}</th>' for text in heads) + "</tr>"
    winner = None if sweep.best is None else sweep.best.trial
    rows = [
        _row(rank, one, names, metrics, repeated=repeated, wins=one.trial == winner)
        for rank, one in ranked
    ]
    return table(head, rows, kind="leaderboard", caption=caption)


def _parameter_names(trials: Sequence[TrialRecord]) -> list[str]:
    return list(dict.fromkeys(name for one in in_order(trials) for name in one.params))


def _row(
    rank: int,
    one: TrialRecord,
    names: Sequence[str],
    metrics: Sequence[str],
    *,
    repeated: bool,
    wins: bool,
) -> str:
    scores = [one.objectives.get(name, one.score) for name in metrics]
    cells = [
        f"<td>{'–' if one.score is None else rank}{' <span class=star>★</span>' * wins}</td>",
        f'<th scope="row">{esc(one.trial)}</th>',
        *(f"<td>{'–' if score is None else f'{score:.4f}'}</td>" for score in scores),
        f'<td class="{one.status}"><span class="symbol" aria-hidden="true">{SYMBOLS[one.status]}'
        f"</span>{words_of(one)}</td>",
        f"<td>{one.epochs}</td>",
        *([f"<td>{esc(one.repeat_of or '')}</td>"] * repeated),
        *(
            f"<td>{esc(_value(one.params[name])) if name in one.params else '–'}</td>"
            for name in names
        ),
    ]
    return f"<tr{' class=best' * wins}>{''.join(cells)}</tr>"


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_value(one) for one in value)
    if isinstance(value, float):
        return f"{value:.1f}" if value.is_integer() and abs(value) < 1000 else number(value)
    return str(value)


def _repeats(groups: Sequence[Repeats], sweep: SweepRecord) -> str:
    """Show what settings reached with fresh seeds, the winning ones first."""
    if not groups:
        return ""
    rows = [
        f'<tr{" class=best" * (group is groups[0])}><th scope="row">{esc(group.trial)}</th>'
        f"<td>{len(group.scores)}</td><td>{group.mean:.4f}</td>"
        f"<td>{'–' if group.std is None else f'{group.std:.4f}'}</td>"
        f"<td>{', '.join(f'{score:.4f}' for score in group.scores)}</td></tr>"
        for group in groups
    ]
    heads = ("Settings of", "Seeds", f"Mean {esc(sweep.metric)}", "Standard deviation", "Scores")
    head = "<tr>" + "".join(f'<th scope="col">{text}</th>' for text in heads) + "</tr>"
    return "<h3>Repeated with fresh seeds</h3>" + table(
        head, rows, kind="repeats", caption="Repeats"
    )


def _failures(trials: Sequence[TrialRecord]) -> str:
    reasons: dict[str, list[TrialRecord]] = {}
    lost = [one for one in trials if one.status == "failed" or one.infeasible]
    for one in in_order(lost):
        reasons.setdefault(one.reason or "No reason was recorded.", []).append(one)
    if not reasons:
        return ""
    items = "\n".join(
        f'<li><span class="symbol" aria-hidden="true">{SYMBOLS["failed"]}</span>'
        f"<strong>{_who(failed)}</strong>: {esc(reason)}</li>"
        for reason, failed in reasons.items()
    )
    return f'<h3>Why trials failed or cannot win</h3>\n<ul class="reasons">\n{items}\n</ul>\n'


def _who(failed: Sequence[TrialRecord]) -> str:
    if len(failed) == 1:
        return f"Trial {esc(failed[0].trial)}, after {many(failed[0].epochs, 'epoch')}"
    names = ", ".join(esc(one.trial) for one in failed[:NAMED])
    return f"{len(failed)} trials ({names}{', …' * (len(failed) > NAMED)})"
