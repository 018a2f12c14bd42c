"""A sweep's study in its storage: made, found again, removed.

A study's attributes hold its space, the store's fingerprint, and how many of its trials are an
earlier sweep's. ``READY`` is written last, so a study without it is half made.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Final

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from segan_ray.errors import SweepError
from segan_ray.search.optuna_adapters import make_pruner
from segan_ray.search.space.difference import difference
from segan_ray.search.space.search_space import SearchSpace

SPACE: Final = "space"
STORE: Final = "store"
BUDGET: Final = "budget"
IN_FILE: Final = "budget_in_file"
"""The budget in the space file when it was last read; the sweep's own may differ."""
RECORDS: Final = "records"
WARM: Final = "warm"
BY_RANK: Final = "warm_by_rank"
"""Whether the earlier sweep's trials are of another store."""
READY: Final = "ready"


def reserve_study(sweep: str, space: SearchSpace, storage: BaseStorage | None) -> optuna.Study:
    """Make the study of a new sweep, still empty, so that no other sweep takes its name.

    Raises:
        SweepError: if ``storage`` holds a study of that name already.
    """
    modes = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
    try:
        return optuna.create_study(
            study_name=sweep,
            storage=storage,
            directions=[modes[objective.mode] for objective in space.objectives],
            pruner=make_pruner(space),
        )
    except DuplicatedStudyError:
        raise SweepError(
            f"A sweep named '{sweep}' exists already. Choose another --name, or go on with "
            "it: --resume."
        ) from None


def empty_study(sweep: str, space: SearchSpace, storage: BaseStorage) -> optuna.Study:
    """Return the study that ``reserve_study`` made."""
    return optuna.load_study(study_name=sweep, storage=storage, pruner=make_pruner(space))


def fill_study(
    study: optuna.Study,
    space: SearchSpace,
    store: str,
    earlier: Sequence[FrozenTrial],
    *,
    by_rank: bool = False,
) -> None:
    """Write the attributes of an empty study, ``READY`` last."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        # Optuna itself needs no names; its dashboard shows them.
        study.set_metric_names([objective.metric for objective in space.objectives])
    study.set_user_attr(SPACE, space.model_dump_json())
    study.set_user_attr(STORE, store)
    study.set_user_attr(BUDGET, space.budget.trials)
    study.set_user_attr(IN_FILE, space.budget.trials)
    study.add_trials(earlier)
    study.set_user_attr(BY_RANK, by_rank)
    study.set_user_attr(WARM, len(earlier))
    study.set_user_attr(READY, True)


def load_study(
    sweep: str, space: SearchSpace, storage: BaseStorage, store: str
) -> tuple[optuna.Study, SearchSpace]:
    """Return the study of an earlier process, and the space it began with.

    Raises:
        SweepError: if there is none, or if its space or its store is another.
    """
    before, its_store = recorded(sweep, storage)
    changed = difference(before, space)
    if changed:
        raise SweepError(
            f"'{sweep}' searched something else: {' '.join(changed)} Resume it with the "
            "space it began with, or begin another sweep."
        )
    if its_store != store:
        raise SweepError(
            f"'{sweep}' was trained on the store with fingerprint {its_store}, "
            f"this one has {store}: scores of two stores cannot be compared."
        )
    return (
        optuna.load_study(study_name=sweep, storage=storage, pruner=make_pruner(before)),
        before,
    )


def recorded(sweep: str, storage: BaseStorage) -> tuple[SearchSpace, str]:
    """Return the space that a sweep searches, and the fingerprint of its store.

    Raises:
        SweepError: if ``storage`` holds no study of that name, or a half-made one.
    """
    if sweep not in optuna.get_all_study_names(storage):
        raise SweepError(f"No study of a sweep '{sweep}' is there. segan-ray sweeps lists them.")
    attributes = optuna.load_study(study_name=sweep, storage=storage).user_attrs
    if not attributes.get(READY):
        raise SweepError(
            f"The study '{sweep}' is none that this segan-ray began: it cannot be gone on with. "
            "Choose another --name."
        )
    return SearchSpace.model_validate_json(attributes[SPACE]), attributes[STORE]


def study_exists(sweep: str, storage: BaseStorage) -> bool:
    """Tell whether ``storage`` holds a study of that name, for a sweep or not, that is whole."""
    return sweep in optuna.get_all_study_names(storage) and not is_half_made(sweep, storage)


def is_half_made(sweep: str, storage: BaseStorage) -> bool:
    """Tell whether a sweep's study is being made, or was interrupted while it was made.

    A study with trials but without a space was not made for a sweep.
    """
    if sweep not in optuna.get_all_study_names(storage):
        return False
    study = optuna.load_study(study_name=sweep, storage=storage)
    attributes = study.user_attrs
    return READY not in attributes and (SPACE in attributes or not study.get_trials())


def is_ours(sweep: str, storage: BaseStorage) -> bool:
    """Tell whether a study of that name is there and was made for a sweep."""
    if sweep not in optuna.get_all_study_names(storage):
        return False
    return SPACE in optuna.load_study(study_name=sweep, storage=storage).user_attrs


def records_of_study(sweep: str, storage: BaseStorage) -> str | None:
    """Return where a sweep's runs are recorded, or None if its study does not say."""
    if not is_ours(sweep, storage):
        return None
    place = optuna.load_study(study_name=sweep, storage=storage).user_attrs.get(RECORDS)
    return None if place is None else str(place)


def delete_study(sweep: str, storage: BaseStorage) -> bool:
    """Remove a sweep's study; return whether there was one."""
    if sweep not in optuna.get_all_study_names(storage):
        return False
    optuna.delete_study(study_name=sweep, storage=storage)
    return True
