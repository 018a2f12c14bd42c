"""Prediction: fetch a model by its name and write the label maps of cases."""

from __future__ import annotations

from pathlib import Path

from segan_ray.data.io.label_maps import outputs, refuse_collisions
from segan_ray.data.layouts.cases import Discovery
from segan_ray.data.store.prepare import OnCase, ignore_case
from segan_ray.evaluation.inference.packaged_model import load_model
from segan_ray.evaluation.inference.prediction import Prediction, predict_cases
from segan_ray.home import Home
from segan_ray.tracking.registry.model_versions import fetched


def predict(
    home: Home,
    model: str,
    discovery: Discovery,
    out: Path,
    *,
    probabilities: bool = False,
    overwrite: bool = False,
    on_case: OnCase = ignore_case,
) -> tuple[Prediction, ...]:
    """Write the label map of each case of ``discovery`` by ``model`` below ``out``.

    A case that cannot be read or written is in its result and does not stop the rest.

    Raises:
        DataError: if ``out`` cannot be written to or lies among the scans, or a file exists and
            ``overwrite`` is not set.
        RegistryError, CheckpointError: for a model that cannot be found or read.
    """
    targets = outputs(discovery, out)
    refuse_collisions(targets, probabilities=probabilities, overwrite=overwrite)
    with fetched(home, model) as source:
        loaded = load_model(source.folder)
    return predict_cases(
        loaded,
        discovery,
        targets,
        probabilities=probabilities,
        overwrite=overwrite,
        on_case=on_case,
    )
