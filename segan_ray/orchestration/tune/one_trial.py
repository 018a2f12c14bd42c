"""Training one experiment, as ``train`` does: a sweep of one trial with all settings given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from segan_ray.config import Experiment, flatten
from segan_ray.errors import SweepError
from segan_ray.home import Home, resume_command
from segan_ray.orchestration.tune.sweep import search
from segan_ray.orchestration.tune.sweep_plan import Sweep
from segan_ray.search.results.trial_state import OnState
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.storage.study_record import is_ours, recorded
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.reading.sweeps import read_sweep
from segan_ray.training.checkpoints.remote_folder import trial_checkpoints

TRIAL: Final = "000"


@dataclass(frozen=True)
class TrainResult:
    """The result of a run: its MLflow run, the epochs done, and the best epoch's checkpoint."""

    name: str
    """Its name, by which ``evaluate`` and others know its model."""
    run: str
    """The identifier of its MLflow run."""
    epochs: int
    """How many epochs were done."""
    best_epoch: int
    """The epoch with the best mean Dice in validation."""
    best_scores: Mapping[str, float]
    """That epoch's scores in validation, such as ``val/dice_mean``."""
    checkpoint: str
    """Where that epoch's checkpoint lies: a folder or a URL."""


def train_one(
    name: str,
    experiment: Experiment,
    store: str | Path,
    card: StoreCard,
    home: Home,
    on_state: OnState,
    say: Callable[[str], object],
    *,
    resume: bool = False,
    resume_with: str | None = None,
) -> TrainResult:
    """Train one experiment and record it; ``resume_with`` is the command that goes on with it.

    Raises:
        SweepError: if the name is taken, the run began with other settings, the cluster cannot
            hold it, or it failed.
        TrackingError, Interrupted, TakenOver: as ``search``.
    """
    space = SearchSpace.of_experiment(name, experiment)
    text = yaml.safe_dump(space.model_dump(mode="json"), sort_keys=False)
    again = resume_with or resume_command(home, "train", str(store), "--name", name)
    known = recorded_experiment(home, name) if resume else None
    if known is not None:
        _check_same(name, known, experiment)
    sweep = Sweep(name, space, text, store, card, home, again, resume=resume)
    status, study = search(sweep, on_state, say)
    checkpoints = trial_checkpoints(f"{home.checkpoints(name)}/{TRIAL}", Path())
    last = checkpoints.last_report()
    kept = None if last is None else checkpoints.kept(last.best.epoch)
    if status == "failed" or last is None or kept is None:
        raise SweepError(f"The run '{name}' failed. {study.trials.first_reason}")
    (trial,) = read_sweep(home, name).trials
    return TrainResult(name, trial.mlflow_run, last.epoch, last.best.epoch, last.best.metrics, kept)


def recorded_experiment(home: Home, name: str) -> Experiment | None:
    """Return the settings of an earlier run of that name, or None.

    Raises:
        SweepError: if they cannot be read.
    """
    storage = open_storage(home)
    return recorded(name, storage)[0].base_experiment() if is_ours(name, storage) else None


def _check_same(name: str, known: Experiment, asked: Experiment) -> None:
    before, now = flatten(known), flatten(asked)
    changed = [
        f"{path} was {before[path]!r}, is {now[path]!r}"
        for path in before
        if before[path] != now[path]
    ]
    if changed:
        raise SweepError(
            f"'{name}' began with other settings: {'; '.join(changed)}. Resume it without "
            "settings, or begin another run."
        )
