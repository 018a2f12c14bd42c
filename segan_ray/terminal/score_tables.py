"""The scores of ``evaluate`` as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from segan_ray.errors import many
from segan_ray.evaluation.comparison_page import why_no_intervals
from segan_ray.evaluation.metrics.intervals import MINIMUM_PATIENTS, no_interval
from segan_ray.terminal import show


def show_scores(document: Mapping[str, Any]) -> None:
    """Print the ``evaluate`` document as tables: scores, differences, and means over cases."""
    rows = {document["model"]: document["summary"]}
    rows |= {each["model"]: each["summary"] for each in document["against"]}
    rows |= document["references"]
    patients = len({case["patient"] for case in document["cases"]})
    few = patients < MINIMUM_PATIENTS
    shown = "Dice, and HD95 in mm" if few else "Dice with 95% interval, and HD95 in mm"
    _show_means(f"Test scores, {many(patients, 'patient')}: {shown}", rows)
    if "lesion_dice" in next(iter(document["summary"].values())):
        _show_means(f"Lesion by lesion: {shown}", rows, "lesion_")
    if document["comparisons"]:
        show.table(
            f"Difference in Dice, patient by patient{'' if few else ', with 95% interval'}",
            ("", *document["comparisons"][0]["difference"]),
            (
                (f"{each['model']} - {each['against']}", *map(_change, each["difference"].values()))
                for each in document["comparisons"]
            ),
        )
    if few:
        show.say(no_interval(patients))
    _show_over_cases(document)


def _show_over_cases(document: Mapping[str, Any]) -> None:
    means = document.get("means_over_cases")
    if not means:
        return
    rows = {
        name: {
            region: {metric: {"mean": mean, "ci95": None} for metric, mean in scores.items()}
            for region, scores in regions.items()
        }
        for name, regions in means.items()
    }
    cases = len(document["cases"])
    _show_means(f"Means over {cases} cases, as leaderboards have them: Dice, and HD95 in mm", rows)
    if "lesion_dice" in next(iter(document["summary"].values())):
        _show_means(f"Lesion by lesion, over {cases} cases: Dice, and HD95 in mm", rows, "lesion_")


def _show_means(title: str, rows: Mapping[str, Mapping[str, Any]], kind: str = "") -> None:
    """Print a row for each model; ``kind`` is the prefix of its scores' names."""
    regions = tuple(next(iter(rows.values())))
    show.table(
        title,
        ("", *regions, *(f"HD95 {region}" for region in regions)),
        ((name, *_cells(summary, f"{kind}dice", f"{kind}hd95")) for name, summary in rows.items()),
    )


def _cells(summary: Mapping[str, Any], dice: str, hd95: str) -> Iterator[str]:
    for scores in summary.values():
        yield f"{scores[dice]['mean']:.3f}{_interval(scores[dice], '.3f')}"
    for scores in summary.values():
        yield f"{scores[hd95]['mean']:.1f}"


def _change(difference: Mapping[str, Any]) -> str:
    return f"{difference['mean']:+.3f}{_interval(difference, '+.3f')}"


def _interval(scores: Mapping[str, Any], shape: str) -> str:
    """Return the interval in brackets after a space; nothing if the patients are too few."""
    if scores["ci95"] is None:
        return ""
    low, high = scores["ci95"]
    return f" [{low:{shape}}, {high:{shape}}]"


def show_arms(document: Mapping[str, Any]) -> None:
    """Print the ``compare`` document as tables: the arms, and each against each."""
    arms, patients = document["arms"], document["patients"]
    none = why_no_intervals(document)
    regions = tuple(arms[0]["summary"])
    show.table(
        f"Test scores, {many(patients, 'patient')}: Dice"
        f"{'' if none else ' with 95% interval over patients and seeds'}",
        ("", *regions, "weights", "s/epoch", "epochs", "seeds"),
        (
            (
                arm["arm"],
                *(_of_arm(arm, region, intervals=not none) for region in regions),
                f"{arm['params']:,}",
                f"{arm['seconds_per_epoch']:.1f}",
                str(arm["epochs"]),
                str(arm["seeds"]),
            )
            for arm in arms
        ),
    )
    scored = regions[:-1]
    show.table(
        "Precision, and HD95 in mm",
        ("", *(f"precision {region}" for region in scored), *(f"HD95 {r}" for r in scored)),
        (
            (
                arm["arm"],
                *(f"{arm['summary'][region]['precision']['mean']:.3f}" for region in scored),
                *(f"{arm['summary'][region]['hd95']['mean']:.1f}" for region in scored),
            )
            for arm in arms
        ),
    )
    show.table(
        f"Difference in Dice, patient by patient{'' if none else ', with 95% interval'}",
        ("", *regions),
        (
            (" - ".join(pair["arms"]), *(_change(pair[region]["dice"]) for region in regions))
            for pair in document["differences"]
        ),
    )
    if none:
        show.say(none)
    if document["unscored"]:
        show.say(f"No seed trained a model of: {', '.join(document['unscored'])}")


def _of_arm(arm: Mapping[str, Any], region: str, *, intervals: bool) -> str:
    scores = arm["summary"][region]["dice"]
    return f"{scores['mean']:.3f}{_interval(scores, '.3f') if intervals else ''}"
