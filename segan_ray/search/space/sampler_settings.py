"""Samplers: how the next point is chosen, as a space file says it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from segan_ray.search.space.parameters import Frozen
from segan_ray.sizes import MOST_TRIALS

Seed = Annotated[int, Field(ge=0, lt=2**32)] | None
Count = Annotated[int, Field(ge=1, le=MOST_TRIALS)]


class TpeSampler(Frozen):
    """Optuna's TPE; the first ``startup_trials`` are drawn at random.

    TPE learns from stopped trials too, and suits spaces with conditions.
    """

    type: Literal["tpe"] = "tpe"
    multivariate: bool = True
    group: bool = True
    seed: Seed = None
    startup_trials: Count = 10


class RandomSampler(Frozen):
    """Independent draws."""

    type: Literal["random"]
    seed: Seed = None


class CmaesSampler(Frozen):
    """CMA-ES, for numbers alone; ``population`` trials a generation (null: as many as fit)."""

    type: Literal["cmaes"]
    seed: Seed = None
    startup_trials: Count = 1
    population: Annotated[int, Field(ge=4, le=MOST_TRIALS)] | None = None


class GpSampler(Frozen):
    """A Gaussian process, for few parameters and costly trials; it learns from completed trials."""

    type: Literal["gp"]
    seed: Seed = None
    startup_trials: Count = 10


class GridSampler(Frozen):
    """Every combination once, in an order that ``seed`` shuffles."""

    type: Literal["grid"]
    seed: Seed = None


class NsgaSampler(Frozen):
    """NSGA-II, for several objectives; the first ``population`` trials are drawn at random."""

    type: Literal["nsga2"]
    seed: Seed = None
    population: Annotated[int, Field(ge=2, le=MOST_TRIALS)] = 20
    crossover: Annotated[float, Field(ge=0, le=1)] = 0.9
    mutation: Annotated[float, Field(ge=0, le=1)] | None = None


Sampler = Annotated[
    TpeSampler | RandomSampler | CmaesSampler | GpSampler | GridSampler | NsgaSampler,
    Field(discriminator="type"),
]
