"""Search spaces: which settings of the ``Experiment`` a sweep draws, and from where.

A space file is data, checked against the settings tree before anything starts. Its
parameters become Optuna distributions; one drawn point becomes one whole ``Experiment``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from optuna import Trial
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainValidator,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from segan_ray.config import Experiment, build, flatten, load_preset, merge, nest
from segan_ray.home import NAME, NAMES
from segan_ray.search.space.objectives import Constraint, Objective
from segan_ray.search.space.parameters import (
    ChoiceParameter,
    FixedParameter,
    FloatParameter,
    FloatsParameter,
    Frozen,
    IntParameter,
    Parameter,
    plain,
    same,
)
from segan_ray.search.space.sampler_settings import RandomSampler, Sampler, TpeSampler
from segan_ray.search.space.scheduler_settings import (
    AshaScheduler,
    NoScheduler,
    Scheduler,
    WilcoxonScheduler,
)
from segan_ray.sizes import MOST_FOLDS, MOST_HOURS, MOST_TRIALS

__all__ = [
    "AshaScheduler",
    "Budget",
    "ChoiceParameter",
    "FixedParameter",
    "FloatParameter",
    "FloatsParameter",
    "IntParameter",
    "NoScheduler",
    "Objective",
    "RandomSampler",
    "SearchSpace",
    "TpeSampler",
    "in_order_of_need",
]


def _concurrent(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not whole and value != "auto":
        raise ValueError(f"found {value!r}, expected a count of at least 1, or auto")
    if whole and value > MOST_TRIALS:
        raise ValueError(f"found {value}, expected at most {MOST_TRIALS}, or auto")
    return value


class NoGain(Frozen):
    """How many trials in a row may be drawn without a better score than before."""

    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)]


Hours = Annotated[float, Field(gt=0, le=MOST_HOURS, allow_inf_nan=False)]


class Budget(Frozen):
    """How many trials, and how many at once (``auto``: as many as the cluster holds).

    No more are drawn either once those of ``no_gain_for`` brought no gain. After ``hours`` of a
    running sweep, or once its trials held GPUs for ``gpu_hours``, nothing trains any more. The
    checkpoints of the best ``keep_checkpoints`` trials are kept.
    """

    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 20
    hours: Hours | None = None
    gpu_hours: Hours | None = None
    no_gain_for: NoGain | None = None
    max_concurrent: Annotated[int | Literal["auto"], PlainValidator(_concurrent)] = "auto"
    keep_checkpoints: Annotated[int, Field(ge=1, le=MOST_TRIALS)] = 10


def _folds(value: Any) -> Any:
    if value is None or value == "all" or (isinstance(value, int) and 2 <= value <= MOST_FOLDS):
        return value
    raise ValueError(f"found {value!r}, expected all, or a number of folds from 2 on")


def _one_or_more(objective: Any) -> Any:
    return [objective] if isinstance(objective, (Mapping, Objective)) else objective


def _entry(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"found {value!r}, expected a preset's name or settings as path: value")
    return {str(path): plain(setting) for path, setting in value.items()}


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(f"'{value}' cannot name a sweep. {NAMES}")
    return value


Name = Annotated[str, AfterValidator(_name)]
AnyJudge = TypeVar("AnyJudge", Objective, Constraint)
Entry = Annotated[str | dict[str, Any], PlainValidator(_entry)]


class SearchSpace(Frozen):
    """A whole space file. ``base`` is put over ``preset``, and a drawn point over both.

    With ``folds`` a trial trains on each fold of the store, or on the first so many, one after
    another, and its objective is the mean over the folds of the best epoch of each. A trial that
    breaks one of the ``constraints`` cannot win, whatever its score: those on
    ``model/parameters`` and ``memory/peak_gb`` end it, the others are judged at its best epoch.
    ``enqueue`` holds the points tried first, ``warm_start`` names an earlier sweep to learn
    from. ``model_dump_json`` and ``model_validate_json`` keep every part of it.
    """

    name: Name
    objectives: Annotated[
        tuple[Objective, ...],
        BeforeValidator(_one_or_more),
        Field(min_length=1, alias="objective"),
    ] = (Objective(),)
    constraints: tuple[Constraint, ...] = ()
    preset: str | None = None
    base: dict[str, Any] = Field(default_factory=dict)
    parameters: Annotated[dict[str, Parameter], Field(min_length=1)]
    folds: Annotated[Literal["all"] | int | None, PlainValidator(_folds)] = None
    sampler: Sampler = TpeSampler()
    scheduler: Scheduler = AshaScheduler()
    budget: Budget = Budget()
    enqueue: tuple[Entry, ...] = ("paper", "authors-brats")
    warm_start: Name | None = None

    @classmethod
    def of_experiment(cls, name: str, experiment: Experiment) -> SearchSpace:
        """Return a space of one point, the whole of ``experiment``, for one trial."""
        return cls.model_validate(
            {
                "name": name,
                "base": experiment.model_dump(mode="json"),
                "parameters": {"seed": {"type": "fixed", "value": experiment.seed}},
                "sampler": {"type": "random"},
                "scheduler": {"type": "none"},
                "budget": {"trials": 1, "keep_checkpoints": 1},
                "enqueue": [],
            }
        )

    @model_validator(mode="before")
    @classmethod
    def _scheduler_of_folds(cls, tree: Any) -> Any:
        if isinstance(tree, Mapping) and tree.get("folds") is not None:
            return {"scheduler": WilcoxonScheduler(), **tree}
        return tree

    @field_validator("objectives", "constraints")
    @classmethod
    def _distinct(cls, judged_by: tuple[AnyJudge, ...]) -> tuple[AnyJudge, ...]:
        metrics = [each.metric for each in judged_by]
        for metric in metrics:
            if metrics.count(metric) > 1:
                raise ValueError(f"the metric '{metric}' is named twice; each counts once")
        return judged_by

    @model_serializer(mode="wrap")
    def _as_in_a_file(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        tree: dict[str, Any] = handler(self)
        key = {"objectives": "objective"}
        tree = {key.get(name, name): value for name, value in tree.items()}
        if len(tree.get("objective", ())) == 1:
            (tree["objective"],) = tree["objective"]
        return tree

    @property
    def objective(self) -> Objective:
        """The first objective, the only one of most spaces."""
        return self.objectives[0]

    def suggest(self, trial: Trial) -> dict[str, Any]:
        """Draw a point: ``{dotted path: value}`` for each parameter, in order of need.

        A parameter whose ``when`` does not hold is left out: the base's value stands.
        """
        known = self.settings()
        drawn: dict[str, Any] = {}
        for path in self.order():
            parameter = self.parameters[path]
            if parameter.active(known):
                known[path] = drawn[path] = parameter.suggest(trial, path, known)
        return drawn

    def order(self) -> list[str]:
        """Return the parameters' paths so that each comes after those it needs."""
        return in_order_of_need(self.parameters)[0]

    def settings(self) -> dict[str, Any]:
        """Return ``{dotted path: value}`` of the settings under every drawn point."""
        return flatten(self.base_experiment())

    def experiment(self, point: Mapping[str, Any]) -> Experiment:
        """Return the whole ``Experiment`` of a drawn point.

        Raises:
            ConfigError: if the point makes none.
        """
        return build(merge(self.fixed(), nest(point)), f"space {self.name}")

    def base_experiment(self) -> Experiment:
        """Return the settings that stay the same in every trial.

        Raises:
            ConfigError: if they make no ``Experiment``.
        """
        return build(self.fixed(), f"space {self.name}, base")

    def fixed(self) -> dict[str, Any]:
        """Return ``base`` over ``preset``, as a nested tree."""
        return merge(load_preset(self.preset) if self.preset else {}, self.base)

    def most_epochs(self) -> int:
        """Return how many epochs the longest trial may run."""
        return int(max(self._ends("training.epochs")))

    def fewest_epochs(self) -> int:
        """Return how many epochs the shortest trial may run."""
        return int(min(self._ends("training.epochs")))

    @property
    def runs(self) -> int:
        """How many runs of ``training.epochs`` epochs a trial is: one, or one a fold."""
        assert self.folds != "all", "how many folds there are is the store's to say"
        return self.folds or 1

    def on_folds(self, count: int) -> SearchSpace:
        """Return the space with all ``folds`` of a store that has ``count``."""
        return self.model_copy(update={"folds": count}) if self.folds == "all" else self

    def single_folds(self) -> tuple[int | None, ...]:
        """Return every fold of the store that a trial may ask for; None is its single split.

        Of a drawn range, both ends are returned.
        """
        if self.folds is not None:
            return tuple(range(self.runs))
        return tuple(dict.fromkeys(self._ends("data.fold")))

    def possible(self, path: str) -> tuple[Any, ...] | None:
        """Return every value a setting may have in a trial, or None where there are too many."""
        parameter = self.parameters.get(path)
        if parameter is None:
            return (self.settings()[path],)
        every = parameter.every()
        if isinstance(parameter, (FloatParameter, FloatsParameter)) and len(every or ()) > 1:
            return None
        return (*every, self.settings()[path]) if every and parameter.when else every

    def conditional(self) -> dict[str, str]:
        """Return ``{path: why}`` of parameters that some trials do not draw, or not as often."""
        return {
            path: reason
            for path, parameter in self.parameters.items()
            if (reason := self._condition(parameter))
        }

    def _condition(self, parameter: Any) -> str | None:
        for other, wanted in parameter.when.items():
            values = self.possible(other)
            if values is None or not all(any(same(v, w) for w in wanted) for v in values):
                return f"it is drawn only at some values of {other}"
        other = parameter.length_path if isinstance(parameter, FloatsParameter) else None
        if other and len(set(self.possible(other) or (0, 1))) > 1:
            return f"its length depends on {other}, which is drawn"
        return None

    def _ends(self, path: str) -> tuple[Any, ...]:
        parameter = self.parameters.get(path)
        below = (self.settings()[path],) if parameter is None or parameter.when else ()
        return (*(parameter.ends() if parameter else ()), *below)


def in_order_of_need(parameters: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the paths, each after the paths it needs, and the paths that form a cycle."""
    waiting = dict.fromkeys(parameters)
    ordered: list[str] = []
    while waiting:
        ready = next((p for p in waiting if not parameters[p].needs() & waiting.keys()), None)
        if ready is None:
            break
        del waiting[ready]
        ordered.append(ready)
    return ordered, list(waiting)
