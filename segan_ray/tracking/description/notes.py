"""The descriptions of the experiment, runs and model versions in MLflow's UI, as Markdown.

A run's description is written when the run is made. The result is later put above it in a single
paragraph, since the UI folds longer texts. Text that a person adds around that paragraph stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from mlflow import MlflowClient

from segan_ray.brats import REGIONS
from segan_ray.documents import DocumentError, parse_yaml
from segan_ray.filesystem.locations import absolute, location_name
from segan_ray.search.results.ranking import SweepRecord, said_status
from segan_ray.tracking import tag_names
from segan_ray.tracking.description.facts import SweepFacts
from segan_ray.tracking.description.views import run_page, trials_page

NOTE: Final = "mlflow.note.content"
RESULT: Final = "**Result:** "
FORMER: Final = re.compile(rf"^{re.escape(RESULT)}.*$", re.MULTILINE)
EXPERIMENT_NOTE: Final = """\
Searches for SegAN settings on BRATS, made by `segan-ray`.

A run that unfolds is a **sweep**, the runs under it its **trials**; `segan.kind` tells sweeps, \
trials, evaluations and comparisons apart. A run of `train` is a sweep of one trial. *Views*, \
above the table, has columns for each. Metrics are by epoch, so a table shows the last one; \
`segan.score` is the best epoch's, by which trials are ranked and promoted. The model registry \
holds what was promoted: `champion` is the one in use."""


def describe_experiment(client: MlflowClient, experiment: str) -> None:
    """Give the experiment its description, unless it has one."""
    if NOTE not in client.get_experiment(experiment).tags:
        client.set_experiment_tag(experiment, NOTE, EXPERIMENT_NOTE)


def sweep_note(facts: SweepFacts, space_text: str | None, experiment: str) -> str:
    """Return a sweep's question, its data, its pages and how to run it again."""
    store = location_name(absolute(facts.card.path))
    patients = ", ".join(f"{count} {split}" for split, count in facts.card.patients.items())
    table = trials_page(experiment, facts.name)
    charts = trials_page(experiment, facts.name, charts=True)
    optimum = " and ".join(
        f"the {'highest' if mode == 'max' else 'lowest'} **{metric}**"
        for metric, mode in facts.objectives or ((facts.metric, facts.mode),)
    )
    drawn = ", ".join(f"`{name}`" for name in drawn_by(space_text)) or "the settings in its space"
    return "\n".join(
        [
            f"Which values of {drawn} give {optimum}?",
            "",
            f"[Its trials, best first]({table}) · [Their learning curves]({charts})",
            "",
            f"- Store: `{store}`, fingerprint `{facts.card.fingerprint}`"
            + (f" (patients: {patients})" if patients else ""),
            "- To run it again, with `space.yaml` from the artifacts:",
            "",
            "```",
            f"segan-ray tune {store} --space space.yaml --name ANOTHER-NAME",
            "```",
            "",
            "- To go on with its best trial:",
            "",
            "```",
            f"segan-ray promote {facts.name}",
            f"segan-ray report {facts.name} {facts.name}.html",
            "```",
        ]
    )


def drawn_by(space_text: str | None) -> list[str]:
    """Return the settings that a space file draws; none if it cannot be read."""
    try:
        space = parse_yaml(space_text or "")
    except DocumentError:
        return []
    parameters = space.get("parameters") if isinstance(space, dict) else None
    return [str(name) for name in parameters] if isinstance(parameters, dict) else []


def trial_note(
    facts: SweepFacts,
    parent: str,
    experiment: str,
    params: Mapping[str, Any],
    repeat_of: str | None,
) -> str:
    """Return the sweep of a trial, and the values drawn for the trial."""
    rows = [f"| `{name}` | {json.dumps(value)} |" for name, value in params.items()]
    return "\n".join(
        [
            f"A trial of [{facts.name}]({run_page(experiment, parent)})"
            + (f", the settings of trial {repeat_of} again." if repeat_of else "."),
            *(["", "| drawn | value |", "| --- | --- |", *rows] if rows else []),
        ]
    )


def sweep_result(record: SweepRecord, experiment: str) -> str:
    """Return the best trial of a sweep and how its trials ended, in one paragraph."""
    counts: dict[str, int] = {}
    for trial in record.trials:
        status = said_status(trial)
        counts[status] = counts.get(status, 0) + 1
    ended = ", ".join(f"{count} {status}" for status, count in counts.items()) or "no trials"
    best = record.best
    if best is None:
        return f"{record.status}, {ended}"
    where = run_page(experiment, best.mlflow_run)
    return (
        f"{record.metric} **{best.score:.4f}** by [trial {best.trial}]({where}); "
        f"{record.status}, {ended}"
    )


def comparison_note(document: Mapping[str, Any]) -> str:
    """Return the mean Dice of each arm of a ``compare`` document, as a table."""
    rows = []
    for arm in document["arms"]:
        dice = [arm["summary"][name]["dice"] for name in ("mean", *REGIONS)]
        means = " | ".join(f"{score['mean']:.3f}" for score in dice)
        rows.append(f"| {arm['arm']} | {means} | `{arm['sweep']}` |")
    return "\n".join(
        [
            f"Dice on {document['patients']} test patients, means over patients and seeds, at "
            f"equal {document['equal']}. Intervals and differences: `comparison.html` of the "
            "artifacts.",
            "",
            f"| arm | mean | {' | '.join(REGIONS)} | sweep |",
            "| --- " * (len(REGIONS) + 3) + "|",
            *rows,
        ]
    )


def with_result(note: str, result: str) -> str:
    """Return ``note`` below ``result``, which replaces an earlier result."""
    paragraph = f"{RESULT}{result}"
    if FORMER.search(note):
        return FORMER.sub(lambda _: paragraph, note, count=1)
    return f"{paragraph}\n\n{note}"


def version_note(tags: Mapping[str, str]) -> str:
    """Return the origin of a model version, its validation score and the gate's verdict."""
    parts = []
    for name, value in tags.items():
        metric = name.removeprefix("segan.")
        if metric.startswith("val/"):
            parts.append(f"{metric} {_rounded(value)}.")
    if tag_names.SWEEP in tags and tag_names.TRIAL in tags:
        parts.append(f"Trial {tags[tag_names.TRIAL]} of sweep {tags[tag_names.SWEEP]}.")
    if tag_names.ENSEMBLE in tags:
        parts.append(f"Averaged with others: trials {tags[tag_names.ENSEMBLE]}.")
    if "segan.verdict" in tags:
        parts.append(f"Gate: {tags['segan.verdict']}")
    return " ".join(parts)


def _rounded(value: str) -> str:
    try:
        return f"{float(value):.4f}"
    except ValueError:
        return value
