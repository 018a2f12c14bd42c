"""Words and numbers as all parts of the page say them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any, Final

from segan_ray.brats import REGIONS, Region
from segan_ray.errors import many
from segan_ray.evaluation.figures.palette import COLOURS
from segan_ray.evaluation.report.page import esc
from segan_ray.search.results.ranking import SweepRecord, TrialRecord, TrialStatus

# The colours in which the overlays draw the regions (Okabe and Ito's palette).
REGION_COLOURS: Final[dict[Region, str]] = {
    region: "#{:02X}{:02X}{:02X}".format(*COLOURS[region]) for region in REGIONS
}
REGION_NAMES: Final[dict[Region, str]] = {
    "whole": "whole tumour",
    "core": "tumour core",
    "enhancing": "enhancing tumour",
}
# Said by sign and word; colour only repeats it. The selector keeps phones from drawing an emoji.
SYMBOLS: Final[dict[TrialStatus, str]] = {
    "completed": "●",
    "stopped": "■",
    "failed": "✕",
    "running": "▶\ufe0e",
    "paused": "‖",
    "pending": "○",
}
WORDS: Final[dict[TrialStatus, str]] = {
    "completed": "completed",
    "stopped": "stopped early",
    "failed": "failed",
    "running": "running",
    "paused": "paused",
    "pending": "pending",
}


def words_of(trial: TrialRecord) -> str:
    """Return how a trial ended, and that it is infeasible if it is."""
    return f"{WORDS[trial.status]}{', infeasible' * trial.infeasible}"


def direction(sweep: SweepRecord) -> str:
    """Return which way the objective is better."""
    return "higher is better" if sweep.mode == "max" else "lower is better"


def chip(region: Region) -> str:
    """Return a small square of the region's colour."""
    return f'<span class="chip" style="--chip:{REGION_COLOURS[region]}"></span>'


def interval(summary: Mapping[str, Any], digits: int) -> str:
    """Return the 95% interval of a summary, or nothing where the patients are too few for one."""
    if summary["ci95"] is None:
        return ""
    low, high = summary["ci95"]
    return f"{low:.{digits}f}–{high:.{digits}f}"


def signed(value: float) -> str:
    """Return a difference with its sign, minus as typography has it."""
    return f"{value:+.3f}".replace("-", "−")


def scored_patients(evaluation: Mapping[str, Any]) -> str:
    """Return how many patients of which side were scored."""
    count = len({case["patient"] for case in evaluation["cases"]})
    return many(count, f"{esc(evaluation['split'])} patient")


def patient_means(evaluation: Mapping[str, Any], metric: str) -> dict[str, dict[Region, float]]:
    """Return ``{patient: {region: mean over its cases}}`` of one metric, in the document's order.

    A case without scores is left out.
    """
    scores: dict[str, dict[Region, list[float]]] = {}
    for case in evaluation["cases"]:
        if all(metric in case.get(region, {}) for region in REGIONS):
            known = scores.setdefault(str(case["patient"]), {region: [] for region in REGIONS})
            for region in REGIONS:
                known[region].append(float(case[region][metric]))
    return {
        patient: {region: statistics.fmean(of[region]) for region in REGIONS}
        for patient, of in scores.items()
    }
