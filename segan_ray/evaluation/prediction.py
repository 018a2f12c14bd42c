"""Cases in, label maps out: one at a time, and a bad one does not stop the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segan_ray.brats import LabelCode
from segan_ray.data.cases import Case, Discovery
from segan_ray.data.label_maps import Output, make_folder, write_label, write_probabilities
from segan_ray.data.prepare import OnCase, ignore_case
from segan_ray.data.volumes import read_volume
from segan_ray.errors import SeganRayError
from segan_ray.evaluation.model import Model
from segan_ray.evaluation.segment import probabilities_of_volume, segment_volume


@dataclass(frozen=True)
class Prediction:
    """What became of one case: its files, or why there are none."""

    case: str
    label: Path | None
    probabilities: Path | None = None
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Tell whether the files were written."""
        return not self.problems

    def document(self) -> dict[str, Any]:
        """Return the entry of this case in the ``predict`` document."""
        document: dict[str, Any] = {
            "case": self.case,
            "ok": self.ok,
            "output": None if self.label is None else str(self.label),
            "problems": list(self.problems),
        }
        if self.probabilities is not None:
            document["probabilities"] = str(self.probabilities)
        return document


def predict_cases(
    model: Model,
    discovery: Discovery,
    targets: Sequence[Output],
    *,
    probabilities: bool = False,
    on_case: OnCase = ignore_case,
) -> tuple[Prediction, ...]:
    """Write the label map of every case to its target, in the label code of its layout.

    ``probabilities`` writes those of each region too. Truth is not looked at.

    Raises:
        DataError: if the folder of the targets cannot be made; of a case, it is in its result.
    """
    for folder in {target.label.parent for target in targets}:
        make_folder(folder)
    predictions = []
    for case, target in zip(discovery.cases, targets, strict=True):
        wanted = target.probabilities if probabilities else None
        predictions.append(_outcome(model, case, discovery.layout.code, target.label, wanted))
        on_case(case.case)
    return tuple(predictions)


def _outcome(
    model: Model, case: Case, code: LabelCode, label: Path, probabilities: Path | None
) -> Prediction:
    try:
        _predict(model, case, code, label, probabilities)
    except SeganRayError as error:
        problem = str(error).removeprefix(f"Case {case.case}: ")
        return Prediction(case.case, None, problems=(problem,))
    except Exception as error:  # one odd case must not cost a night's predictions
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        problem = f"failed in a way nobody foresaw ({what})."
        return Prediction(case.case, None, problems=(problem,))
    return Prediction(case.case, label, probabilities)


def _predict(
    model: Model, case: Case, code: LabelCode, label: Path, probabilities: Path | None
) -> None:
    unlabelled = replace(case, label=None)
    volume = read_volume(unlabelled, code)
    regions = segment_volume(model, volume)
    if probabilities is not None:
        write_probabilities(probabilities, probabilities_of_volume(model, volume), unlabelled)
    write_label(label, code.labels(regions), unlabelled)
