"""Cases in, label maps out: one at a time, and a bad one does not stop the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segan_ray.brats import LabelCode
from segan_ray.data.cases import Discovery
from segan_ray.data.label_maps import Output, make_folder, write_label, write_probabilities
from segan_ray.data.prepare import OnCase, ignore_case
from segan_ray.errors import SeganRayError
from segan_ray.evaluation.model import Model
from segan_ray.evaluation.stream import Segmented, segment_stream
from segan_ray.models.build import fastest_device


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
    code = discovery.layout.code
    stream = segment_stream(
        model, discovery.cases, code, device=fastest_device(), probabilities=probabilities
    )
    predictions = []
    for target, found in zip(targets, stream, strict=True):
        predictions.append(_outcome(found, code, target))
        on_case(found.case.case)
    return tuple(predictions)


def _outcome(found: Segmented, code: LabelCode, target: Output) -> Prediction:
    """Write the files of one case; whatever goes wrong goes wrong for this case alone."""
    name = found.case.case
    try:
        if found.error is not None:
            raise found.error
        probabilities = _write(found, code, target)
    except SeganRayError as error:
        return Prediction(name, None, problems=(str(error).removeprefix(f"Case {name}: "),))
    except Exception as error:  # one odd case must not cost a night's predictions
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        return Prediction(name, None, problems=(f"failed in a way nobody foresaw ({what}).",))
    return Prediction(name, target.label, probabilities)


def _write(found: Segmented, code: LabelCode, target: Output) -> Path | None:
    """Write the files of one case, the label map last; return where probabilities are, if any."""
    assert found.regions is not None, "there is an error or there are regions"
    if found.probabilities is not None:
        write_probabilities(target.probabilities, found.probabilities, found.case)
    write_label(target.label, code.labels(found.regions), found.case)
    return None if found.probabilities is None else target.probabilities
