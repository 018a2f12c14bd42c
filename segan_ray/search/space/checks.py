"""Checks, before a sweep starts, that every point of a space makes an ``Experiment``."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from segan_ray.config import Experiment, explain, flatten, merge, nest, paths, too_large
from segan_ray.errors import ConfigError, nearest
from segan_ray.search.space.estimate import largest
from segan_ray.search.space.parameters import FloatParameter, FloatsParameter, same, words
from segan_ray.search.space.search_space import SearchSpace, in_order_of_need
from segan_ray.sizes import MOST_WEIGHTS

MOST_COMBINATIONS: Final = 64
"""Up to this many combinations of parameters that others depend on, all are checked."""


@dataclass(frozen=True)
class Problem:
    """``text`` says what is wrong; the keys ``where`` lead to it from the top of the file."""

    where: tuple[str | int, ...]
    text: str


def mended(space: SearchSpace) -> tuple[SearchSpace, list[Problem]]:
    """Return ``space`` without the wrong parts of ``preset`` and ``base``, and their problems."""
    problems = []
    try:
        space.fixed()
    except ConfigError as error:
        problems = [Problem(("preset",), problem) for problem in error.problems]
        space = space.model_copy(update={"preset": None})
    refusals = list(_refusals(space.fixed()))
    problems += [Problem(("base", *loc), f"base: {text}") for loc, text in refusals]
    base = space.base
    for loc, _ in refusals:
        base = _without(base, loc) if loc else {}
    if any(_refusals(space.model_copy(update={"base": base}).fixed())):
        base = {}
    return (space.model_copy(update={"base": base}) if refusals else space), problems


def dependency_problems(space: SearchSpace) -> Iterator[Problem]:
    """Yield the problems of conditions and lengths; ``base`` must have none."""
    known = set(paths())
    for path, parameter in space.parameters.items():
        where = ("parameters", path)
        for other, wanted in parameter.when.items():
            if other not in known:
                text = f"{path}: when names '{other}', no setting.{nearest(other, known)}"
                yield Problem((*where, "when", other), text)
            else:
                for text in _impossible_condition(space, other, wanted):
                    yield Problem((*where, "when", other), f"{path}: {text}")
        length = parameter.length_path if isinstance(parameter, FloatsParameter) else None
        if length is not None and length not in known:
            text = f"{path}: length names '{length}', no setting.{nearest(length, known)}"
            yield Problem((*where, "length"), text)
        elif length is not None and not _is_count(space, length):
            text = f"{path}: length names '{length}', which is no whole number."
            yield Problem((*where, "length"), text)
    cycle = in_order_of_need(space.parameters)[1]
    if cycle:
        yield Problem(
            ("parameters", cycle[0]),
            f"{', '.join(cycle)}: none can be drawn first, as when or length of each asks for "
            "another. Take one of them out.",
        )


def impossible_points(space: SearchSpace, *, whole: bool) -> Iterator[Problem]:
    """Yield what an ``Experiment`` refuses at the ends of every range.

    Conditions and lengths must be right. A space is not ``whole`` if wrong parts were left out of
    it; its settings are then not checked against each other.
    """
    seen: set[str] = set()
    for point in _points(space):
        for loc, text in _refusals(merge(space.fixed(), nest(point))):
            path = _parameter_at(space, loc, text)
            # Without numbers the text is the same for every wrong depth: say it once.
            kind = text if loc else re.sub(r"[\d.]+", "", text)
            if kind not in seen and (loc or whole):
                seen.add(kind)
                yield Problem(("parameters", *([path] if path else [])), text)


def networks_too_large(space: SearchSpace) -> Iterator[Problem]:
    """Yield the networks that are too large at the space's largest sizes."""
    too_big = {name: each for each in largest(space) for name, *_ in too_large(each)}
    for name, experiment in too_big.items():
        settings = getattr(experiment, name)
        yield Problem(
            ("parameters", f"{name}.base_width"),
            f"{name}.base_width {settings.base_width} with {name}.depth {settings.depth} makes a "
            f"network of more than {MOST_WEIGHTS // 10**6:,} million weights. Lower one of them.",
        )


