"""The differences of two search spaces: a sweep resumes only with the space it began with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from segan_ray.search.space.parameters import said_as
from segan_ray.search.space.search_space import SearchSpace


def difference(a: SearchSpace, b: SearchSpace) -> list[str]:
    """Return a sentence for each difference between ``a`` and ``b``, except in the budget.

    ``preset`` and ``base`` are compared by the settings they make, not by how they are written.
    """
    was, now = a.model_dump(mode="json"), b.model_dump(mode="json")
    return [
        *_changes(
            "",
            *(
                {key: d[key] for key in ("name", "folds", "enqueue", "warm_start")}
                for d in (was, now)
            ),
        ),
        *_objectives(a, b),
        *_constraints(a, b),
        *_settings(a, b),
        *_parameters(was["parameters"], now["parameters"]),
        *_part("sampler", was["sampler"], now["sampler"]),
        *_part("scheduler", was["scheduler"], now["scheduler"]),
    ]


def _objectives(a: SearchSpace, b: SearchSpace) -> Iterator[str]:
    was, now = (
        ", ".join(f"{each.metric} ({each.mode})" for each in space.objectives) for space in (a, b)
    )
    if was != now:
        yield f"objective was {was} and is {now}."


def _constraints(a: SearchSpace, b: SearchSpace) -> Iterator[str]:
    was, now = (", ".join(each.said() for each in space.constraints) or "none" for space in (a, b))
    if was != now:
        yield f"constraints were {was} and are {now}."


def _settings(a: SearchSpace, b: SearchSpace) -> Iterator[str]:
    always = {
        path
        for path in a.parameters.keys() & b.parameters.keys()
        if not a.parameters[path].when and not b.parameters[path].when
    }
    was, now = (
        {path: value for path, value in space.settings().items() if path not in always}
        for space in (a, b)
    )
    return _changes("", was, now)


def _parameters(was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{path} was drawn and is not." for path in was if path not in now)
    yield from (f"{path} is drawn and was not." for path in now if path not in was)
    for path in was:
        if path in now:
            yield from _part(path, was[path], now[path])


def _part(name: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    if was["type"] != now["type"]:
        yield f"{name} was {was['type']} and is {now['type']}."
    else:
        yield from _changes(f"{name}: ", was, now)


def _changes(prefix: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key, value in was.items():
        if value != now[key]:
            yield f"{prefix}{key} was {said_as(value)} and is {said_as(now[key])}."
