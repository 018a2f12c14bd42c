"""The card of a registered model: what it is for, how good it is, and what it cannot do.

Written in Markdown at promotion, after Mitchell et al. 2019 (Model Cards for Model Reporting).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from segan_ray.brats import REGIONS
from segan_ray.config import Experiment, flatten
from segan_ray.data.store.origin import Origin
from segan_ray.errors import many
from segan_ray.evaluation.inference.packaged_model import Model
from segan_ray.evaluation.metrics.intervals import MINIMUM_PATIENTS
from segan_ray.evaluation.metrics.scores import CaseScores, Summary, summarise
from segan_ray.evaluation.scoring.gate import FAILED_DICE

SCORES: Final = ("dice", "hd95", "precision", "sensitivity")
USE: Final = """\
Research on the segmentation of gliomas in MRI: whole tumour, tumour core and enhancing tumour of \
one patient from T1, T1ce, T2 and FLAIR, skull-stripped and registered to each other as BRATS has \
them. It is no medical device and not for diagnosis or treatment."""
LIMITS: Final = (
    "It sees axial slices one by one (with {neighbours} more on each side), not the volume.",
    "Scans of other scanners, protocols, tumours or ages than those of training may give maps that "
    "are wrong without a sign of it.",
    "Scans must be skull-stripped and in one grid; other preparation than its own is not tried.",
    "Probabilities are not calibrated: a threshold for each region was fitted, and no more.",
)


@dataclass(frozen=True)
class Judged:
    """A model's scores on the patients that judged it, and the verdict.

    It is ``optimistic`` if they chose the model. ``tries`` is the number of this try on them, None
    where nothing was compared.
    """

    scores: Sequence[CaseScores]
    verdict: str
    optimistic: bool
    tries: int | None


def model_card(name: str, model: Model, trained: str, judged: Judged, load_as: str) -> str:
    """Return the card of a model; ``trained`` names its sweep and trials."""
    parts = [
        f"# {name}",
        f"{trained} {_what(model)}",
        "## Intended use",
        USE,
        "## Trained on",
        _data(model.origin),
        "## Scores",
        _scores(judged),
        "## Limits",
        _limits(model),
        "## Settings",
        _settings(model.experiments),
        "## Use",
        f'`mlflow.pyfunc.load_model("{load_as}")`, or `segan-ray predict {load_as} DATA OUT`.',
        "Software: segan-ray, Apache-2.0. For the weights the terms of the training data count, "
        "which this card does not know.",
    ]
    return "\n\n".join(parts) + "\n"


def _what(model: Model) -> str:
    networks = dict.fromkeys(each.segmentor.network for each in model.experiments)
    members = len(model.members)
    mean = f"The mean of {members} networks" if members > 1 else "One network"
    return f"{mean} ({', '.join(networks)}), variant {model.variant}."


def _data(origin: Origin) -> str:
    patients, scans = len(origin.seen), sum(map(len, origin.seen.values()))
    spacing = f" Voxels of {origin.spacing_words()}." if origin.spacing_mm else ""
    return (
        f"Store `{origin.store}`, layout {origin.layout}: {many(patients, 'patient')}, "
        f"{many(scans, 'scan')} in train, val and gate; test patients were not seen.{spacing}"
    )


def _scores(judged: Judged) -> str:
    patients = len({each.patient for each in judged.scores})
    on = f"On {many(patients, 'gate patient')} that no trial saw"
    if judged.optimistic:
        on = f"On {many(patients, 'validation patient')} that chose it, so better than it is"
    few = "" if patients >= MINIMUM_PATIENTS else f" Too few for intervals ({MINIMUM_PATIENTS})."
    tries = f" It was try {judged.tries} on these patients." if judged.tries else ""
    rows = summarise(judged.scores)
    head = "| region | Dice | HD95, mm | precision | sensitivity | failed |"
    lines = [
        f"| {region} | "
        + " | ".join(_cell(rows[region][metric], metric) for metric in SCORES)
        + f" | {_failed(judged.scores, region)} |"
        for region in REGIONS
    ]
    return (
        f"{on}, means over patients with 95% intervals; failed counts cases with a Dice below "
        f"{FAILED_DICE:g}.{few}\n\n"
        + "\n".join([head, "| --- " * 6 + "|", *lines])
        + f"\n\nGate: {judged.verdict}{tries}"
    )


def _cell(summary: Summary, metric: str) -> str:
    digits = 1 if metric == "hd95" else 3
    limits = summary["ci95"]
    span = "" if limits is None else f" [{limits[0]:.{digits}f}, {limits[1]:.{digits}f}]"
    return f"{summary['mean']:.{digits}f}{span}"


def _failed(scores: Sequence[CaseScores], region: Any) -> str:
    count = sum(each.regions[region].dice < FAILED_DICE for each in scores)
    return f"{count} of {len(scores)}"


def _limits(model: Model) -> str:
    neighbours = max(each.data.neighbours for each in model.experiments)
    return "\n".join(f"- {each.format(neighbours=neighbours)}" for each in LIMITS)


def _settings(experiments: Sequence[Experiment]) -> str:
    """Return the settings of the first member as a table, and how many others differ."""
    first: Mapping[str, Any] = flatten(experiments[0])
    default: Mapping[str, Any] = flatten(Experiment())
    rows = [f"| `{path}` | {value} |" for path, value in first.items() if value != default[path]]
    others = "" if len(experiments) == 1 else " Of the first member; the others' are in the model."
    table = "| setting | value |\n| --- | --- |\n" + "\n".join(rows)
    return f"Where they are not the defaults.{others}\n\n{table}"
