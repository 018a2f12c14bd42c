"""Steering a sweep from any terminal or machine: end a trial, try a point, set other limits.

What is asked is kept in the sweep's study. The process that runs the sweep does it at the end of an
epoch; if none runs, the next ``--resume`` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import ValidationError

from segan_ray.errors import SweepError, many, nearest
from segan_ray.home import Home, check_name
from segan_ray.orchestration.tune.sweep_lock import is_held
from segan_ray.search.points.first_points import point_of
from segan_ray.search.space.parameters import FixedParameter
from segan_ray.search.space.sampler_settings import GridSampler
from segan_ray.search.space.search_space import Budget
from segan_ray.search.storage.lease import lease_of
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.search.study.requests import Kind, Requests, ask
from segan_ray.search.study.study_budget import KEYS
from segan_ray.search.study.sweep_study import SweepStudy

LIFTED: Final = ("hours", "gpu_hours")
"""The limits that a sweep need not have."""


@dataclass(frozen=True)
class Asked:
    """A request that is kept; ``runs`` tells whether a process runs the sweep now.

    ``hint`` is what else is to be done.
    """

    sweep: str
    content: Mapping[str, Any]
    runs: bool
    hint: str | None = None


def stop_trial(home: Home, name: str, trial: int) -> Asked:
    """Ask that one trial end: at its next epoch's end if it trains, else at once.

    Raises:
        SweepError: if there is no such sweep or trial, or the trial has ended.
    """
    study = _study(home, name)
    there = study.trials.all()
    if not 0 <= trial < len(there):
        raise SweepError(f"'{name}' has no trial {trial:03d}: it has {many(len(there), 'trial')}.")
    ended = study.trials.ended().get(trial)
    if ended is not None:
        raise SweepError(f"Trial {trial:03d} of '{name}' has ended already: {ended.outcome}.")
    return _ask(home, name, "stop_trial", {"trial": trial})


def enqueue(home: Home, name: str, values: Mapping[str, Any]) -> Asked:
    """Ask that a point be tried next; the settings that ``values`` leave out are drawn.

    Raises:
        SweepError: if there is no such sweep, or the point lies outside of its space.
    """
    study = _study(home, name)
    space = study.space
    if isinstance(space.sampler, GridSampler):
        raise SweepError(f"'{name}' tries every point of a grid: nothing can be put before them.")
    drawn = {
        path for path, each in space.parameters.items() if not isinstance(each, FixedParameter)
    }
    for path in values:
        if path not in drawn:
            raise SweepError(f"'{name}' does not draw {path}.{nearest(path, drawn)}")
    point, reasons = point_of(space, values, whole=False)
    if reasons:
        raise SweepError(f"'{name}' cannot try this point: {'; '.join(reasons)}.")
    asked = _ask(home, name, "try_point", {"point": point})
    trials = study.budget.after(Requests.of(study.study.user_attrs)).trials or 0
    if study.trials.searched < trials:
        return asked
    more = f"segan-ray set {name} trials={trials + 1}"
    return replace(asked, hint=f"It has had all of its {many(trials, 'trial')}. More: {more}")


def set_limits(home: Home, name: str, values: Mapping[str, Any]) -> Asked:
    """Ask for other limits: ``trials``, ``max_concurrent``, ``hours``, ``gpu_hours``.

    Raises:
        SweepError: if there is no such sweep or limit, or it has more trials already.
    """
    study = _study(home, name)
    for key in values:
        if key not in KEYS:
            known = ", ".join(KEYS)
            raise SweepError(f"No limit '{key}'.{nearest(key, KEYS)} There are: {known}.")
    limits = _checked(values)
    searched = study.trials.searched
    if limits.get("trials", searched) < searched:
        raise SweepError(
            f"'{name}' has {many(searched, 'trial')} already; trials={limits['trials']} cannot "
            "take any away."
        )
    return _ask(home, name, "set_limits", limits)


def _checked(values: Mapping[str, Any]) -> dict[str, Any]:
    try:
        budget = Budget.model_validate(dict(values))
    except ValidationError as error:
        (first, *_) = error.errors()
        key = first["loc"][0]
        said = first["msg"].removeprefix("Value error, ")
        raise SweepError(f"{key}={values[str(key)]}: {said}.") from None
    limits = {key: getattr(budget, key) for key in values}
    for key, value in limits.items():
        if value is None and key not in LIFTED:
            raise SweepError(f"{key}: a sweep needs this limit.")
    return limits


def _study(home: Home, name: str) -> SweepStudy:
    """Return the study as it is, to be read only: another process may run the sweep."""
    return SweepStudy.reopened(check_name(name), open_storage(home))


def _ask(home: Home, name: str, kind: Kind, content: Mapping[str, Any]) -> Asked:
    storage = open_storage(home)
    ask(name, storage, kind, content)
    runs = is_held(home.sweeps / name) or lease_of(name, storage) is not None
    return Asked(name, content, runs)
