"""The candidate of a promotion: a trial's best checkpoint, made ready to be used."""

from __future__ import annotations

from segan_ray.evaluation.model import Model, load_model
from segan_ray.home import Home
from segan_ray.search.ranking import SweepRecord, TrialRecord
from segan_ray.tracking.registry import fetched


def candidate_model(
    home: Home,
    record: SweepRecord,  # noqa: ARG001 - the validation patients to fit on are its store's
    trial: TrialRecord,
) -> Model:
    """Return the model that ``trial`` of the sweep ``record`` offers: scored, then packaged.

    Raises:
        RegistryError: if its checkpoint is not among the run's artifacts.
        CheckpointError: if it is damaged, or older than what is needed to use it.
    """
    with fetched(home, f"runs:/{trial.mlflow_run}/checkpoint") as found:
        return load_model(found.folder)
