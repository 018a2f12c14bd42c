"""What an expert believes of parameters: points drawn around values that are thought to be good.

A share of a sweep's points is drawn so, all of the first and ever fewer later, so that a belief
that misleads is forgotten (as the prior of PiBO, Hvarfner et al. 2022, fades with the count of
trials). The others are the sampler's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, cast

from optuna import Trial

from segan_ray.search.space.parameters import FixedParameter, Prior
from segan_ray.search.space.search_space import SearchSpace

HALVED_AFTER: Final = 10
"""After so many points a belief draws half of the next ones, after nine times as many a tenth."""
DRAWS: Final = 100
"""So often a value is drawn again that lies outside of its range, before the nearest end is."""


def priors_of(space: SearchSpace) -> dict[str, Prior]:
    """Return the priors of a space's parameters by their paths."""
    ranged = {
        path: each
        for path, each in space.parameters.items()
        if not isinstance(each, FixedParameter)
    }
    return {path: each.prior for path, each in ranged.items() if each.prior is not None}


def believed_point(space: SearchSpace, number: int, random: Random) -> dict[str, Any] | None:
    """Return a point drawn by the priors, under Optuna's names, or None if the sampler is to draw.

    The first is what is believed to be best. Parameters without a prior are drawn evenly.
    """
    priors = priors_of(space)
    if not priors or random.random() >= HALVED_AFTER / (HALVED_AFTER + number):
        return None
    drawn = _Drawn(priors, random, exactly=number == 0)
    space.suggest(cast("Trial", drawn))
    return drawn.params


@dataclass
class _Drawn:
    """Draws as a trial of Optuna does, under the names that the space gives."""

    priors: dict[str, Prior]
    random: Random
    exactly: bool

    def __post_init__(self) -> None:
        self.params: dict[str, Any] = {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.params[name] = value = self._number(name, low, high, log=log)
        return value

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        self.params[name] = value = round(self._number(name, low, high, log=log))
        return value

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        prior = self.priors.get(name)
        value = self.random.choice(choices)
        if prior is not None and (self.exactly or self.random.random() >= prior.spread):
            value = next(each for each in choices if prior.names(each))
        self.params[name] = value
        return value

    def _number(self, name: str, low: float, high: float, *, log: bool) -> float:
        # The numbers of a list are named after it.
        prior = self.priors.get(name) or self.priors.get(name.rpartition(".")[0])
        if prior is None and log:
            return math.exp(self.random.uniform(math.log(low), math.log(high)))
        if prior is None:
            return self.random.uniform(low, high)
        best = float(cast("float", prior.value))
        value = best
        for _ in range(0 if self.exactly else DRAWS):
            steps = self.random.gauss()
            value = best * prior.spread**steps if log else best + prior.spread * steps
            if low <= value <= high:
                break
        return min(max(value, low), high)
