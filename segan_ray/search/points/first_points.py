"""The points a sweep tries first: known settings, as far as they lie in its space."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from segan_ray.config import build, flatten, load_preset
from segan_ray.errors import ConfigError
from segan_ray.search.space.parameters import (
    ChoiceParameter,
    FixedParameter,
    FloatsParameter,
    IntParameter,
    said_as,
    same,
)
from segan_ray.search.space.sampler_settings import GridSampler
from segan_ray.search.space.search_space import SearchSpace


@dataclass(frozen=True)
class FirstPoints:
    """``points`` under Optuna's names; ``skipped`` says why other entries give no point."""

    points: tuple[dict[str, Any], ...]
    skipped: tuple[str, ...]


def first_points(space: SearchSpace) -> FirstPoints:
    """Return the points of ``space.enqueue``, each once; none for a grid sampler.

    A point outside the space is skipped, never moved into it. Settings that an entry does not
    give are left to the sampler.
    """
    points: list[dict[str, Any]] = []
    skipped = []
    entries = () if isinstance(space.sampler, GridSampler) else space.enqueue
    for index, entry in enumerate(entries):
        if isinstance(entry, str):
            label = f"preset '{entry}'"
            values = flatten(build(load_preset(entry), label))
        else:
            label, values = f"entry {index + 1} of enqueue", entry
        point, reasons = point_of(space, values, whole=isinstance(entry, str))
        if reasons:
            skipped.append(f"{label} is not tried: {'; '.join(reasons)}.")
        elif point and point not in points:
            points.append(point)
    return FirstPoints(tuple(points), tuple(skipped))


def point_of(
    space: SearchSpace, values: Mapping[str, Any], *, whole: bool
) -> tuple[dict[str, Any], list[str]]:
    """Return the point of ``values``, or why there is none.

    ``whole`` values give every setting there is, also those that are not drawn beside others.
    """
    known = space.settings()
    drawn: dict[str, Any] = {}
    left_open: set[str] = set()
    reasons: list[str] = []
    for path in space.order():
        parameter = space.parameters[path]
        given = path in values and not isinstance(parameter, FixedParameter)
        if unknown := sorted(parameter.needs() & left_open):
            left_open.add(path)
            if given:
                reasons.append(f"{path} depends on {unknown[0]}: give that too")
        elif not parameter.active(known):
            if given and not whole:
                reasons.append(f"{path} is not drawn beside the other values")
        elif isinstance(parameter, FixedParameter):
            known[path] = drawn[path] = parameter.value
        elif not given:
            left_open.add(path)
        else:
            value = _as_drawn(parameter, values[path], known)
            reasons.extend(_misfits(path, parameter, value, known))
            known[path] = drawn[path] = value
    if not reasons and not left_open:
        reasons.extend(_refusals(space, drawn))
    return ({} if reasons else _named(space, drawn)), reasons


def _as_drawn(parameter: Any, value: Any, known: Mapping[str, Any]) -> Any:
    """Return ``value`` in the type that the parameter draws, if it can be converted."""
    if isinstance(parameter, FloatsParameter):
        # Settings say "equal weights" by giving none.
        return [1.0] * parameter.count(known) if value is None else value
    if isinstance(parameter, ChoiceParameter):
        return next((choice for choice in parameter.values if same(choice, value)), value)
    if parameter.misfit(value):
        return value
    return int(value) if isinstance(parameter, IntParameter) else float(value)


def _misfits(path: str, parameter: Any, value: Any, known: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(parameter, FloatsParameter):
        items = {path: value}
    else:
        count = parameter.count(known)
        if not isinstance(value, (list, tuple)) or len(value) != count:
            yield f"{path} is {said_as(value)}, the space draws {count} numbers there"
            return
        items = {f"{path}.{index}": item for index, item in enumerate(value)}
    for name, item in items.items():
        if misfit := parameter.misfit(item):
            yield f"{name} is {said_as(item)}, the space draws {misfit}"


def _refusals(space: SearchSpace, drawn: Mapping[str, Any]) -> list[str]:
    try:
        space.experiment(drawn)
    except ConfigError as error:
        return [problem.rstrip(".") for problem in error.problems]
    return []


def _named(space: SearchSpace, drawn: Mapping[str, Any]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for path, value in drawn.items():
        parameter = space.parameters[path]
        if isinstance(parameter, FloatsParameter):
            named |= {f"{path}.{index}": float(item) for index, item in enumerate(value)}
        elif not isinstance(parameter, FixedParameter):
            named[path] = value
    return named
