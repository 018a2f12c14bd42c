"""Search spaces: which settings of the ``Experiment`` a sweep draws, and from where.

A space file is data, checked against the settings tree before anything starts. Its
parameters become Optuna distributions; one drawn point becomes one whole ``Experiment``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from optuna import Trial
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from segan_ray.config import (
    Experiment,
    build,
    flatten,
    load_preset,
    load_yaml,
    merge,
    nest,
    paths,
)
from segan_ray.errors import ConfigError, nearest
from segan_ray.training.scores import VALIDATION

METRICS: Final = (
    "train/loss_critic",
    "train/loss_segmentor",
    *VALIDATION,
    "time/epoch_s",
    "time/slices_per_s",
)
"""Every metric a trial reports, each epoch."""

LENGTH: Final = re.compile(r"(?P<path>[a-z_]+(\.[a-z_]+)*)\s*(\+\s*(?P<plus>\d+))?")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Objective(_Frozen):
    """What a trial is judged by."""

    metric: str = "val/dice_mean"
    mode: Literal["max", "min"] = "max"

    @model_validator(mode="after")
    def _reported(self) -> Objective:
        if self.metric not in METRICS:
            raise ValueError(
                f"no trial reports the metric '{self.metric}'.{nearest(self.metric, METRICS)}"
            )
        return self


class _Range(_Frozen):
    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _possible(self) -> _Range:
        if not (math.isfinite(self.low) and math.isfinite(self.high)) or self.low > self.high:
            raise ValueError(f"low {self.low:g} to high {self.high:g} is no range.")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low above 0, found {self.low:g}.")
        return self


class FloatParameter(_Range):
    """A number between ``low`` and ``high``."""

    type: Literal["float"]

    def suggest(self, trial: Trial, path: str, drawn: Mapping[str, Any]) -> float:
        return trial.suggest_float(path, self.low, self.high, log=self.log)


class IntParameter(_Range):
    """A whole number from ``low`` to ``high``, both included."""

    type: Literal["int"]
    low: int
    high: int

    def suggest(self, trial: Trial, path: str, drawn: Mapping[str, Any]) -> int:
        return trial.suggest_int(path, self.low, self.high, log=self.log)


class ChoiceParameter(_Frozen):
    """One of ``values``."""

    type: Literal["choice"]
    values: Annotated[tuple[bool | int | float | str | None, ...], Field(min_length=1)]

    def suggest(self, trial: Trial, path: str, drawn: Mapping[str, Any]) -> Any:
        return trial.suggest_categorical(path, list(self.values))


class FloatsParameter(_Range):
    """As many numbers as ``length`` says: a count, a path, or a path plus a count."""

    type: Literal["floats"]
    length: Annotated[int, Field(ge=1)] | str

    def suggest(self, trial: Trial, path: str, drawn: Mapping[str, Any]) -> list[float]:
        return [
            trial.suggest_float(f"{path}.{index}", self.low, self.high, log=self.log)
            for index in range(self.count(drawn))
        ]

    def count(self, drawn: Mapping[str, Any]) -> int:
        """Return how many numbers there are, given the settings drawn and fixed."""
        if isinstance(self.length, int):
            return self.length
        match = LENGTH.fullmatch(self.length)
        assert match is not None, "the space was checked when it was read"
        return int(drawn[match["path"]]) + int(match["plus"] or 0)


Parameter = Annotated[
    FloatParameter | IntParameter | ChoiceParameter | FloatsParameter, Field(discriminator="type")
]


class TpeSampler(_Frozen):
    """Optuna's TPE; the first ``startup_trials`` are drawn at random."""

    type: Literal["tpe"] = "tpe"
    multivariate: bool = True
    group: bool = True
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    startup_trials: Annotated[int, Field(ge=1)] = 10


class RandomSampler(_Frozen):
    """Independent draws."""

    type: Literal["random"]
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None


class AshaScheduler(_Frozen):
    """Stops a trial at a rung (in epochs) unless it is among the best 1/``reduction_factor``."""

    type: Literal["asha"] = "asha"
    grace_period: Annotated[int, Field(ge=1)] = 1
    reduction_factor: Annotated[float, Field(gt=1)] = 3


class NoScheduler(_Frozen):
    """Every trial runs to its last epoch."""

    type: Literal["none"]


class Budget(_Frozen):
    """How many trials, and how many at once (``auto``: as many as the cluster holds)."""

    trials: Annotated[int, Field(ge=1)] = 20
    max_concurrent: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"


