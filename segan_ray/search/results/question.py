"""What a sweep asks, in words: its parameters with their ranges, and how it looks for the best."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from segan_ray.documents import DocumentError, parse_yaml
from segan_ray.search.space.parameters import (
    ChoiceParameter,
    FixedParameter,
    FloatsParameter,
    IntParameter,
    Parameter,
    said_as,
    words,
)
from segan_ray.search.space.search_space import SearchSpace


@dataclass(frozen=True)
class AskedParameter:
    """One parameter: where its values may lie, and when it is drawn if not always."""

    path: str
    values: str
    condition: str = ""


@dataclass(frozen=True)
class SearchQuestion:
    """A whole space file in words; ``settings`` are those that every trial has."""

    parameters: tuple[AskedParameter, ...]
    objectives: tuple[str, ...]
    constraints: tuple[str, ...]
    sampler: str
    scheduler: str
    budget: str
    first: str
    settings: str


def question(text: str) -> SearchQuestion | None:
    """Return the space file of a sweep in words, or None if it is no valid space (any longer)."""
    try:
        space = SearchSpace.model_validate(parse_yaml(text))
    except (ValidationError, DocumentError):
        return None
    toward = {"max": "highest", "min": "lowest"}
    preset = f"preset {space.preset}" if space.preset else ""
    base = ", ".join(f"{path} {said_as(value)}" for path, value in _flat(space.base))
    return SearchQuestion(
        parameters=tuple(_asked(path, each) for path, each in space.parameters.items()),
        objectives=tuple(f"{toward[each.mode]} {each.metric}" for each in space.objectives),
        constraints=tuple(each.said() for each in space.constraints),
        sampler=_component(space.sampler),
        scheduler=_component(space.scheduler),
        budget=_budget(space),
        first=", ".join(each if isinstance(each, str) else said_as(each) for each in space.enqueue),
        settings="; ".join(filter(None, (preset, base))),
    )


def _flat(tree: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every setting of a nested tree under its dotted path."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _asked(path: str, parameter: Parameter) -> AskedParameter:
    condition = " and ".join(
        f"{other} is {words(wanted)}" for other, wanted in parameter.when.items()
    )
    match parameter:
        case ChoiceParameter():
            return AskedParameter(path, words(parameter.values), condition)
        case FixedParameter():
            return AskedParameter(path, f"always {said_as(parameter.value)}", condition)
    span = f"{parameter.low:g} to {parameter.high:g}"
    if isinstance(parameter, IntParameter):
        span = f"whole numbers {span}"
    if isinstance(parameter, FloatsParameter):
        span = f"{parameter.length} numbers, each {span}"
    return AskedParameter(path, f"{span}, logarithmic" if parameter.log else span, condition)


def _component(component: BaseModel) -> str:
    """Describe a sampler or scheduler by its type and its settings."""
    settings = component.model_dump()
    kind = settings.pop("type")
    said = ", ".join(
        f"{key.replace('_', ' ')} {said_as(value)}"
        for key, value in settings.items()
        if value is not None
    )
    return f"{kind} ({said})" if said else kind


def _budget(space: SearchSpace) -> str:
    at_once = space.budget.max_concurrent
    limit = "as many at once as there is room for" if at_once == "auto" else f"{at_once} at once"
    each = " on each fold" if space.folds else ""
    trials = f"{space.budget.trials} trials of at most {space.most_epochs()} epochs{each}, {limit}"
    budget, ends = space.budget, []
    if budget.hours is not None:
        ends.append(f"for {budget.hours:g} hours at most")
    if budget.gpu_hours is not None:
        ends.append(f"for {budget.gpu_hours:g} GPU hours at most")
    if budget.no_gain_for is not None:
        ends.append(f"until {budget.no_gain_for.trials} bring no gain")
    return ", ".join([trials, *ends])
