"""Where a sweep's checkpoints and records are; a resumed sweep must use the same places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import optuna

from segan_ray.errors import SweepError
from segan_ray.filesystem.locations import is_url
from segan_ray.home import STORAGE, TRACKING_URI, Home
from segan_ray.search.storage.study_record import RECORDS

PLACE: Final = "storage"


def settle_storage(study: optuna.Study, location: str | None) -> None:
    """Record ``SEGAN_RAY_STORAGE``, or make sure that the sweep began with the same one.

    Raises:
        SweepError: if not: the sweep would find no checkpoint and train all trials anew.
    """
    if PLACE not in study.user_attrs:
        study.set_user_attr(PLACE, location)
        return
    check_storage(study.study_name, study.user_attrs[PLACE], location)


def check_storage(name: str, before: str | None, now: str | None) -> None:
    """Make sure that a sweep or run goes on where it began; None is its home.

    Raises:
        SweepError: if not.
    """
    if before == now:
        return
    began, is_at = before or "in its home", now or "not set"
    mend = f"Set {STORAGE}={before}" if before else f"Unset {STORAGE}"
    raise SweepError(
        f"'{name}' began with its checkpoints {began}, and {STORAGE} is {is_at}: it would train "
        f"all anew. {mend}, or begin another."
    )


def settle_records(study: optuna.Study, home: Home, are_here: Callable[[], bool]) -> None:
    """Record where the sweep's runs are, or make sure that they are in the same place.

    ``are_here`` tells whether ``home`` has runs of the sweep: one address has several spellings.

    Raises:
        SweepError: if not: the sweep would be recorded in two halves.
    """
    before = study.user_attrs.get(RECORDS)
    if study.trials:
        check_records(study.study_name, before, home, are_here)
    if before != home.records:
        study.set_user_attr(RECORDS, home.records)


def check_records(name: str, before: str | None, home: Home, are_here: Callable[[], bool]) -> None:
    """Make sure that a sweep or run is recorded where it began; None is an unknown place.

    Raises:
        SweepError: if not.
    """
    if before in (None, home.records) or are_here():
        return
    mend = (
        f"Set {TRACKING_URI}={before}"
        if is_url(before)
        else f"Unset {TRACKING_URI} and say --home {before}"
    )
    raise SweepError(
        f"'{name}' began with its records at {before}, and {home.records} has none of it: it "
        f"would be recorded in two halves. {mend}, or begin another."
    )
