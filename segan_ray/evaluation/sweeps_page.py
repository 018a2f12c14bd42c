"""The page of several sweeps side by side: their spaces, their progress, their models."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Final

import plotly.graph_objects as go

from segan_ray.brats import REGIONS, Region
from segan_ray.evaluation.comparison_page import differences_section, said_setting
from segan_ray.evaluation.metrics.scores import paired_difference
from segan_ray.evaluation.report.drawing import blank_figure
from segan_ray.evaluation.report.page import Section, chart, esc, label, missing, page, table
from segan_ray.evaluation.report.sections.models import (
    MARKS,
    ReportedModel,
    models_chart,
    models_table,
)
from segan_ray.evaluation.report.words import patient_means
from segan_ray.search.results.needs import rough
from segan_ray.search.results.progress import BestSoFar
from segan_ray.search.results.question import SearchQuestion
from segan_ray.search.results.ranking import SweepRecord

DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash")


@dataclass(frozen=True)
class ComparedSweep:
    """One of the sweeps; ``evaluation`` is the newest ``evaluate`` document of its models."""

    sweep: SweepRecord
    asked: SearchQuestion | None
    progress: Sequence[BestSoFar]
    evaluation: Mapping[str, Any] | None

    @property
    def name(self) -> str:
        """The name of the sweep."""
        return self.sweep.sweep


def render_sweeps(sweeps: Sequence[ComparedSweep]) -> str:
    """Return the page, which loads nothing from anywhere."""
    sections = [_progress(sweeps), *_models(sweeps), _spaces(sweeps), _winners(sweeps)]
    names = " and ".join(each.name for each in sweeps)
    return page(f"{names}: sweeps side by side", _header(sweeps), sections)


def _header(sweeps: Sequence[ComparedSweep]) -> str:
    rows = [
        f'<tr><th scope="row">{esc(each.name)}</th><td>{esc(each.sweep.status)}</td>'
        f"<td>{len(each.sweep.trials)}</td><td>{_epochs(each)}</td><td>{_trained(each)}</td>"
        f"<td>{_best(each.sweep)}</td><td>{esc(each.sweep.store)}</td></tr>"
        for each in sweeps
    ]
    heads = ("Sweep", "Status", "Trials", "Epochs", "Trained for", "Best score", "Store")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    return (
        '<p class="eyebrow">segan-ray sweeps</p>\n'
        f"<h1>{' and '.join(esc(each.name) for each in sweeps)}</h1>\n"
        + table(f"<tr>{head}</tr>", rows, kind="ends", caption="The sweeps")
        + _caution(sweeps)
    )


def _epochs(each: ComparedSweep) -> str:
    return str(each.progress[-1].epochs) if each.progress else "0"


def _trained(each: ComparedSweep) -> str:
    return rough(each.progress[-1].hours * 3600 if each.progress else 0.0)


def _best(sweep: SweepRecord) -> str:
    best = sweep.best
    if best is None or best.score is None:
        return "none"
    return f"{esc(sweep.metric)} {best.score:.3f} (trial {esc(best.trial)})"


def _caution(sweeps: Sequence[ComparedSweep]) -> str:
    """Return what keeps scores from being compared, if anything does."""
    told = []
    if len({each.sweep.store for each in sweeps}) > 1:
        told.append("They were trained on different stores: levels of scores do not compare.")
    if len({(each.sweep.metric, each.sweep.mode) for each in sweeps}) > 1:
        told.append("They have different objectives, so their scores do not compare.")
    return f"<p>{' '.join(told)}</p>" if told else ""


def _progress(sweeps: Sequence[ComparedSweep]) -> Section:
    title = "Best score so far"
    if not any(each.progress for each in sweeps):
        return Section("progress", title, missing("No trial has a score yet."))
    body = (
        "<p>The best score of all trials, over the epochs that all of them trained together, and "
        "over the time in which any trained. Where a line is flat, nothing better was found.</p>"
    )
    short = all(each.progress[-1].hours < 1 for each in sweeps if each.progress)
    time = "minutes" if short else "hours"
    for key, unit in (("epochs", "epochs of all trials"), (time, time)):
        body += chart(
            f"best-by-{key}",
            progress_chart(sweeps, key, unit),
            spoken=f"Best score so far of each sweep, by {unit}",
            caption=f"Best score so far by {unit}.",
        )
    return Section("progress", title, body, "Progress")


def progress_chart(sweeps: Sequence[ComparedSweep], key: str, unit: str) -> go.Figure:
    """Draw a line a sweep, in steps, whose colour and dashes tell it apart."""
    metrics = dict.fromkeys(each.sweep.metric for each in sweeps)
    figure = blank_figure(label(" or ".join(metrics)), 360)
    for index, each in enumerate(sweeps):
        _, colour = MARKS[index % len(MARKS)]
        figure.add_scatter(
            x=[getattr(point, key) for point in each.progress],
            y=[round(point.best, 4) for point in each.progress],
            mode="lines+markers" if len(each.progress) == 1 else "lines",
            name=label(each.name),
            line={
                "shape": "hv", "color": colour, "width": 2.4, "dash": DASHES[index % len(DASHES)],
            },
            hovertemplate=f"{label(each.name)}<br>%{{x:.4g}} {unit}: %{{y:.4f}}<extra></extra>",
        )  # fmt: skip
    figure.update_xaxes(title=unit, rangemode="tozero", showgrid=False)
    return figure


def _models(sweeps: Sequence[ComparedSweep]) -> list[Section]:
    title = "On test patients"
    scored = [each for each in sweeps if each.evaluation is not None]
    if not scored:
        why = "No model of these sweeps has been evaluated on test patients yet:"
        return [Section("models", title, missing(why, "segan-ray evaluate champion STORE"))]
    rows = [
        ReportedModel(each.name, each.name, str(document["model"]), document["summary"])
        for each in scored
        if (document := each.evaluation) is not None
    ]
    without = [esc(each.name) for each in sweeps if each.evaluation is None]
    body = (
        "<p>The model of each sweep that was evaluated last. Bold is the best of a column.</p>"
        + chart(
            "models",
            models_chart(rows),
            spoken="Mean Dice of the model of each sweep, a group for each region",
            caption="Mean Dice of the model of each sweep.",
        )
        + models_table(rows, ("dice", "hd95"), "Scores of the model of each sweep")
        + (f"<p>Not evaluated: {', '.join(without)}.</p>" if without else "")
    )
    pairs = [pair for a, b in combinations(scored, 2) if (pair := _pair(a, b)) is not None]
    models = Section("models", title, body, "Models")
    return [models, differences_section(pairs, "sweep")] if pairs else [models]


def _pair(a: ComparedSweep, b: ComparedSweep) -> dict[str, Any] | None:
    """Return the paired differences in Dice, as ``compare`` has them; None without shared cases."""
    ours, theirs = a.evaluation, b.evaluation
    assert ours is not None
    assert theirs is not None, "only evaluated sweeps are paired"
    if ours.get("store") != theirs.get("store") or _cases(ours) != _cases(theirs):
        return None
    one, other = patient_means(ours, "dice"), patient_means(theirs, "dice")
    columns: dict[str, Sequence[Region]] = {
        **{region: (region,) for region in REGIONS},
        "mean": REGIONS,
    }
    differences = {
        name: paired_difference(_over(one, regions), _over(other, regions))
        for name, regions in columns.items()
    }
    found = {name: {"dice": each.as_document()} for name, each in differences.items()}
    return {"arms": [a.name, b.name], **found}


def _over(
    scores: Mapping[str, Mapping[Region, float]], regions: Sequence[Region]
) -> dict[str, float]:
    """Return the mean over some regions of each patient."""
    return {
        patient: statistics.fmean(of[region] for region in regions)
        for patient, of in scores.items()
    }


def _cases(document: Mapping[str, Any]) -> set[str]:
    return {str(case.get("case")) for case in document["cases"]}


def _spaces(sweeps: Sequence[ComparedSweep]) -> Section:
    title = "What they searched"
    known = [each for each in sweeps if each.asked is not None]
    if len(known) < len(sweeps):
        names = ", ".join(esc(each.name) for each in sweeps if each.asked is None)
        return Section(
            "spaces", title, missing(f"No space that can be read is recorded of {names}.")
        )
    said = [_said(each.asked) for each in known if each.asked is not None]
    keys = dict.fromkeys(key for each in said for key in each)
    differing = [key for key in keys if len({each.get(key, "") for each in said}) > 1]
    same = [key for key in keys if key not in differing]
    body = (
        _across(sweeps, differing, said, "What is different")
        if differing
        else "<p>Their spaces are the same.</p>"
    )
    if same:
        body += (
            "<details><summary>What is the same</summary>"
            + _across(sweeps[:1], same, said[:1], "What is the same")
            + "</details>"
        )
    return Section("spaces", title, body, "Spaces")


def _said(asked: SearchQuestion) -> dict[str, str]:
    """Return a space in words, by what each part is called."""
    parameters = {
        each.path: each.values + (f", if {each.condition}" if each.condition else "")
        for each in asked.parameters
    }
    return {
        **parameters,
        "Objective": " and ".join(asked.objectives),
        "Constraints": "; ".join(asked.constraints) or "none",
        "Sampler": asked.sampler,
        "Scheduler": asked.scheduler,
        "Budget": asked.budget,
        "Tried first": asked.first or "nothing in particular",
        "Same in every trial": asked.settings or "the defaults",
    }


def _winners(sweeps: Sequence[ComparedSweep]) -> Section:
    title = "What won"
    best = [each.sweep.best for each in sweeps]
    params = [{} if one is None else dict(one.params) for one in best]
    said = [{key: said_setting(value) for key, value in each.items()} for each in params]
    keys = list(dict.fromkeys(key for each in said for key in each))
    if not keys:
        return Section("winners", title, missing("No trial has a score yet."))
    body = _across(sweeps, keys, said, "Settings of the best trial of each sweep")
    return Section("winners", title, body, "Winners")


def _across(
    sweeps: Sequence[ComparedSweep],
    keys: Sequence[str],
    said: Sequence[Mapping[str, str]],
    caption: str,
) -> str:
    """Return a table with a row for each of ``keys`` and a column for each sweep."""
    names = "".join(f'<th scope="col">{esc(each.name)}</th>' for each in sweeps)
    rows = [
        f'<tr><th scope="row">{esc(key)}</th>'
        + "".join(f"<td>{esc(each.get(key, '–'))}</td>" for each in said)
        + "</tr>"
        for key in keys
    ]
    head = f'<tr><th scope="col">What</th>{names}</tr>'
    return table(head, rows, kind="ranges", caption=caption)
