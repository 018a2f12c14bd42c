"""The top of the page: what came of the sweep, in three sentences and a few figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from segan_ray.brats import REGIONS
from segan_ray.errors import many
from segan_ray.evaluation.report.content import SweepReport
from segan_ray.evaluation.report.page import esc
from segan_ray.evaluation.report.words import (
    REGION_NAMES,
    WORDS,
    chip,
    direction,
    interval,
    scored_patients,
)
from segan_ray.search.results.ranking import Repeats, SweepRecord


def header(report: SweepReport) -> str:
    """Return the page's head as HTML."""
    sweep = report.sweep
    sentences = [
        _still(sweep),
        _best_sentence(sweep),
        _evaluation_sentence(report.evaluation),
        _counts(sweep),
    ]
    return (
        '<p class="eyebrow">segan-ray sweep</p>\n'
        f"<h1>{esc(sweep.sweep)}</h1>\n"
        f'<p class="meta">{esc(_date(sweep.created))} · {esc(sweep.status)} · '
        f"store {esc(sweep.store)}</p>\n"
        f'<p class="lead">{" ".join(filter(None, sentences))}</p>\n'
        f'<dl class="tiles">{"".join(_tiles(report))}</dl>'
    )


def _date(created: str) -> str:
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        return created
    return f"{moment.day} {moment:%B %Y, %H:%M} {moment.tzname() or ''}".rstrip()


def _still(sweep: SweepRecord) -> str:
    if sweep.status == "running":
        return "The sweep is still running: this is how it stood when the page was made."
    if sweep.status == "interrupted":
        return "The sweep was interrupted; <code>segan-ray tune … --resume</code> goes on with it."
    return ""


def _best_sentence(sweep: SweepRecord) -> str:
    best = sweep.best
    if best is None or best.score is None:
        return "No trial has a score yet." if sweep.status == "running" else "No trial has a score."
    only = len(sweep.trials) == 1
    who = "The only trial" if only else f"Trial <strong>{esc(best.trial)}</strong> won: it"
    reached = f"{who} reached {esc(sweep.metric)} <strong>{best.score:.3f}</strong>"
    return f"{reached}{_repeated(sweep.repeats[0])}." if sweep.repeats else f"{reached}."


def _repeated(group: Repeats) -> str:
    spread = "" if group.std is None else f" ± {group.std:.3f}"
    return (
        f", and its settings a mean of {group.mean:.3f}{spread} over "
        f"{many(len(group.scores), 'fresh seed')}, the best of those repeated"
    )


def _evaluation_sentence(evaluation: Mapping[str, Any] | None) -> str:
    if evaluation is None:
        return ""
    dice = evaluation["summary"]["whole"]["dice"]
    limits = _limits(dice)
    return (
        f"On {scored_patients(evaluation)} the evaluated model reaches a whole-tumour Dice of "
        f"<strong>{dice['mean']:.3f}</strong>{f' ({limits})' if limits else ''}."
    )


def _limits(dice: Mapping[str, Any]) -> str:
    """Return the interval in words, or nothing where the patients are too few for one."""
    limits = interval(dice, 3)
    return f"95% interval <span class=number>{limits}</span>" if limits else ""


def _counts(sweep: SweepRecord) -> str:
    return f"{many(len(sweep.trials), 'trial')}: {_statuses(sweep)}." if sweep.trials else ""


def _statuses(sweep: SweepRecord) -> str:
    counts = Counter(one.status for one in sweep.trials)
    return ", ".join(
        f"{'all' if counts[status] == len(sweep.trials) > 1 else counts[status]} {word}"
        for status, word in WORDS.items()
        if counts[status]
    )


def _tiles(report: SweepReport) -> list[str]:
    """Return the figures a reader looks for first."""
    sweep, tiles = report.sweep, []
    if sweep.best is not None and sweep.best.score is not None:
        note = f"trial {esc(sweep.best.trial)}, {direction(sweep)}"
        tiles.append(_tile(f"{esc(sweep.metric)} of the winner", f"{sweep.best.score:.3f}", note))
    if report.evaluation is not None:
        split = esc(report.evaluation["split"]).capitalize()
        for region in REGIONS:
            dice = report.evaluation["summary"][region]["dice"]
            label = f"{chip(region)}{split} Dice, {REGION_NAMES[region]}"
            note = _limits(dice)
            tiles.append(_tile(label, f"{dice['mean']:.3f}", note))
    else:
        tiles.append(_tile("Trials", str(len(sweep.trials)), _statuses(sweep)))
    return tiles


def _tile(label: str, value: str, note: str) -> str:
    return (
        f'<div><dt>{label}</dt><dd class="value">{value}</dd><dd class="note">{note}</dd></div>\n'
    )
