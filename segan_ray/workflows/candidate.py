"""The candidate of a promotion: the best checkpoints of a sweep with fitted postprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segan_ray.data.store.opened_store import PreparedCase, open_for_tuning
from segan_ray.data.store.prepare import OnCase, ignore_case
from segan_ray.errors import SweepError, many
from segan_ray.evaluation.inference.packaged_model import Model, TrainedSegmentor, load_model
from segan_ray.evaluation.inference.postprocessing import fit_postprocessing
from segan_ray.home import Home
from segan_ray.search.results.ranking import SweepRecord, TrialRecord, rank, winner
from segan_ray.tracking.registry.model_versions import fetched


def best_trials(record: SweepRecord, count: int) -> tuple[TrialRecord, ...]:
    """Return the winner of a sweep and the best of its other trials, no settings twice.

    They are trials whose checkpoints are with the records: those that ended, and once the sweep
    itself has, also those that wait for more hours.

    Raises:
        SweepError: if fewer than ``count`` have a score.
    """
    with_checkpoint = {"completed", "stopped", *(["paused"] if record.status == "finished" else [])}
    able = [each for each in record.trials if each.status in with_checkpoint]
    best = winner(able, record.mode)
    if best is None:
        infeasible = sum(each.infeasible for each in record.trials)
        why = f" {infeasible} are infeasible: segan-ray trials says why." if infeasible else ""
        raise SweepError(
            f"The sweep '{record.sweep}' has no ended trial with a score to promote.{why}"
        )
    chosen = {best.repeat_of or best.trial: best}
    for trial in rank(able, record.mode):
        if len(chosen) < count and trial.score is not None and not trial.infeasible:
            chosen.setdefault(trial.repeat_of or trial.trial, trial)
    if len(chosen) < count:
        raise SweepError(
            f"The sweep '{record.sweep}' has {many(len(chosen), 'ended trial')} with a score and "
            f"settings of its own; --ensemble {count} needs as many. Ask for fewer."
        )
    return tuple(chosen.values())


def candidate_model(
    home: Home,
    trials: Sequence[TrialRecord],
    store: Path,
    *,
    flips: bool = False,
    on_case: OnCase = ignore_case,
) -> Model:
    """Return the model of ``trials`` as the gate judges it and as it is then packaged.

    Of several trials, or of the folds of one, it averages the probabilities. Its postprocessing is
    fitted on validation patients alone, each predicted by the members that did not train on it.
    With ``flips`` the maps are means over mirrored slices.

    Raises:
        RegistryError: if a checkpoint is not among its run's artifacts.
        CheckpointError: if a checkpoint is damaged, or of an older segan-ray.
    """
    loaded = [_loaded(home, trial) for trial in trials]
    members = tuple(member for model in loaded for member in model.members)
    model = Model(members, loaded[0].origin)
    fitted = fit_postprocessing(_validated(model, store), flips=flips, on_case=on_case)
    return replace(model, postprocessing=fitted)


def folds_of(model: Model) -> set[int | None]:
    """Return the folds that the members were trained on; None is the single split."""
    return {experiment.data.fold for experiment in model.experiments}


def _loaded(home: Home, trial: TrialRecord) -> Model:
    with fetched(home, checkpoint_uri(trial)) as source:
        return load_model(source.folder)


def _validated(model: Model, store: Path) -> list[tuple[Model, Sequence[PreparedCase]]]:
    """Return the members of each fold as a model of their own, with that fold's val cases."""
    by_fold: dict[int | None, list[TrainedSegmentor]] = {}
    for member in model.members:
        by_fold.setdefault(member.experiment.data.fold, []).append(member)
    return [
        (Model(tuple(members), model.origin), open_for_tuning(store, fold).val)
        for fold, members in by_fold.items()
    ]


def checkpoint_uri(trial: TrialRecord) -> str:
    """Return the URI of a trial's checkpoint among the artifacts of its run."""
    return f"runs:/{trial.mlflow_run}/checkpoint"