class SearchSpace(_Frozen):
    """A whole space file. ``base`` is put over ``preset``, and a drawn point over both."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    objective: Objective = Objective()
    preset: str | None = None
    base: dict[str, Any] = {}
    parameters: Annotated[dict[str, Parameter], Field(min_length=1)]
    sampler: Annotated[TpeSampler | RandomSampler, Field(discriminator="type")] = TpeSampler()
    scheduler: Annotated[AshaScheduler | NoScheduler, Field(discriminator="type")] = AshaScheduler()
    budget: Budget = Budget()

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Draw a point: ``{dotted path: value}`` for each parameter, in order of need."""
        known = flatten(self.base_experiment())
        drawn: dict[str, Any] = {}
        for path, parameter in self._by_need():
            drawn[path] = parameter.suggest(trial, path, {**known, **drawn})
        return drawn

    def experiment(self, point: Mapping[str, Any]) -> Experiment:
        """Return the whole ``Experiment`` of a drawn point."""
        return build(merge(self._fixed(), nest(point)), f"space {self.name}")

    def most_epochs(self) -> int:
        """Return how many epochs the longest trial may run."""
        drawn = self.parameters.get("training.epochs")
        return max(_ends(drawn)) if drawn else self.base_experiment().training.epochs

    def fewest_epochs(self) -> int:
        """Return how many epochs the shortest trial may run."""
        drawn = self.parameters.get("training.epochs")
        return min(_ends(drawn)) if drawn else self.base_experiment().training.epochs

    def folds(self) -> tuple[int | None, ...]:
        """Return every fold of the store that a trial may ask for; None is its single split."""
        drawn = self.parameters.get("data.fold")
        if drawn is None:
            return (self.base_experiment().data.fold,)
        ends = _ends(drawn)
        return ends if isinstance(drawn, ChoiceParameter) else (min(ends), max(ends))

    def base_experiment(self) -> Experiment:
        """Return the settings that stay the same in every trial."""
        return build(self._fixed(), f"space {self.name}, base")

    def _fixed(self) -> dict[str, Any]:
        return merge(load_preset(self.preset) if self.preset else {}, self.base)

    def _by_need(self) -> Iterator[tuple[str, Any]]:
        """Yield parameters so that a length comes after the setting it depends on."""
        yield from sorted(
            self.parameters.items(), key=lambda item: isinstance(item[1], FloatsParameter)
        )


def load_space(file: Path) -> SearchSpace:
    """Read a space file and check everything that can be known before a sweep starts.

    Raises:
        ConfigError: with every problem found.
    """
    tree = load_yaml(file)
    problems = list(_unknown_paths(tree))
    try:
        space = SearchSpace.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(str(file), [*problems, *map(_explain, error.errors())]) from None
    if not problems:
        problems = list(_impossible_points(space))
    if problems:
        raise ConfigError(str(file), problems)
    return space


def _unknown_paths(tree: Mapping[str, Any]) -> Iterator[str]:
    known = set(paths())
    parameters = tree.get("parameters")
    for path in parameters if isinstance(parameters, dict) else ():
        if path not in known:
            yield f"unknown parameter '{path}'.{nearest(str(path), known)}"


def _impossible_points(space: SearchSpace) -> Iterator[str]:
    """Build the Experiment at both ends of every range, so that no trial can be refused."""
    try:
        space.base_experiment()
    except ConfigError as error:
        yield from (f"base: {problem}" for problem in error.problems)
        return
    lengths = [
        problem
        for path, parameter in space.parameters.items()
        if isinstance(parameter, FloatsParameter)
        for problem in _impossible_length(path, parameter.length)
    ]
    yield from lengths or _impossible_ends(space)
    scheduler = space.scheduler
    if not lengths and isinstance(scheduler, AshaScheduler):
        fewest = space.fewest_epochs()
        if scheduler.grace_period > fewest:
            yield (
                f"scheduler.grace_period {scheduler.grace_period} is more than the {fewest} epochs "
                "a trial runs: nothing could ever be stopped."
            )


def _impossible_length(path: str, length: int | str) -> Iterator[str]:
    known = set(paths())
    match = LENGTH.fullmatch(length) if isinstance(length, str) else None
    if match is not None and match["path"] not in known:
        yield f"{path}: length names '{match['path']}', no setting.{nearest(match['path'], known)}"
    elif match is not None and not isinstance(flatten(Experiment())[match["path"]], int):
        yield f"{path}: length names '{match['path']}', which is no whole number."
    elif isinstance(length, str) and match is None:
        yield f"{path}: length '{length}' is not a count, a setting, or a setting + a count."


def _impossible_ends(space: SearchSpace) -> Iterator[str]:
    """Move one parameter at a time to each of its ends, the others at their first."""
    first = {path: _ends(parameter)[0] for path, parameter in space.parameters.items()}
    seen: set[str] = set()
    for path, parameter in space.parameters.items():
        for end in _ends(parameter):
            point = {**first, path: end}
            known = {**flatten(space.base_experiment()), **point}
            for name, other in space.parameters.items():
                if isinstance(other, FloatsParameter):
                    point[name] = [point[name]] * other.count(known)
            try:
                space.experiment(point)
            except ConfigError as error:
                yield from (text for text in error.problems if text not in seen)
                seen.update(error.problems)


def _ends(parameter: Any) -> tuple[Any, ...]:
    if isinstance(parameter, ChoiceParameter):
        return parameter.values
    return tuple(dict.fromkeys((parameter.low, parameter.high)))


def _explain(problem: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        path = where.rpartition(".")
        return f"unknown key '{where}'.{nearest(path[2], _keys(path[0].rpartition('.')[2]))}"
    if problem["type"] == "missing":
        return f"'{where}' is missing."
    if problem["type"] == "union_tag_invalid":
        context = problem["ctx"]
        return f"{where}: type {context['tag']!r} is not one of {context['expected_tags']}."
    if problem["type"] == "union_tag_not_found":
        return f"{where}: 'type' is missing."
    return f"{where}: {message[:1].lower()}{message[1:].rstrip('.')}."


def _keys(group: str) -> tuple[str, ...]:
    groups: dict[str, type[BaseModel]] = {
        "objective": Objective,
        "budget": Budget,
        "tpe": TpeSampler,
        "random": RandomSampler,
        "asha": AshaScheduler,
        "none": NoScheduler,
        "float": FloatParameter,
        "int": IntParameter,
        "choice": ChoiceParameter,
        "floats": FloatsParameter,
    }
    return tuple(groups.get(group, SearchSpace).model_fields)
