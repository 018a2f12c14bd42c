"""How many different points a space has, where that can be counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from segan_ray.search.space.parameters import FloatParameter, FloatsParameter, Parameter
from segan_ray.search.space.search_space import SearchSpace

MOST: Final = 1000
"""A sweep does not run out of more points than this."""


def count_points(space: SearchSpace) -> int | None:
    """Return how many different points ``space`` has, or None if more than ``MOST``."""
    return _count(space, space.order(), space.settings())


def _count(space: SearchSpace, paths: Sequence[str], known: Mapping[str, Any]) -> int | None:
    """Return the number of ways to draw ``paths``, given what is drawn and fixed before them."""
    if not paths:
        return 1
    path, *rest = paths
    parameter = space.parameters[path]
    if not parameter.active(known):
        return _count(space, rest, known)
    total = 0
    for value in _every(parameter, known) or ():
        more = _count(space, rest, {**known, path: value})
        if more is None or total + more > MOST:
            return None
        total += more
    return total or None


def _every(parameter: Parameter, known: Mapping[str, Any]) -> Sequence[Any] | None:
    """Return every value that a sampler may draw; None for a continuum, whatever a grid tries."""
    if not isinstance(parameter, (FloatParameter, FloatsParameter)):
        return parameter.every()
    if parameter.low != parameter.high:
        return None
    if isinstance(parameter, FloatsParameter):
        return ([parameter.low] * parameter.count(known),)
    return (parameter.low,)
