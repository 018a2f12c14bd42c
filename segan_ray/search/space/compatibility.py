"""Which samplers, schedulers and first points do not go with a space, and what does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from segan_ray.config import presets
from segan_ray.errors import nearest
from segan_ray.search.space.checks import Problem
from segan_ray.search.space.grid import grid_size
from segan_ray.search.space.parameters import (
    ChoiceParameter,
    FixedParameter,
    FloatParameter,
    FloatsParameter,
)
from segan_ray.search.space.sampler_settings import (
    CmaesSampler,
    GpSampler,
    GridSampler,
    RandomSampler,
    TpeSampler,
)
from segan_ray.search.space.scheduler_settings import (
    CHANGEABLE,
    FEWEST_IN_POPULATION,
    AshaScheduler,
    HyperbandScheduler,
    MedianScheduler,
    NoScheduler,
    PbtScheduler,
    WilcoxonScheduler,
)
from segan_ray.search.space.search_space import SearchSpace

LARGEST_GRID: Final = 10_000


def refusals(space: SearchSpace) -> Iterator[Problem]:
    """Yield why a space cannot be searched as it asks; all its points must be possible."""
    if all(isinstance(each, FixedParameter) for each in space.parameters.values()):
        yield Problem(
            ("parameters",), "nothing is drawn: every parameter is fixed. Draw one, or use train."
        )
    yield from _sampler(space)
    yield from _scheduler(space)
    yield from _folds(space)
    yield from _priors(space)
    if space.budget.no_gain_for is not None:
        yield from _no_gain(space)
    yield from _enqueue(space)


def _sampler(space: SearchSpace) -> Iterator[Problem]:
    kind, where = space.sampler.type, ("sampler", "type")
    conditional = space.conditional()
    if conditional and not isinstance(space.sampler, (TpeSampler, RandomSampler)):
        path, reason = next(iter(conditional.items()))
        yield Problem(
            where,
            f"sampler {kind} needs every trial to draw the same parameters, but of {path}, "
            f"{reason}. Use tpe or random.",
        )
    elif isinstance(space.sampler, CmaesSampler):
        yield from _cmaes(space)
    elif isinstance(space.sampler, GridSampler):
        yield from _grid(space)


def _cmaes(space: SearchSpace) -> Iterator[Problem]:
    for path, parameter in space.parameters.items():
        if isinstance(parameter, ChoiceParameter):
            yield Problem(
                ("parameters", path),
                f"sampler cmaes draws numbers alone, and {path} is a choice. Use tpe or gp, or "
                "fix it.",
            )
    if space.constraints:
        yield Problem(
            ("constraints",),
            "sampler cmaes learns nothing of constraints and would be drawn to what breaks them. "
            "Use tpe, gp or nsga2.",
        )
    if len(space.objectives) > 1:
        yield Problem(
            ("sampler", "type"),
            f"sampler cmaes follows one objective, found {len(space.objectives)}. Use nsga2 or "
            "tpe.",
        )


def _grid(space: SearchSpace) -> Iterator[Problem]:
    endless = [path for path, each in space.parameters.items() if each.every() is None]
    for path in endless:
        continuous = isinstance(space.parameters[path], (FloatParameter, FloatsParameter))
        remedy = "Give it points, as in points: 5" if continuous else "List some as a choice"
        yield Problem(
            ("parameters", path),
            f"sampler grid cannot try every value of {path}. {remedy}, or use tpe.",
        )
    if not endless and (size := grid_size(space)) > LARGEST_GRID:
        yield Problem(
            ("sampler", "type"),
            f"the grid has {size} combinations, more than {LARGEST_GRID}. Give fewer points, or "
            "use random or tpe.",
        )


def _scheduler(space: SearchSpace) -> Iterator[Problem]:
    scheduler = space.scheduler
    if len(space.objectives) > 1 and not isinstance(scheduler, (AshaScheduler, NoScheduler)):
        yield Problem(
            ("scheduler", "type"),
            f"scheduler {scheduler.type} stops or changes trials by one objective, found "
            f"{len(space.objectives)}. Use asha or none, with sampler nsga2 or tpe.",
        )
    if isinstance(scheduler, AshaScheduler) and scheduler.max_epochs and len(space.objectives) > 1:
        yield Problem(
            ("scheduler", "max_epochs"),
            f"scheduler.max_epochs grows by one objective, found {len(space.objectives)}. Leave "
            "it out.",
        )
    if isinstance(scheduler, (AshaScheduler, HyperbandScheduler, MedianScheduler)):
        fewest = space.fewest_epochs()
        if scheduler.grace_period > fewest:
            yield Problem(
                ("scheduler", "grace_period"),
                f"scheduler.grace_period {scheduler.grace_period} is more than the {fewest} "
                "epochs a trial runs: nothing could ever be stopped.",
            )
    if isinstance(scheduler, PbtScheduler):
        yield from _pbt(space, scheduler)


def _folds(space: SearchSpace) -> Iterator[Problem]:
    kind = space.scheduler.type
    if space.folds is None:
        if isinstance(space.scheduler, WilcoxonScheduler):
            yield Problem(
                ("scheduler", "type"),
                "scheduler wilcoxon compares trials fold by fold. Write folds: all beside it, or "
                "use asha.",
            )
        return
    if not isinstance(space.scheduler, (WilcoxonScheduler, NoScheduler)):
        yield Problem(
            ("scheduler", "type"),
            f"scheduler {kind} compares epochs, and with folds a trial has a score once all are "
            "done. Use wilcoxon or none.",
        )
    if len(space.objectives) > 1 or not space.objective.metric.startswith("val/"):
        yield Problem(
            ("objective",),
            "with folds the objective is the mean of one validation score over them, such as "
            "val/dice_mean.",
        )
    if "data.fold" in space.parameters or space.settings()["data.fold"] is not None:
        where = ("parameters", "data.fold") if "data.fold" in space.parameters else ("base",)
        yield Problem(where, "with folds a trial trains on each, so leave data.fold out.")


def _pbt(space: SearchSpace, scheduler: PbtScheduler) -> Iterator[Problem]:
    where = ("scheduler", "type")
    for path, parameter in space.parameters.items():
        if path not in CHANGEABLE and not isinstance(parameter, FixedParameter):
            yield Problem(
                ("parameters", path),
                f"scheduler pbt changes parameters during a run, and {path} must stay as it is. "
                f"Fix it, or use asha. What may change: {', '.join(sorted(CHANGEABLE))}.",
            )
    for path, reason in space.conditional().items():
        yield Problem(
            ("parameters", path),
            f"scheduler pbt carries parameters from one trial to another, but of {path}, "
            f"{reason}. Use asha.",
        )
    if isinstance(space.sampler, GridSampler):
        yield Problem(
            where,
            "scheduler pbt changes what sampler grid would try. Use scheduler none or asha, or "
            "sampler random.",
        )
    if space.budget.trials < FEWEST_IN_POPULATION:
        yield Problem(
            ("budget", "trials"),
            f"scheduler pbt needs at least {FEWEST_IN_POPULATION} trials, found "
            f"{space.budget.trials}. Raise budget.trials, or use asha.",
        )
    if scheduler.interval >= space.fewest_epochs():
        yield Problem(
            ("scheduler", "interval"),
            f"scheduler.interval {scheduler.interval} is not below the {space.fewest_epochs()} "
            "epochs a trial runs: nothing would ever be taken over.",
        )


def _priors(space: SearchSpace) -> Iterator[Problem]:
    if isinstance(space.sampler, (TpeSampler, GpSampler, RandomSampler)):
        return
    for path, parameter in space.parameters.items():
        if not isinstance(parameter, FixedParameter) and parameter.prior is not None:
            yield Problem(
                ("parameters", path, "prior"),
                f"sampler {space.sampler.type} goes by points that it drew itself, and a prior "
                f"draws others. Use tpe, gp or random, or leave the prior of {path} out.",
            )


def _no_gain(space: SearchSpace) -> Iterator[Problem]:
    where = ("budget", "no_gain_for")
    if len(space.objectives) > 1:
        yield Problem(
            where,
            f"budget.no_gain_for follows one objective, found {len(space.objectives)}. Leave it "
            "out.",
        )
    if isinstance(space.scheduler, PbtScheduler):
        yield Problem(
            where,
            "scheduler pbt draws its trials at the beginning, so budget.no_gain_for could end "
            "nothing. Leave it out.",
        )


def _enqueue(space: SearchSpace) -> Iterator[Problem]:
    drawn = {
        path for path, each in space.parameters.items() if not isinstance(each, FixedParameter)
    }
    for index, entry in enumerate(space.enqueue):
        if isinstance(entry, Mapping):
            for path in entry:
                if path not in drawn:
                    yield Problem(
                        ("enqueue", index, path),
                        f"enqueue gives {path}, which this space does not draw."
                        f"{nearest(path, drawn)}",
                    )
        elif entry not in presets():
            yield Problem(
                ("enqueue", index),
                f"enqueue: no preset '{entry}'.{nearest(entry, presets())} There are: "
                f"{', '.join(presets())}.",
            )
