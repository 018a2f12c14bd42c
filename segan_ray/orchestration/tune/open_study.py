"""Opening or making the study of a sweep, and holding its lease while the sweep runs."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

from segan_ray.errors import SweepError
from segan_ray.filesystem.locations import is_url
from segan_ray.home import OPTUNA_STORAGE, Home
from segan_ray.orchestration.tune.sweep_lock import request_stop
from segan_ray.orchestration.tune.sweep_plan import Sweep
from segan_ray.search.storage.lease import HeldLease, forget_half_made, holder_of, leased
from segan_ray.search.storage.owned_storage import OwnedStorage
from segan_ray.search.storage.recorded_locations import settle_records, settle_storage
from segan_ray.search.storage.study_record import empty_study, reserve_study, study_exists
from segan_ray.search.storage.study_storage import Storage, open_storage, studies_location
from segan_ray.search.storage.warm_start import EarlierTrials, earlier_trials
from segan_ray.search.study.sweep_study import SweepStudy
from segan_ray.tracking.reading.sweeps import name_is_taken
from segan_ray.training.checkpoints.remote_folder import anything_at


def open_study(
    sweep: Sweep, until_the_end: contextlib.ExitStack, say: Any
) -> tuple[SweepStudy, HeldLease]:
    """Open or make the study, hold its lease, and check that the checkpoints' place is the same."""
    storage, by = open_storage(sweep.home), holder_of(sweep.home)
    ask = partial(request_stop, sweep.folder)
    mine = partial(leased, sweep.name, storage, by, say, on_stop=ask)
    forget_half_made(sweep.name, storage, by, say)
    if study_exists(sweep.name, storage):
        if not sweep.resume:
            raise SweepError(_taken(sweep.name))
        holding = until_the_end.enter_context(mine())
        study = _earlier_study(sweep, OwnedStorage(storage, holding.check), say)
    else:
        check_nothing_there(sweep.home, sweep.name)
        earlier = _earlier_trials(sweep, storage)
        # The lease comes before the content: another process may read the study meanwhile.
        reserve_study(sweep.name, sweep.space, storage)
        holding = until_the_end.enter_context(mine(new=True))
        study = _new_study(sweep, OwnedStorage(storage, holding.check), earlier, say)
    settle_storage(study.study, sweep.home.storage_setting)
    settle_records(study.study, sweep.home, lambda: name_is_taken(sweep.home, sweep.name))
    return study, holding


def _earlier_study(sweep: Sweep, storage: Storage, say: Any) -> SweepStudy:
    study = SweepStudy.open(sweep.name, sweep.space, storage, store=sweep.card.fingerprint)
    # What was asked for while none ran comes before what is given now.
    study.take_requests()
    before = study.budget.limits
    study.take_budget(sweep.given)
    now = study.budget.limits
    if now.trials != before.trials and sweep.given.trials is None:
        say(f"'{sweep.name}' is to have {now.trials} trials, as its space file says now.")
    return study


def _earlier_trials(sweep: Sweep, storage: Storage) -> EarlierTrials:
    """Return the earlier trials that a new sweep learns from, if its name is free."""
    if name_is_taken(sweep.home, sweep.name):
        raise SweepError(_without_study(sweep) if sweep.resume else _taken(sweep.name))
    return earlier_trials(sweep.space, storage, sweep.card.fingerprint)


def _new_study(sweep: Sweep, storage: Storage, earlier: EarlierTrials, say: Any) -> SweepStudy:
    study = SweepStudy.begin(
        empty_study(sweep.name, sweep.space, storage),
        sweep.space,
        store=sweep.card.fingerprint,
        earlier=earlier.trials,
        by_rank=earlier.by_rank,
    )
    for sentence in (*earlier.said, *study.skipped):
        say(sentence)
    study.take_budget(sweep.given)
    return study


def check_nothing_there(home: Home, name: str) -> None:
    """Make sure that a new sweep or run finds no checkpoints of another.

    Raises:
        SweepError: if something lies where its own would, at a URL or in a shared folder.
        CheckpointError: if that place cannot be read.
    """
    where, setting = home.storage_of(name), home.storage_setting
    if setting is None:
        return
    if anything_at(where) if is_url(where) else any(Path(where).glob("*")):
        raise SweepError(
            f"{where} holds files of an earlier '{name}' that this home's records do not know. "
            "Choose another --name, or remove them if nobody needs them."
        )


def _taken(name: str) -> str:
    return f"A sweep or run named '{name}' exists already. Choose another --name, or --resume it."


def _without_study(sweep: Sweep) -> str:
    return (
        f"'{sweep.name}' is recorded at {sweep.home.records}, but its study is not in "
        f"{studies_location(sweep.home)}. Set {OPTUNA_STORAGE} to the database that it began with, "
        "or choose another --name."
    )
