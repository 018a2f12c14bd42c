"""Points that were tried before, and how many different points a space has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState

from segan_ray.search.points.points import DRAWN, REPEAT_OF, REUSED, SEED
from segan_ray.search.space.parameters import FloatParameter, FloatsParameter, Parameter
from segan_ray.search.space.search_space import SearchSpace

MOST: Final = 1000
"""A sweep does not run out of more points than this."""


def twin_of(params: Mapping[str, Any], earlier: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the first of ``earlier`` that was trained at ``params`` with the sweep's own seed."""
    for frozen in earlier:
        attributes = frozen.user_attrs
        trained = {REPEAT_OF, REUSED, SEED}.isdisjoint(attributes)
        same = trained and attributes.get(DRAWN) == dict(params)
        if same and frozen.state != TrialState.FAIL:
            return frozen
    return None


def tell_again(study: optuna.Study, trial: optuna.Trial, twin: FrozenTrial, number: int) -> None:
    """Close ``trial`` with the result of its ``twin``, the sweep's trial of that number.

    While the twin is still under way, the trial fails, which tells the sampler nothing.
    """
    trial.set_user_attr(REUSED, number)
    for epoch, value in twin.intermediate_values.items():
        trial.report(value, epoch)
    for name, violation in twin.constraints.items():
        trial.set_constraint(name, violation)
    if twin.state == TrialState.COMPLETE:
        study.tell(trial, twin.values)
    else:
        ended = twin.state == TrialState.PRUNED
        study.tell(trial, state=TrialState.PRUNED if ended else TrialState.FAIL)


def have_tried_all(space: SearchSpace, trials: Sequence[FrozenTrial]) -> bool:
    """Tell whether ``trials`` cover every point of the space."""
    drawn = (trial.user_attrs.get(DRAWN) for trial in trials)
    tried = {json.dumps(params, sort_keys=True) for params in drawn if params is not None}
    points = count_points(space)
    return points is not None and len(tried) >= points


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
