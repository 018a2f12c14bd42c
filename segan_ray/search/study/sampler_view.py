"""A study as samplers see it.

To Optuna a paused trial is running, and of running trials a sampler learns nothing: here it tells
what a stopped one does. Trials of an earlier sweep on another store count by their rank there, and
the sweep's own by theirs, since levels of two stores cannot be compared.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Sequence

import numpy as np
import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import rankdata

from segan_ray.search.storage.owned_storage import OwnedStorage
from segan_ray.search.storage.warm_start import REACHED
from segan_ray.search.study.study_trials import rung_of


def sampler_view(study: optuna.Study, ranked: int = 0) -> optuna.Study:
    """Return ``study`` as samplers see it; what is written goes to ``study``.

    With a number ``ranked`` the first so many trials are another store's, and values are shares of
    the trials that are no better, among those and among the rest.
    """
    view = copy.copy(study)
    view._storage = _AsSampled(study._storage, ranked)  # noqa: SLF001
    return view


class _AsSampled(OwnedStorage):
    def __init__(self, storage: BaseStorage, ranked: int) -> None:
        super().__init__(storage, lambda: None)
        self._ranked = ranked

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        trials = super().get_all_trials(study_id, deepcopy)
        seen = [_as_pruned(each) if _is_paused(each) else each for each in trials]
        if self._ranked:
            seen = [*by_rank(seen[: self._ranked]), *by_rank(seen[self._ranked :])]
        return [each for each in seen if states is None or each.state in states]


def by_rank(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return trials with their ranks among each other, from 0 to 1, in place of their values."""
    ranked = [copy.copy(each) for each in trials]
    for each in ranked:
        reached = each.user_attrs.get(REACHED, {})
        of_another = {int(epoch): score for epoch, score in reached.items()}
        each.intermediate_values = {**each.intermediate_values, **of_another}
    complete = [each for each in ranked if each.state == TrialState.COMPLETE]
    if complete:
        points = [each.values for each in complete]
        columns = [_shares(column) for column in zip(*points, strict=True)]
        for each, values in zip(complete, zip(*columns, strict=True), strict=True):
            each.values = list(values)
    steps = {step for each in ranked for step in each.intermediate_values}
    for step in steps:
        there = [each for each in ranked if step in each.intermediate_values]
        shares = _shares([each.intermediate_values[step] for each in there])
        for each, share in zip(there, shares, strict=True):
            each.intermediate_values[step] = share
    return ranked


def _shares(values: Sequence[float]) -> list[float]:
    """Return the mean rank of each value as a share of their number; what is no number stays."""
    ranks = rankdata(values, nan_policy="omit")
    known = max(1, int(np.count_nonzero(~np.isnan(values))))
    return [(float(rank) - 0.5) / known for rank in ranks]


def _is_paused(trial: FrozenTrial) -> bool:
    rung = rung_of(trial)
    return rung is not None and rung.paused


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    pruned = copy.copy(trial)
    pruned.state = TrialState.PRUNED
    return pruned
