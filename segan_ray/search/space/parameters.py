"""The five types of parameter in a search space, each with its own range.

``known`` is, throughout, ``{dotted path: value}`` of every setting drawn or fixed so far, which
conditions and lengths look up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import numpy as np
from optuna import Trial
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, model_validator

LENGTH: Final = re.compile(r"(?P<path>[a-z_0-9]+(\.[a-z_0-9]+)*)\s*(\+\s*(?P<plus>\d+))?")
NUMBER: Final = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
FEW: Final = 1000
"""The most values of one parameter that are looked at one by one."""
LONGEST: Final = 1000
"""The most numbers drawn for one list: more than a setting takes, too few to fill memory."""


def _scalar(value: Any) -> Any:
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise ValueError(f"found {value!r}, expected a number, a word, true, false or null")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"found {value}, which is no number to draw")
    # YAML 1.1 reads 1e-3, which has no dot, as a word.
    return float(value) if isinstance(value, str) and NUMBER.fullmatch(value) else value


def plain(value: Any) -> Any:
    """Return a number, word, truth value or null as it is, or a list of them.

    Raises:
        ValueError: for anything else.
    """
    return [_scalar(item) for item in value] if isinstance(value, (list, tuple)) else _scalar(value)


def _length(value: Any) -> int | str:
    count = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not count and not (isinstance(value, str) and LENGTH.fullmatch(value.strip())):
        raise ValueError(
            f"length '{value}' is not a count, a setting, or a setting + a count, "
            "as in critic.depth + 1"
        )
    return value.strip() if isinstance(value, str) else int(value)


def _wanted(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else (value,)


Scalar = Annotated[bool | int | float | str | None, PlainValidator(_scalar)]
Wanted = Annotated[tuple[Scalar, ...], BeforeValidator(_wanted), Field(min_length=1)]


def same(one: Any, other: Any) -> bool:
    """Whether two settings are equal; unlike in Python, true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def words(values: Sequence[Any]) -> str:
    """Say values as a file would write them: ``1, 2 or null``."""
    said = [said_as(value) for value in values]
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} or {said[-1]}"


def said_as(value: Any) -> str:
    """Say one value as a file would write it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(said_as, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {said_as(below)}' for key, below in value.items())}}}"
    return str(value)


class Frozen(BaseModel):
    """A frozen part of a space file that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Prior(Frozen):
    """What is believed of a parameter: its best ``value``, and how far around it others may be.

    ``spread`` is a standard deviation: in the parameter's own units, or where it is drawn by its
    logarithm, a factor above 1. Of a choice, it is the share of draws that may be any of them.
    """

    value: Scalar
    spread: Annotated[float, Field(gt=0, allow_inf_nan=False)]

    def names(self, value: Any) -> bool:
        """Whether ``value`` is the one that is believed in."""
        return same(self.value, value)


class _Parameter(Frozen):
    """``when`` names settings and the values at which this parameter is drawn at all."""

    when: dict[str, Wanted] = Field(default_factory=dict)

    def active(self, known: Mapping[str, Any]) -> bool:
        """Whether the parameter is drawn, given the settings it asks for."""
        return all(
            any(same(known[path], value) for value in wanted) for path, wanted in self.when.items()
        )

    def needs(self) -> set[str]:
        """Return the paths that must be known before this parameter can be drawn."""
        return set(self.when)

    def names(self, path: str, known: Mapping[str, Any]) -> list[str]:
        """Return the names under which Optuna draws this parameter."""
        return [path]

    def misfit(self, value: Any) -> str | None:
        """Return the range that ``value`` lies outside of, in words, or None if it can be drawn."""
        raise NotImplementedError

    def _check_prior(self, prior: Prior | None) -> None:
        if prior is not None and (misfit := self.misfit(prior.value)):
            raise ValueError(f"prior.value {said_as(prior.value)} is not in {misfit}.")

    def ends(self) -> tuple[Any, ...]:
        """Return the values at which the range is checked; a list's are its items'."""
        raise NotImplementedError

    def every(self) -> tuple[Any, ...] | None:
        """Return every value there is, or None where they are a continuum."""
        raise NotImplementedError


class _Range(_Parameter):
    low: float
    high: float
    log: bool = False
    prior: Prior | None = None

    @model_validator(mode="after")
    def _possible(self) -> _Range:
        if not (math.isfinite(self.low) and math.isfinite(self.high)) or self.low > self.high:
            raise ValueError(f"low {self.low:g} to high {self.high:g} is no range.")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low above 0, found {self.low:g}.")
        self._check_prior(self.prior)
        if self.prior is not None and self.log and self.prior.spread <= 1:
            raise ValueError(
                f"prior.spread {self.prior.spread:g} is a factor where log is true. Give more "
                "than 1, such as 3."
            )
        return self

    def ends(self) -> tuple[Any, ...]:
        return tuple(dict.fromkeys((self.low, self.high)))

    def every(self) -> tuple[Any, ...] | None:
        return (self.low,) if self.low == self.high else None

    def misfit(self, value: Any) -> str | None:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        inside = number and self.low <= value <= self.high
        return None if inside else f"{self.low:g} to {self.high:g}"


