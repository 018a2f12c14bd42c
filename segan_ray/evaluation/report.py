"""A sweep as one self-contained HTML page, to be sent to a colleague.

``SECTIONS`` is the page from top to bottom. A section is a function from the report to a
``Section``, or to None where there is nothing to show.
"""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from segan_ray.brats import REGIONS, Region
from segan_ray.errors import DataError
from segan_ray.evaluation.report_page import (
    MANY,
    SYMBOLS,
    WORDS,
    Axis,
    Section,
    chart,
    curves_chart,
    esc,
    history_chart,
    in_order,
    named_axis,
    number,
    numeric_axis,
    page,
    parameters_chart,
    scored,
    table,
)
from segan_ray.search.ranking import SweepRecord, TrialRecord

# The colours in which the overlays draw the regions (Okabe and Ito's palette).
REGION_COLOURS: Final[dict[Region, str]] = {
    "whole": "#E69F00",
    "core": "#56B4E9",
    "enhancing": "#CC79A7",
}
REGION_NAMES: Final[dict[Region, str]] = {
    "whole": "whole tumour",
    "core": "tumour core",
    "enhancing": "enhancing tumour",
}
MODEL_NAMES: Final = {"unet": "U-Net", "threshold": "Threshold"}
METRIC_NAMES: Final = {
    "dice": "Dice",
    "hd95": "HD95, mm",
    "precision": "Precision",
    "sensitivity": "Sensitivity",
}
LOWER_IS_BETTER: Final = {"hd95"}


@dataclass(frozen=True)
class SweepReport:
    """All that the page of one sweep shows."""

    sweep: SweepRecord
    space: str
    histories: Mapping[str, Sequence[tuple[int, float]]]
    overlay_png: bytes | None
    evaluation: Mapping[str, Any] | None
    provenance: Mapping[str, str]


def render_report(report: SweepReport) -> str:
    """Return the page: an HTML5 document that loads nothing from anywhere."""
    sections = [made for section in SECTIONS if (made := section(report)) is not None]
    return page(f"{report.sweep.sweep}: sweep report", _header(report), sections)


def write_report(report: SweepReport, out: Path) -> None:
    """Write the page to ``out``, whole or not at all.

    Raises:
        DataError: if ``out`` cannot be written.
    """
    if not out.parent.is_dir():
        raise DataError(
            f"{out}: there is no folder {out.parent} to write the report into. "
            "Create it, or choose another place."
        )
    text = render_report(report)
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, out)
    except OSError as problem:
        raise DataError(f"{out}: the report cannot be written: {problem.strerror}.") from problem
    finally:
        partial.unlink(missing_ok=True)