def _impossible_condition(space: SearchSpace, other: str, wanted: tuple[Any, ...]) -> Iterator[str]:
    parameter = space.parameters.get(other)
    if isinstance(parameter, (FloatParameter, FloatsParameter)):
        yield f"when asks for {other}, which is drawn from a continuum. Ask for a choice or an int."
        return
    values = space.possible(other)
    possible = values is None or any(same(value, each) for value in values for each in wanted)
    misspelt = [
        text
        for value in wanted
        for loc, text in _refusals(nest({other: value}))
        if ".".join(map(str, loc)).startswith(other)
    ]
    if misspelt:
        yield f"when names what cannot be: {misspelt[0]}"
    elif not possible:
        yield (
            f"it is never drawn: when asks for {other} {words(wanted)}, which here is "
            f"{words(values or ())} in every trial."
        )


def _is_count(space: SearchSpace, path: str) -> bool:
    parameter = space.parameters.get(path)
    values = parameter.ends() if parameter else (space.settings()[path],)
    below = flatten(Experiment())[path]
    return all(isinstance(v, int) and not isinstance(v, bool) for v in (*values, below))


def _points(space: SearchSpace) -> Iterator[dict[str, Any]]:
    """Yield points that together have every parameter at each of its ends."""
    needed = {other for each in space.parameters.values() for other in each.needs()}
    switches = {path: _few(space, path) for path in space.parameters if path in needed}
    ends = [
        {path: end}
        for path, parameter in space.parameters.items()
        if path not in switches
        for end in parameter.ends()
    ] or [{}]
    if math.prod(map(len, switches.values())) <= MOST_COMBINATIONS:
        for values in itertools.product(*switches.values()):
            chosen = dict(zip(switches, values, strict=True))
            yield from (_resolved(space, {**chosen, **end}) for end in ends)
        return
    for path in space.parameters:
        needs = _enabling(space, path, set())
        for end in switches.get(path) or space.parameters[path].ends():
            yield _resolved(space, {**needs, path: end})
            for other in space.parameters[path].needs() & switches.keys():
                for value in switches[other]:
                    yield _resolved(space, {**needs, path: end, other: value})


def _few(space: SearchSpace, path: str) -> tuple[Any, ...]:
    every = space.parameters[path].every()
    return every if every and len(every) <= MOST_COMBINATIONS else space.parameters[path].ends()


def _enabling(space: SearchSpace, path: str, above: set[str]) -> dict[str, Any]:
    """Return values of other parameters at which ``path`` is drawn."""
    values: dict[str, Any] = {}
    for other, wanted in space.parameters[path].when.items():
        if other in space.parameters and other not in above:
            possible = [v for v in _few(space, other) if any(same(v, w) for w in wanted)]
            values |= _enabling(space, other, above | {path})
            values |= {other: possible[0]} if possible else {}
    return values


def _resolved(space: SearchSpace, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the point with ``chosen`` values and every other parameter at its first end."""
    known, point = space.settings(), {}
    for path in space.order():
        parameter = space.parameters[path]
        if parameter.active(known):
            value = chosen.get(path, parameter.ends()[0])
            if isinstance(parameter, FloatsParameter):
                value = [value] * parameter.count(known)
            known[path] = point[path] = value
    return point


def _refusals(tree: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield what an ``Experiment`` refuses in ``tree``: where, and why."""
    try:
        Experiment.model_validate(tree)
    except ValidationError as error:
        for refusal in error.errors():
            yield refusal["loc"], explain({**refusal})


def _parameter_at(space: SearchSpace, loc: tuple[str | int, ...], text: str) -> str | None:
    if not loc:
        return next((path for path in space.parameters if path in text), None)
    dotted = ".".join(map(str, loc))
    return next((path for path in space.parameters if f"{dotted}.".startswith(f"{path}.")), None)


def _without(tree: Mapping[str, Any], loc: tuple[str | int, ...]) -> dict[str, Any]:
    """Return ``tree`` without the setting that ``loc`` leads to."""
    first, *rest = loc
    below = tree.get(str(first))
    kept = {key: value for key, value in tree.items() if key != first}
    if rest and isinstance(below, Mapping) and isinstance(rest[0], str):
        kept[str(first)] = _without(below, tuple(rest))
    return kept
