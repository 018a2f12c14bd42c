"""Population-based training as functions: which trial exploits which, and with which changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from segan_ray.search.space.parameters import (
    ChoiceParameter,
    FixedParameter,
    FloatParameter,
    FloatsParameter,
    IntParameter,
    Parameter,
    same,
)
from segan_ray.search.space.scheduler_settings import FEWEST_IN_POPULATION
from segan_ray.training.epoch_record import Mode

T = TypeVar("T")

FACTORS: Final = (0.8, 1.25)


class Rng(Protocol):
    """A source of numbers in [0, 1): ``random.Random`` or a numpy ``Generator``."""

    def random(self) -> float:
        """Return the next number."""
        ...


def scores_by(
    values: Mapping[int, Mapping[int, tuple[float, ...]]], epoch: int
) -> dict[int, float]:
    """Return the score of each trial at the last epoch that it reached by ``epoch``.

    ``values`` are the objectives of each trial by epoch, the score first.
    """
    reached = {
        number: max(epochs)
        for number, of_trial in values.items()
        if (epochs := [each for each in of_trial if each <= epoch])
    }
    return {number: values[number][last][0] for number, last in reached.items()}


def source_trial(
    scores_at_epoch: Mapping[int, float],
    own: int,
    mode: Mode,
    quantile: float,
    rng: Rng,
) -> int | None:
    """Return the trial that ``own`` exploits, or None if it goes on as it is.

    ``scores_at_epoch`` holds the scores of the trials that have reached the epoch; fewer than
    four give no source trial. Only a trial among the lowest ``quantile`` exploits another, and
    only a better one. A score that is not a number is the worst there is.
    """
    if len(scores_at_epoch) < FEWEST_IN_POPULATION or own not in scores_at_epoch:
        return None
    sign = 1.0 if mode == "max" else -1.0
    worth = {
        trial: -math.inf if math.isnan(score) else sign * score
        for trial, score in scores_at_epoch.items()
    }
    ranked = sorted(worth, key=lambda trial: (-worth[trial], trial))
    count = max(1, math.floor(len(ranked) * quantile))
    if own not in ranked[-count:]:
        return None
    better = [trial for trial in ranked[:count] if worth[trial] > worth[own]]
    return _one_of(better, rng) if better else None


def perturb(
    parameters: Mapping[str, Parameter], params: Mapping[str, Any], resample: float, rng: Rng
) -> dict[str, Any]:
    """Return ``params``, ``{dotted path: value}``, with each value changed a little.

    Numbers are multiplied by 0.8 or 1.25; whole numbers and choices move to a neighbour; with
    probability ``resample`` a value is drawn anew instead. All stay within their ranges.
    """
    return {
        path: _changed(parameters[path], value, resample, rng) for path, value in params.items()
    }


def _changed(parameter: Any, value: Any, resample: float, rng: Rng) -> Any:
    match parameter:
        case FixedParameter():
            return value
        case FloatsParameter():
            return [_number(parameter, item, resample, rng) for item in value]
        case FloatParameter():
            return _number(parameter, value, resample, rng)
        case IntParameter():
            return _whole(parameter, value, resample, rng)
        case ChoiceParameter():
            return _choice(parameter.values, value, resample, rng)
    raise TypeError(f"{type(parameter).__name__} is no parameter")


def _number(
    parameter: FloatParameter | FloatsParameter, value: float, resample: float, rng: Rng
) -> float:
    low, high = parameter.low, parameter.high
    if rng.random() >= resample:
        changed = value * _one_of(FACTORS, rng)
    elif parameter.log:
        changed = math.exp(math.log(low) + rng.random() * (math.log(high) - math.log(low)))
    else:
        changed = low + rng.random() * (high - low)
    return min(max(changed, low), high)


def _whole(parameter: IntParameter, value: int, resample: float, rng: Rng) -> int:
    low, high = parameter.low, parameter.high
    if rng.random() < resample:
        return low + math.floor(rng.random() * (high - low + 1))
    near = [number for number in (value - 1, value + 1) if low <= number <= high]
    return _one_of(near, rng) if near else value


def _choice(values: Sequence[Any], value: Any, resample: float, rng: Rng) -> Any:
    if rng.random() < resample:
        return _one_of(values, rng)
    own = next(index for index, each in enumerate(values) if same(each, value))
    near = [values[i] for i in (own - 1, own + 1) if 0 <= i < len(values)]
    return _one_of(near, rng) if near else value


def _one_of(values: Sequence[T], rng: Rng) -> T:
    return values[math.floor(rng.random() * len(values))]
