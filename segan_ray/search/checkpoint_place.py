"""Where a sweep's checkpoints are: the same place for as long as it goes on."""

from __future__ import annotations

from typing import Final

import optuna

from segan_ray.errors import SweepError
from segan_ray.home import STORAGE

PLACE: Final = "storage"


def settle_place(study: optuna.Study, place: str | None) -> None:
    """Write down ``SEGAN_RAY_STORAGE``, or make sure it is what the sweep began with.

    Raises:
        SweepError: if it is another: the sweep would find no checkpoint and train all anew.
    """
    if PLACE not in study.user_attrs:
        study.set_user_attr(PLACE, place)
        return
    check_place(study.study_name, study.user_attrs[PLACE], place)


def check_place(name: str, before: str | None, now: str | None) -> None:
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
