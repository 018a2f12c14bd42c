"""The trials of an earlier sweep from which a new sweep learns before its first trial."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Final, cast

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from segan_ray.errors import SweepError, many, nearest
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.storage.study_record import BY_RANK, WARM, recorded

REACHED: Final = "reached"
"""The last epoch of a stopped trial on another store, and its score."""
INFORMATIVE: Final = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class EarlierTrials:
    """Trials that lie in the new space, and sentences for the user about them and the others.

    They count ``by_rank`` where they were trained on another store.
    """

    trials: tuple[FrozenTrial, ...] = ()
    said: tuple[str, ...] = ()
    by_rank: bool = False


def earlier_trials(space: SearchSpace, storage: BaseStorage, store: str) -> EarlierTrials:
    """Return the trials of the sweep that ``space`` names as its ``warm_start``, if any.

    Raises:
        SweepError: if there is none of that name, or its scores cannot be compared.
    """
    name = space.warm_start
    if name is None:
        return EarlierTrials()
    names = optuna.get_all_study_names(storage)
    if name not in names:
        raise SweepError(f"warm_start: no sweep is called '{name}'.{nearest(name, names)}")
    before, its_store = recorded(name, storage)
    study = optuna.load_study(study_name=name, storage=storage)
    if before.objectives != space.objectives:
        raise SweepError(
            f"warm_start: '{name}' was scored by another objective, so its scores cannot be "
            "compared. Leave warm_start out."
        )
    if before.constraints != space.constraints:
        raise SweepError(
            f"warm_start: '{name}' had other constraints, so which of its trials keep these is not "
            "known. Give both the same, or leave warm_start out."
        )
    # What it learnt itself by rank is of yet another store.
    strange = study.user_attrs[WARM] if study.user_attrs.get(BY_RANK) else 0
    ended = [trial for trial in study.trials[strange:] if trial.state in INFORMATIVE]
    taken = [inside for trial in ended if (inside := _within(space, trial)) is not None]
    left = len(ended) - len(taken)
    said = [
        f"Learning from {many(len(taken), 'trial')} of '{name}'"
        + (f"; {left} others lie outside this space." if left else ".")
    ]
    other = "store" if its_store != store else "folds" if before.folds != space.folds else None
    if other is not None:
        said.append(
            f"'{name}' was trained on {'another store' if other == 'store' else 'other folds'}, so "
            "its trials count by their rank there, and this sweep's by theirs."
        )
        taken = [_without_early_scores(trial) for trial in taken]
    return EarlierTrials(tuple(taken), tuple(said), other is not None)


def _without_early_scores(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial whose scores are an attribute.

    Pruners would compare this sweep's trials with them, epoch by epoch; samplers ask for the last.
    """
    if trial.state == TrialState.PRUNED:
        last = sorted(trial.intermediate_values)[-1:]
        trial.set_user_attr(
            REACHED, {str(epoch): trial.intermediate_values[epoch] for epoch in last}
        )
    trial.intermediate_values = {}
    return trial


def _within(space: SearchSpace, trial: FrozenTrial) -> FrozenTrial | None:
    """Return ``trial`` as one of ``space``, or None if it is no point of that space."""
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
        constraints=trial.constraints,
    )
