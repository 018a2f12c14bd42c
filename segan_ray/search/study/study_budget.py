"""What a sweep may spend and what it has spent, kept in its study so that a resume keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import optuna

from segan_ray.errors import SweepError, many
from segan_ray.search.space.search_space import Budget, SearchSpace
from segan_ray.search.storage.study_record import BUDGET, IN_FILE, SPACE
from segan_ray.search.study.requests import DONE, Requests

SPENT: Final = "spent"
KEYS: Final = {
    "trials": (BUDGET, IN_FILE),
    "hours": ("hours", "hours_in_file"),
    "gpu_hours": ("gpu_hours", "gpu_hours_in_file"),
    "max_concurrent": ("max_concurrent", "max_concurrent_in_file"),
}
"""The attributes with each limit, and with what the space file said of it when last read."""


@dataclass(frozen=True)
class Limits:
    """The most that a sweep may have; None: no limit, or where limits are given, none given.

    ``max_concurrent`` is how many trials may train at once, ``auto`` as many as there is room for.
    """

    trials: int | None = None
    hours: float | None = None
    gpu_hours: float | None = None
    max_concurrent: int | Literal["auto"] | None = None

    @classmethod
    def of(cls, budget: Budget) -> Limits:
        """Return the limits of a space file."""
        return cls(budget.trials, budget.hours, budget.gpu_hours, budget.max_concurrent)


@dataclass(frozen=True)
class Spent:
    """How many hours a sweep has run, and for how many hours its trials held a GPU."""

    hours: float = 0.0
    gpu_hours: float = 0.0


class StudyBudget:
    """The limits of one sweep and what it has spent. Trials are counted without repeats."""

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        attributes = study.user_attrs
        began = Limits.of(SearchSpace.model_validate_json(attributes[SPACE]).budget)
        # An earlier segan-ray kept some of them, or none, beside the space that it began with.
        self.limits = _limits(attributes, 0, began)
        self._in_file = _limits(attributes, 1, began)
        self.spent = Spent(**attributes.get(SPENT, {}))

    @property
    def trials(self) -> int:
        """How many trials the sweep is to have."""
        return self.limits.trials or 0

    @property
    def at_once(self) -> int | None:
        """How many trials may train at once; None: as many as there is room for."""
        most = self.limits.max_concurrent
        return most if isinstance(most, int) else None

    @property
    def used_up(self) -> Literal["hours", "gpu_hours"] | None:
        """What of the hours is used up, so that nothing trains any more."""
        limits, spent = self.limits, self.spent
        if limits.hours is not None and spent.hours >= limits.hours:
            return "hours"
        if limits.gpu_hours is not None and spent.gpu_hours >= limits.gpu_hours:
            return "gpu_hours"
        return None

    def take(self, in_file: Limits, given: Limits, searched: int) -> None:
        """Set each limit to what is given, else to that in the space file.

        While the file says of a limit what it did before, that limit stays as it was given.

        Raises:
            SweepError: if more than so many trials have been ``searched`` already.
        """
        before, now, wanted = asdict(self._in_file), asdict(in_file), asdict(given)
        for limit, value in wanted.items():
            if value is None:
                changed = now[limit] != before[limit]
                wanted[limit] = now[limit] if changed else getattr(self.limits, limit)
        self._check(wanted["trials"], "--trials" if given.trials else "budget.trials:", searched)
        for limit, keys in KEYS.items():
            for key, value in zip(keys, (wanted[limit], now[limit]), strict=True):
                self._study.set_user_attr(key, value)
        self.limits, self._in_file = Limits(**wanted), in_file

    def after(self, requests: Requests) -> Limits:
        """Return the limits once those are set that were asked for since the last time."""
        limits = self.limits
        for request in requests.limits_to_set:
            limits = replace(limits, **request.content)
        return limits

    def fulfil(self, requests: Requests) -> None:
        """Set the limits that were asked for since the last time.

        After a kill between the limits and the note that they are set, they are set once more.
        """
        wanted = self.after(requests)
        for limit, (key, _) in KEYS.items():
            if getattr(wanted, limit) != getattr(self.limits, limit):
                self._study.set_user_attr(key, getattr(wanted, limit))
        self.limits = wanted
        if requests.limits_to_set:
            names = [request.name for request in requests.limits_to_set]
            self._study.set_user_attr(DONE, sorted({*requests.done, *names}))

    def spend(self, hours: float, gpu_hours: float) -> None:
        """Record that the sweep has run for more hours and its trials held GPUs for more."""
        self.spent = Spent(self.spent.hours + hours, self.spent.gpu_hours + gpu_hours)
        self._study.set_user_attr(SPENT, asdict(self.spent))

    def _check(self, trials: int, given: str, searched: int) -> None:
        if trials < searched:
            raise SweepError(
                f"'{self._study.study_name}' has {many(searched, 'trial')} already; "
                f"{given} {trials} cannot take any away."
            )


def _limits(attributes: Mapping[str, Any], place: int, began: Limits) -> Limits:
    known = asdict(began)
    return Limits(
        **{limit: attributes.get(keys[place], known[limit]) for limit, keys in KEYS.items()}
    )
