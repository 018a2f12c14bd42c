"""What a new sweep may learn from an earlier one's trials before its first."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Final, cast

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from segan_ray.errors import SweepError, many, nearest
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.storage.study_record import recorded

TELLING: Final = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class EarlierTrials:
    """Trials that lie in the new space, and what is to be said of those that do not."""

    trials: tuple[FrozenTrial, ...] = ()
    said: tuple[str, ...] = ()


def earlier_trials(space: SearchSpace, storage: BaseStorage, store: str) -> EarlierTrials:
    """Return the trials of the sweep that ``space`` names as its ``warm_start``, if any.

    Raises:
        SweepError: if there is none of that name, or its scores cannot be compared.
    """
    name = space.warm_start
    if name is None:
        return EarlierTrials()
    known = optuna.get_all_study_names(storage)
    if name not in known:
        raise SweepError(f"warm_start: no sweep is called '{name}'.{nearest(name, known)}")
    before, its_store = recorded(name, storage)
    study = optuna.load_study(study_name=name, storage=storage)
    if its_store != store or before.objectives != space.objectives:
        raise SweepError(
            f"warm_start: '{name}' was scored on another store or by another objective, so its "
            "scores cannot be compared. Leave warm_start out."
        )
    ended = [trial for trial in study.trials if trial.state in TELLING]
    taken = [found for trial in ended if (found := _within(space, trial)) is not None]
    left = len(ended) - len(taken)
    said = f"Learning from {many(len(taken), 'trial')} of '{name}'" + (
        f"; {left} others lie outside this space." if left else "."
    )
    return EarlierTrials(tuple(taken), (said,))


def _within(space: SearchSpace, trial: FrozenTrial) -> FrozenTrial | None:
    """Return ``trial`` as one of ``space``, or None where it is no point of it."""
    fixed = FixedTrial(trial.params)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            space.suggest(cast("optuna.Trial", fixed))
    except (ValueError, UserWarning):
        # A parameter is missing, or its value is out of range.
        return None
    if set(fixed.distributions) != set(trial.params):
        return None
    return create_trial(
        state=trial.state,
        values=trial.values if trial.state == TrialState.COMPLETE else None,
        params=trial.params,
        distributions=fixed.distributions,
        intermediate_values=trial.intermediate_values,
    )