class _Spaced(_Range):
    """A continuum, of which a grid tries ``points`` values, ends included."""

    points: Annotated[int, Field(ge=2, le=FEW)] | None = None

    def every(self) -> tuple[Any, ...] | None:
        if self.points is None or self.low == self.high:
            return super().every()
        space = np.geomspace if self.log else np.linspace
        between = [float(value) for value in space(self.low, self.high, self.points)[1:-1]]
        return (self.low, *between, self.high)


class FloatParameter(_Spaced):
    """A number between ``low`` and ``high``."""

    type: Literal["float"]

    def suggest(self, trial: Trial, path: str, known: Mapping[str, Any]) -> float:
        """Draw it."""
        return trial.suggest_float(path, self.low, self.high, log=self.log)


class IntParameter(_Range):
    """A whole number from ``low`` to ``high``, both included."""

    type: Literal["int"]
    low: int
    high: int

    def suggest(self, trial: Trial, path: str, known: Mapping[str, Any]) -> int:
        """Draw it."""
        return trial.suggest_int(path, self.low, self.high, log=self.log)

    def every(self) -> tuple[Any, ...] | None:
        few = self.high - self.low < FEW
        return tuple(range(self.low, self.high + 1)) if few else None

    def misfit(self, value: Any) -> str | None:
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        return super().misfit(value) if whole else f"whole numbers {self.low} to {self.high}"


class ChoiceParameter(_Parameter):
    """One of ``values``."""

    type: Literal["choice"]
    values: Annotated[tuple[Scalar, ...], Field(min_length=1)]
    prior: Prior | None = None

    @model_validator(mode="after")
    def _believed(self) -> ChoiceParameter:
        self._check_prior(self.prior)
        if self.prior is not None and self.prior.spread > 1:
            raise ValueError(
                f"prior.spread {self.prior.spread:g} is the share of draws that may be any value. "
                "Give at most 1."
            )
        return self

    @model_validator(mode="after")
    def _distinct(self) -> ChoiceParameter:
        for index, value in enumerate(self.values):
            # Optuna tells choices apart by equality alone.
            if any(value == earlier for earlier in self.values[:index]):
                raise ValueError(f"values holds {said_as(value)} twice.")
        return self

    def suggest(self, trial: Trial, path: str, known: Mapping[str, Any]) -> Any:
        """Draw it."""
        return trial.suggest_categorical(path, list(self.values))

    def ends(self) -> tuple[Any, ...]:
        return self.values

    def every(self) -> tuple[Any, ...] | None:
        return self.values

    def misfit(self, value: Any) -> str | None:
        offered = any(same(value, choice) for choice in self.values)
        return None if offered else words(self.values)


class FixedParameter(_Parameter):
    """Always ``value``: with ``when``, a setting that goes with another's drawn value."""

    type: Literal["fixed"]
    value: Annotated[Any, PlainValidator(plain)]

    def suggest(self, trial: Trial, path: str, known: Mapping[str, Any]) -> Any:
        """Return the value; nothing is drawn."""
        return self.value

    def names(self, path: str, known: Mapping[str, Any]) -> list[str]:
        return []

    def ends(self) -> tuple[Any, ...]:
        return (self.value,)

    def every(self) -> tuple[Any, ...] | None:
        return (self.value,)

    def misfit(self, value: Any) -> str | None:
        return None if same(value, self.value) else said_as(self.value)


class FloatsParameter(_Spaced):
    """As many numbers as ``length`` says: a count, a path, or a path plus a count."""

    type: Literal["floats"]
    length: Annotated[int | str, PlainValidator(_length)]

    def suggest(self, trial: Trial, path: str, known: Mapping[str, Any]) -> list[float]:
        """Draw each, under the parameter's name and its index."""
        return [
            trial.suggest_float(name, self.low, self.high, log=self.log)
            for name in self.names(path, known)
        ]

    def names(self, path: str, known: Mapping[str, Any]) -> list[str]:
        return [f"{path}.{index}" for index in range(self.count(known))]

    def needs(self) -> set[str]:
        return set(self.when) | ({self.length_path} if self.length_path else set())

    @property
    def length_path(self) -> str | None:
        """The setting that the length depends on, or None where it is a count."""
        match = LENGTH.fullmatch(self.length) if isinstance(self.length, str) else None
        return match["path"] if match else None

    def count(self, known: Mapping[str, Any]) -> int:
        """Return how many numbers there are, given the settings drawn and fixed."""
        if isinstance(self.length, int):
            return min(self.length, LONGEST)
        match = LENGTH.fullmatch(self.length)
        assert match is not None, "a length is checked when it is read"
        return min(int(known[match["path"]]) + int(match["plus"] or 0), LONGEST)


Parameter = Annotated[
    FloatParameter | IntParameter | ChoiceParameter | FixedParameter | FloatsParameter,
    Field(discriminator="type"),
]
