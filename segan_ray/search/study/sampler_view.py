"""A study as samplers see it: a paused trial tells them what a stopped one does.

To Optuna a paused trial is running, and of running trials a sampler learns nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Container

import optuna
from optuna.trial import FrozenTrial, TrialState

from segan_ray.search.storage.owned_storage import OwnedStorage
from segan_ray.search.study.study_trials import rung_of


def sampler_view(study: optuna.Study) -> optuna.Study:
    """Return ``study`` with paused trials as pruned ones; what is written goes to ``study``."""
    view = copy.copy(study)
    view._storage = _PausedAsPruned(study._storage, lambda: None)  # noqa: SLF001
    return view


class _PausedAsPruned(OwnedStorage):
    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        trials = super().get_all_trials(study_id, deepcopy)
        seen = [_as_pruned(each) if _is_paused(each) else each for each in trials]
        return [each for each in seen if states is None or each.state in states]


def _is_paused(trial: FrozenTrial) -> bool:
    rung = rung_of(trial)
    return rung is not None and rung.paused


def _as_pruned(trial: FrozenTrial) -> FrozenTrial:
    pruned = copy.copy(trial)
    pruned.state = TrialState.PRUNED
    return pruned
