"""The trials that a sweep's study holds, as read from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from segan_ray.search.points.points import (
    ENDED,
    EPOCHS,
    REPEAT_OF,
    REUSED,
    RUNG,
    SEED,
    AtRung,
    Ended,
)
from segan_ray.search.points.repeats import Repeat

Values = dict[int, tuple[float, ...]]
"""The objectives of a trial by epoch."""


@dataclass(frozen=True)
class StudyTrials:
    """A sweep's trials, by their numbers in the sweep.

    The first ``warm`` trials of the study are an earlier sweep's, from which its sampler learns;
    they do not count.
    """

    study: optuna.Study
    warm: int = 0

    def all(self) -> list[FrozenTrial]:
        """Return every trial that was asked for, in order."""
        return self.study.get_trials(deepcopy=False)[self.warm :]

    @property
    def repeats(self) -> int:
        """How many of the trials asked for repeat another."""
        return sum(REPEAT_OF in trial.user_attrs for trial in self.all())

    @property
    def reused(self) -> int:
        """How many draws were points tried before, whose results were told again."""
        return sum(REUSED in trial.user_attrs for trial in self.all())

    @property
    def searched(self) -> int:
        """How many trials were asked for that are neither repeats nor reused."""
        trained = {REPEAT_OF, REUSED}.isdisjoint
        return sum(trained(trial.user_attrs) for trial in self.all())

    @property
    def all_failed(self) -> bool:
        """Whether trials ended and all of them failed."""
        ended = self.ended().values()
        return bool(ended) and all(each.outcome == "failed" for each in ended)

    @property
    def first_reason(self) -> str:
        """Why the first failed trial failed."""
        reasons = (ended.reason for ended in self.ended().values() if ended.outcome == "failed")
        return next((reason for reason in reasons if reason), "No trial was started.")

    def ended(self) -> dict[int, Ended]:
        """Return how each trial that ended did."""
        return {
            number: Ended(**frozen.user_attrs[ENDED])
            for number, frozen in enumerate(self.all())
            if ENDED in frozen.user_attrs and frozen.state.is_finished()
        }

    def paused(self) -> dict[int, int]:
        """Return the rung, an epoch, at which each paused trial waits."""
        return {
            number: rung.epoch
            for number, frozen in enumerate(self.all())
            if (rung := rung_of(frozen)) is not None and rung.paused
        }

    def values(self) -> dict[int, Values]:
        """Return the objectives of each trial, epoch by epoch."""
        return {number: _values(frozen) for number, frozen in enumerate(self.all())}

    def planned_repeats(self) -> set[Repeat]:
        """Return the repeats that were asked for."""
        attributes = (trial.user_attrs for trial in self.all())
        return {Repeat(each[REPEAT_OF], each[SEED]) for each in attributes if REPEAT_OF in each}

    def seeds_of(self, numbers: Sequence[int]) -> set[int]:
        """Return the seeds of their own that searched trials of these numbers were given."""
        every = self.all()
        return {
            int(every[number].user_attrs[SEED])
            for number in numbers
            if SEED in every[number].user_attrs
        }

    def scores(self, values: Mapping[int, Values]) -> dict[int, list[float]]:
        """Return the scores of each searched trial that may win, epoch by epoch."""
        return {
            number: [each[0] for each in values[number].values() if not math.isnan(each[0])]
            for number, frozen in enumerate(self.all())
            if frozen.state in (TrialState.COMPLETE, TrialState.PRUNED)
            and {REPEAT_OF, REUSED}.isdisjoint(frozen.user_attrs)
            and frozen.user_attrs[ENDED]["outcome"] != "failed"
            and not frozen.user_attrs[ENDED].get("infeasible", False)
        }


def rung_of(frozen: FrozenTrial) -> AtRung | None:
    """Return where a trial that has not ended is among the rungs; None if it has reached none."""
    if frozen.state.is_finished() or RUNG not in frozen.user_attrs:
        return None
    return AtRung(**frozen.user_attrs[RUNG])


def _values(frozen: FrozenTrial) -> Values:
    # Optuna's intermediate values are of one objective, so several are in an attribute.
    # Of a trial that trains on folds they are by fold.
    kept = frozen.user_attrs.get(EPOCHS)
    if kept is None:
        return {epoch: (value,) for epoch, value in frozen.intermediate_values.items()}
    return {
        int(epoch): tuple(math.nan if value is None else float(value) for value in values)
        for epoch, values in kept.items()
    }
