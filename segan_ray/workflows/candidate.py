"""The candidate of a promotion: a trial's best checkpoint with fitted postprocessing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from segan_ray.data.store.opened_store import open_for_tuning
from segan_ray.data.store.prepare import OnCase, ignore_case
from segan_ray.evaluation.inference.packaged_model import Model, load_model
from segan_ray.evaluation.inference.postprocessing import fit_postprocessing
from segan_ray.home import Home
from segan_ray.search.results.ranking import TrialRecord
from segan_ray.tracking.registry.model_versions import fetched


def candidate_model(
    home: Home,
    trial: TrialRecord,
    store: Path,
    *,
    flips: bool = False,
    on_case: OnCase = ignore_case,
) -> Model:
    """Return the model of ``trial`` as the gate judges it and as it is then packaged.

    Its postprocessing is fitted on the validation patients of the trial's fold of ``store``, and
    on no others. With ``flips`` the maps are means over mirrored slices.

    Raises:
        RegistryError: if its checkpoint is not among the run's artifacts.
        CheckpointError: if its checkpoint is damaged, or of an older segan-ray.
    """
    with fetched(home, checkpoint_uri(trial)) as source:
        model = load_model(source.folder)
    cases = open_for_tuning(store, model.experiment.data.fold)
    fitted = fit_postprocessing(model, cases, flips=flips, on_case=on_case)
    return replace(model, postprocessing=fitted)


def checkpoint_uri(trial: TrialRecord) -> str:
    """Return the URI of a trial's checkpoint among the artifacts of its run."""
    return f"runs:/{trial.mlflow_run}/checkpoint"
