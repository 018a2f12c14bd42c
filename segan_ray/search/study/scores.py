"""What a sweep's trials have reached, epoch by epoch, and which of them may win."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import optuna

from segan_ray.search.points.points import EPOCHS, REPEAT_OF, REUSED
from segan_ray.search.space.scheduler_settings import WilcoxonScheduler
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.study.fold_by_fold import ended_folds, is_worse
from segan_ray.search.study.measured import Measured, Metrics
from segan_ray.search.study.study_trials import StudyTrials, Values
from segan_ray.training.epoch_record import best_epoch


@dataclass
class Scores:
    """The objectives of each trial by epoch, and what its constraints say of it."""

    space: SearchSpace
    trials: StudyTrials
    values: dict[int, Values]
    measured: Measured

    @classmethod
    def of(cls, space: SearchSpace, trials: StudyTrials) -> Scores:
        """Return what the study holds."""
        return cls(space, trials, trials.values(), Measured.of(space.constraints, trials.all()))

    def note(
        self,
        trial: optuna.Trial,
        number: int,
        epoch: int,
        values: tuple[float, ...],
        metrics: Metrics,
    ) -> None:
        """Record an epoch, its ``metrics`` as far as they are bounded."""
        self.measured.note(trial, number, epoch, metrics)
        known = self.values[number]
        known[epoch] = values
        if self.space.folds is None and len(values) == 1:
            trial.report(values[0], epoch)
            return
        trial.set_user_attr(EPOCHS, {str(each): _known(of) for each, of in known.items()})
        # To Optuna a step is a fold.
        for fold, best in ended_folds(metrics, self.space.runs).items():
            trial.report(best, fold)

    def is_worse_by_folds(self, number: int, scheduler: WilcoxonScheduler) -> bool:
        """Tell whether a trial's folds are worse than those of the best trial that has ended."""
        every = self.trials.all()
        others = [
            every[other].intermediate_values
            for other in self.trials.scores(self.values)
            if len(every[other].intermediate_values) == self.space.runs
        ]
        mode = self.space.objective.mode
        return is_worse(every[number].intermediate_values, others, mode, scheduler)

    def reached(self) -> dict[int, Values]:
        """Return the objectives by epoch of each searched trial that may yet win."""
        return {
            number: self.values[number]
            for number, frozen in enumerate(self.trials.all())
            if {REPEAT_OF, REUSED}.isdisjoint(frozen.user_attrs)
            and not self.measured.breaks_for_good(number)
        }

    def that_count(self) -> Iterator[float]:
        """Yield every score of a searched trial in an epoch in which it could have won."""
        for number, of_trial in self.reached().items():
            for epoch, values in of_trial.items():
                if self.measured.broken(number, epoch) is None:
                    yield values[0]

    def best_epoch(self, number: int) -> int | None:
        """Return the best epoch of a trial by its first objective, or None if it has none."""
        first = {epoch: values[0] for epoch, values in self.values.get(number, {}).items()}
        return best_epoch(first, self.space.objective.mode)

    def broken(self, number: int) -> str | None:
        """Return in words which constraints a trial breaks at its best epoch so far, if any."""
        return self.measured.broken(number, self.best_epoch(number))


def _known(values: tuple[float, ...]) -> list[float | None]:
    """Return the objectives of an epoch for JSON, which has no NaN."""
    return [None if math.isnan(value) else value for value in values]