def _header(report: SweepReport) -> str:
    sweep = report.sweep
    sentences = [_best_sentence(sweep), _evaluation_sentence(report.evaluation), _counts(sweep)]
    return (
        '<p class="eyebrow">segan-ray sweep</p>\n'
        f"<h1>{esc(sweep.sweep)}</h1>\n"
        f'<p class="meta">{esc(_date(sweep.created))} · {sweep.status} · '
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


def _best_sentence(sweep: SweepRecord) -> str:
    best = sweep.best
    if best is None or best.score is None:
        return "No trial has a score."
    only = len(sweep.trials) == 1
    who = "The only trial" if only else f"Trial <strong>{esc(best.trial)}</strong> is the best: it"
    return f"{who} reached {esc(sweep.metric)} <strong>{best.score:.3f}</strong>."


def _evaluation_sentence(evaluation: Mapping[str, Any] | None) -> str:
    if evaluation is None:
        return ""
    dice = evaluation["summary"]["whole"]["dice"]
    return (
        f"On {_patients(evaluation)} the evaluated model reaches a whole-tumour Dice of "
        f"<strong>{dice['mean']:.3f}</strong> (95% interval {_interval(dice, 3)})."
    )


def _counts(sweep: SweepRecord) -> str:
    return f"{_many(len(sweep.trials), 'trial')}: {_statuses(sweep)}." if sweep.trials else ""


def _statuses(sweep: SweepRecord) -> str:
    counts = Counter(one.status for one in sweep.trials)
    return ", ".join(
        f"{'all' if counts[status] == len(sweep.trials) > 1 else counts[status]} {word}"
        for status, word in WORDS.items()
        if counts[status]
    )


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _patients(evaluation: Mapping[str, Any]) -> str:
    count = len({case["patient"] for case in evaluation["cases"]})
    return _many(count, f"{esc(evaluation['split'])} patient")


def _interval(summary: Mapping[str, Any], digits: int) -> str:
    low, high = summary["ci95"]
    return f"{low:.{digits}f}–{high:.{digits}f}"


def _tiles(report: SweepReport) -> list[str]:
    """Return the figures a reader looks for first."""
    sweep, tiles = report.sweep, []
    if sweep.best is not None and sweep.best.score is not None:
        told = f"trial {esc(sweep.best.trial)}, {_direction(sweep)}"
        tiles.append(_tile(f"Best {esc(sweep.metric)}", f"{sweep.best.score:.3f}", told))
    if report.evaluation is not None:
        split = esc(report.evaluation["split"]).capitalize()
        for region in REGIONS:
            dice = report.evaluation["summary"][region]["dice"]
            label = f"{_chip(region)}{split} Dice, {REGION_NAMES[region]}"
            tiles.append(
                _tile(
                    label,
                    f"{dice['mean']:.3f}",
                    f"95% interval <span class=number>{_interval(dice, 3)}</span>",
                )
            )
    else:
        tiles.append(_tile("Trials", str(len(sweep.trials)), _statuses(sweep)))
    return tiles


def _tile(label: str, value: str, note: str) -> str:
    return (
        f'<div><dt>{label}</dt><dd class="value">{value}</dd><dd class="note">{note}</dd></div>\n'
    )


def _direction(sweep: SweepRecord) -> str:
    return "higher is better" if sweep.mode == "max" else "lower is better"


def _chip(region: Region) -> str:
    return f'<span class="chip" style="--chip:{REGION_COLOURS[region]}"></span>'


def _evaluation(report: SweepReport) -> Section | None:
    """Show the evaluated model beside the references, on patients no trial saw."""
    if report.evaluation is None:
        return None
    document = report.evaluation
    models = [("Champion", esc(document["model"]), document["summary"])]
    for name, summary in (document.get("references") or {}).items():
        models.append((MODEL_NAMES.get(name, esc(name)), "reference", summary))
    cases = _many(len(document["cases"]), "case")
    body = (
        f"<p>Means over {_patients(document)} ({cases}), scored on whole volumes in their original "
        "grid. Below each mean its 95% bootstrap interval; bold is the best of a column. "
        "HD95, the distance between surfaces, is better the smaller it is.</p>"
        + _model_table(models, ("dice", "hd95"), "Dice and HD95 of each model")
        + "<details><summary>Precision and sensitivity</summary>"
        + _model_table(models, ("precision", "sensitivity"), "Precision and sensitivity")
        + "</details>"
    )
    return Section("evaluation", f"{esc(document['split']).capitalize()} patients", body)


def _model_table(
    models: Sequence[tuple[str, str, Mapping[str, Any]]], metrics: Sequence[str], caption: str
) -> str:
    columns = [(region, metric) for region in REGIONS for metric in metrics]
    groups = "".join(
        f'<th scope="colgroup" colspan="{len(metrics)}" class="group">{_chip(region)}'
        f"{REGION_NAMES[region].capitalize()}</th>"
        for region in REGIONS
    )
    heads = "".join(
        f'<th scope="col"{_group(metric == metrics[0])}>{METRIC_NAMES[metric]}</th>'
        for _, metric in columns
    )
    best = {
        at: _best_of(at[1], [summary[at[0]][at[1]] for *_, summary in models]) for at in columns
    }
    rows = [
        f'<tr><th scope="row">{name}<span class="sub">{note}</span></th>'
        + "".join(
            f"<td{_group(at[1] == metrics[0])}>{_cell(summary[at[0]][at[1]], at[1], best[at])}</td>"
            for at in columns
        )
        + "</tr>"
        for name, note, summary in models
    ]
    head = f'<tr><th scope="col" rowspan="2">Model</th>{groups}</tr><tr>{heads}</tr>'
    return table(head, rows, kind="tests", caption=caption)


def _group(first: bool) -> str:
    return ' class="group"' if first else ""


def _best_of(metric: str, summaries: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the best mean, or None where a single model has nothing to be better than."""
    if len(summaries) < 2:
        return None
    better = min if metric in LOWER_IS_BETTER else max
    return float(better(summary["mean"] for summary in summaries))


def _cell(summary: Mapping[str, Any], metric: str, best: float | None) -> str:
    digits = 1 if metric == "hd95" else 3
    mean = f"{summary['mean']:.{digits}f}"
    shown = f"<strong>{mean}</strong>" if summary["mean"] == best else mean
    return f'{shown} <span class="interval">{_interval(summary, digits)}</span>'


def _overlay(report: SweepReport) -> Section | None:
    """Show what the best trial segments, beside the truth."""
    if report.overlay_png is None:
        return None
    keys = "".join(
        f'<span class="key">{_chip(region)}{REGION_NAMES[region]}</span>' for region in REGIONS
    )
    best = report.sweep.best
    whose = f"trial {esc(best.trial)}" if best else "the best trial"
    picture = base64.b64encode(report.overlay_png).decode("ascii")
    body = (
        f'<figure><img src="data:image/png;base64,{picture}" alt="Slices of validation patients '
        f"with outlined tumour regions: on the left as experts drew them, on the right as {whose} "
        f'predicts them.">\n<figcaption>{keys}<br>Outlines on slices of validation patients, truth '
        f"beside the prediction of {whose}. The slices are those with the most tumour, and the "
        "same for every trial.</figcaption></figure>"
    )
    return Section("pictures", "Truth and prediction", body)


def _leaderboard(report: SweepReport) -> Section:
    """Show every trial with its parameters, best first, and why the failed ones failed."""
    trials = report.sweep.trials
    names = _parameter_names(trials)
    heads = ["Rank", "Trial", "Status", "Epochs", f"<code>{esc(report.sweep.metric)}</code>"]
    heads += [f"<code>{esc(name)}</code>" for name in names]
    head = "<tr>" + "".join(f'<th scope="col">{text}</th>' for text in heads) + "</tr>"
    rows = [_trial_row(rank, one, names) for rank, one in enumerate(trials, start=1)]
    body = (
        f"<p>Best first; {_direction(report.sweep)}. A trial's score is that of its best "
        "epoch, whatever came after.</p>"
        + table(head, rows, kind="leaderboard", caption="Trials, best first")
        + _failures(trials)
    )
    return Section("leaderboard", "Leaderboard", body)


def _parameter_names(trials: Iterable[TrialRecord]) -> list[str]:
    return list(dict.fromkeys(name for one in in_order(list(trials)) for name in one.params))


def _trial_row(rank: int, one: TrialRecord, names: Sequence[str]) -> str:
    is_best = rank == 1 and one.score is not None
    cells = [
        f"<td>{'–' if one.score is None else rank}{' <span class=star>★</span>' * is_best}</td>",
        f'<th scope="row">{esc(one.trial)}</th>',
        f'<td class="{one.status}"><span class="symbol" aria-hidden="true">{SYMBOLS[one.status]}'
        f"</span>{WORDS[one.status]}</td>",
        f"<td>{one.epochs}</td>",
        f"<td>{'–' if one.score is None else f'{one.score:.4f}'}</td>",
        *(
            f"<td>{esc(_value(one.params[name])) if name in one.params else '–'}</td>"
            for name in names
        ),
    ]
    return f"<tr{' class=best' * is_best}>{''.join(cells)}</tr>"


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_value(one) for one in value)
    if isinstance(value, float):
        return f"{value:.1f}" if value.is_integer() and abs(value) < 1000 else number(value)
    return str(value)


def _failures(trials: Sequence[TrialRecord]) -> str:
    reasons: dict[str, list[TrialRecord]] = {}
    for one in in_order([one for one in trials if one.status == "failed"]):
        reasons.setdefault(one.reason or "No reason was recorded.", []).append(one)
    if not reasons:
        return ""
    items = "\n".join(
        f'<li><span class="symbol" aria-hidden="true">{SYMBOLS["failed"]}</span>'
        f"<strong>{_who(failed)}</strong>: {esc(reason)}</li>"
        for reason, failed in reasons.items()
    )
    return f'<h3>Why trials failed</h3>\n<ul class="reasons">\n{items}\n</ul>\n'


def _who(failed: Sequence[TrialRecord]) -> str:
    if len(failed) == 1:
        return f"Trial {esc(failed[0].trial)}, after {_many(failed[0].epochs, 'epoch')}"
    return f"{len(failed)} trials ({', '.join(esc(one.trial) for one in failed)})"


def _history(report: SweepReport) -> Section | None:
    """Show whether the search still finds better trials."""
    if len(scored(report.sweep)) < 2:
        return None
    drawn = chart(
        "history",
        history_chart(report.sweep),
        spoken="Score of each trial in the order of trials, with the best score so far",
        caption="Each mark is a trial, the line the best score so far: where it is flat, the "
        "search found nothing better.",
    )
    return Section("history", "Optimisation history", drawn)


def _curves(report: SweepReport) -> Section | None:
    """Show how each trial learned."""
    if not any(report.histories.values()):
        return None
    drawn = chart(
        "curves",
        curves_chart(report.sweep, report.histories),
        spoken="The objective after each epoch, one line for each trial",
        caption=f"{esc(report.sweep.metric)} after each epoch, a line a trial. A square ends the "
        "line of a trial that the scheduler stopped early, a cross that of one that failed.",
    )
    return Section("curves", "Learning curves", drawn)


def _parameters(report: SweepReport) -> Section | None:
    """Show which parameters go with good scores."""
    axes = _axes(report.sweep)
    if len(scored(report.sweep)) < 2 or len(axes) < 2:
        return None
    tints = (
        "Blue lines are the best tenth of the trials"
        if len(scored(report.sweep)) > MANY
        else 'Tints run from the worst <span class="ramp"></span> to the best scores'
    )
    drawn = chart(
        "parameters",
        parameters_chart(report.sweep, axes),
        spoken="Parallel coordinates: score and parameters of each trial, joined by a line",
        caption=f"Follow a line down to read one trial. {tints}; the best trial is the thick line. "
        "A line breaks off where a trial has no such parameter.",
    )
    return Section("parameters", "Parameters against score", drawn)


def _axes(sweep: SweepRecord) -> list[Axis]:
    """Return the score's axis, then one for each parameter, those that all trials have first."""
    trials = scored(sweep)
    columns: dict[str, dict[str, Any]] = {}
    for one in in_order(trials):
        for name, value in _scalars(one.params):
            columns.setdefault(name, {})[one.trial] = value
    ordered = sorted(columns.items(), key=lambda column: -len(column[1]))
    scores = {one.trial: float(one.score or 0.0) for one in trials}
    first = [numeric_axis(sweep.metric, scores, linear=True)] if scores else []
    return first + [_axis(name, values) for name, values in ordered]


def _axis(name: str, values: Mapping[str, Any]) -> Axis:
    if all(isinstance(one, int | float) and not isinstance(one, bool) for one in values.values()):
        return numeric_axis(name, {trial: float(one) for trial, one in values.items()})
    return named_axis(name, {trial: str(one) for trial, one in values.items()})


def _scalars(params: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in params.items():
        if isinstance(value, list | tuple):
            yield from ((f"{name}[{index}]", one) for index, one in enumerate(value))
        else:
            yield name, value


def _space(report: SweepReport) -> Section:
    """Show what was searched."""
    body = (
        "<p>The file the sweep was started with: what was searched, and how.</p>\n"
        f"<details><summary>The YAML file</summary><pre><code>{esc(report.space)}</code></pre>"
        "</details>"
    )
    return Section("space", "Search space", body)


def _provenance(report: SweepReport) -> Section | None:
    """Show where the numbers come from, and how to get them again."""
    if not report.provenance:
        return None
    rows = "\n".join(
        f'<tr><th scope="row">{esc(label)}</th><td>{_fact(label, value)}</td></tr>'
        for label, value in report.provenance.items()
    )
    body = f'<table class="facts"><caption>Provenance</caption><tbody>\n{rows}\n</tbody></table>'
    return Section("provenance", "Provenance", body)


def _fact(label: str, value: str) -> str:
    """Return commands and other long texts as blocks that can be copied whole."""
    is_block = "\n" in value or "command" in label.lower()
    return f"<pre><code>{esc(value)}</code></pre>" if is_block else esc(value)


SECTIONS: Final[tuple[Callable[[SweepReport], Section | None], ...]] = (
    _evaluation,
    _overlay,
    _leaderboard,
    _history,
    _curves,
    _parameters,
    _space,
    _provenance,
)
