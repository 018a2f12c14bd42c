"""Writing the label maps of many cases; a bad case does not stop the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segan_ray.brats import LabelCode
from segan_ray.data.io.geometry import spacing_of
from segan_ray.data.io.label_maps import (
    Output,
    make_folder,
    refuse_collisions,
    write_label,
    write_probabilities,
)
from segan_ray.data.io.volumes import geometry_warnings
from segan_ray.data.layouts.cases import Discovery
from segan_ray.data.store.origin import millimetres
from segan_ray.data.store.prepare import OnCase, ignore_case
from segan_ray.errors import DataError, NotInstalledError, SeganRayError, named
from segan_ray.evaluation.inference.packaged_model import Model
from segan_ray.evaluation.inference.stream_cases import Segmented, segment_stream
from segan_ray.models.numerics import fastest_device


@dataclass(frozen=True)
class Prediction:
    """The files written for one case, or the problems that prevented them."""

    case: str
    """Its name."""
    label: Path | None
    """The label map."""
    probabilities: Path | None = None
    """The file of probabilities, if they were asked for."""
    problems: tuple[str, ...] = ()
    """Why nothing was written."""
    warnings: tuple[str, ...] = ()
    """Cautions to a reader of the files."""

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
        if self.warnings:
            document["warnings"] = list(self.warnings)
        return document


def predict_cases(
    model: Model,
    discovery: Discovery,
    targets: Sequence[Output],
    *,
    probabilities: bool = False,
    overwrite: bool = False,
    on_case: OnCase = ignore_case,
) -> tuple[Prediction, ...]:
    """Write the label map of every case to its target, in the label code of its layout.

    ``probabilities`` writes those of each region too. Truth is not read.

    Raises:
        DataError: if a file would be written over and ``overwrite`` is not set, or the folder of
            the targets cannot be made. Errors of one case are in its result.
        NotInstalledError: if a package is missing that reading or writing the cases needs.
    """
    refuse_collisions(targets, probabilities=probabilities, overwrite=overwrite)
    for folder in {target.label.parent for target in targets}:
        make_folder(folder)
    code = discovery.layout.code
    stream = segment_stream(
        model, discovery.cases, code, device=fastest_device(), probabilities=probabilities
    )
    predictions = []
    for target, segmented in zip(targets, stream, strict=True):
        checked = segmented if overwrite else _unless_there(segmented, target)
        predictions.append(_outcome(model, checked, code, target))
        on_case(checked.case.case)
    return tuple(predictions)


def _unless_there(segmented: Segmented, target: Output) -> Segmented:
    """Return ``found``, or an error if the files of its case were written in the meantime."""
    try:
        refuse_collisions([target], probabilities=segmented.probabilities is not None)
    except DataError as error:
        return Segmented(segmented.case, error=segmented.error or error)
    return segmented


def _outcome(model: Model, segmented: Segmented, code: LabelCode, target: Output) -> Prediction:
    """Write the files of one case and return the outcome, errors included."""
    name = segmented.case.case
    try:
        if segmented.error is not None:
            raise segmented.error
        warnings = _warnings(model, segmented)
        probabilities = _write(segmented, code, target)
    except NotInstalledError:  # no case would fare better
        raise
    except SeganRayError as error:
        return Prediction(name, None, problems=(str(error).removeprefix(f"Case {name}: "),))
    except Exception as error:  # one odd case must not cost a night's predictions
        what = named(error)
        return Prediction(name, None, problems=(f"failed in a way nobody foresaw ({what}).",))
    return Prediction(name, target.label, probabilities, warnings=warnings)


def _warnings(model: Model, segmented: Segmented) -> tuple[str, ...]:
    """Return the warnings to a reader of one case's files."""
    assert segmented.affine is not None, "there is an error or there is a grid"
    warnings = []
    spacing = spacing_of(segmented.affine)
    if not model.origin.is_used_to(spacing):
        warnings.append(
            f"voxels of {millimetres(spacing)}; the model was trained on "
            f"{model.origin.spacing_words()}, so expect worse label maps."
        )
    return (*warnings, *geometry_warnings(segmented.case.without_truth()))


def _write(segmented: Segmented, code: LabelCode, target: Output) -> Path | None:
    """Write the files of one case, the label map last; return where probabilities are, if any."""
    assert segmented.regions is not None, "there is an error or there are regions"
    if segmented.probabilities is not None:
        write_probabilities(target.probabilities, segmented.probabilities, segmented.case)
    write_label(target.label, code.labels(segmented.regions), segmented.case)
    return None if segmented.probabilities is None else target.probabilities
