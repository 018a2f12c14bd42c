"""The grid of a search space: every combination of its values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from segan_ray.search.space.search_space import SearchSpace


def grid(space: SearchSpace) -> dict[str, Sequence[Any]]:
    """Return the values a grid tries, under the names Optuna draws them by.

    Every trial must draw the same parameters, and none of them from a continuum.
    """
    every = {path: list(each.every() or ()) for path, each in space.parameters.items()}
    # A length may depend on a parameter that has a single value.
    known = space.settings() | {path: of[0] for path, of in every.items() if len(of) == 1}
    return {
        name: every[path]
        for path, parameter in space.parameters.items()
        for name in parameter.names(path, known)
    }


def grid_size(space: SearchSpace) -> int:
    """Return how many combinations a grid over ``space`` has."""
    return math.prod(len(values) for values in grid(space).values())
