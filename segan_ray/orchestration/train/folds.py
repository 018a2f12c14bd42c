"""A trial that trains on several folds, one after another: its epochs, metrics and score.

The epochs of a trial count on from fold to fold. Its score is the mean over the folds of the best
epoch of each, so there is none before the last fold.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from segan_ray.config import Experiment
from segan_ray.search.study.fold_by_fold import fold_best
from segan_ray.training.epoch_record import BestEpoch

OF_FOLD: Final = ("train/", "val/")
"""How the metrics begin that each fold has its own of."""
SCORES: Final = "val/"


@dataclass(frozen=True)
class Folds:
    """The ``count`` folds of a trial, each trained for ``epochs`` epochs; one is the single split.

    Folds count from 0, epochs from 1.
    """

    count: int
    epochs: int

    @property
    def in_all(self) -> int:
        """How many epochs a trial has."""
        return self.count * self.epochs

    def of(self, epoch: int) -> int:
        """Return the fold that an epoch of the trial belongs to."""
        return max(0, epoch - 1) // self.epochs

    def epoch_of(self, epoch: int) -> int:
        """Return which epoch of its fold an epoch of the trial is."""
        return epoch - self.of(epoch) * self.epochs

    def experiment(self, experiment: Experiment, fold: int) -> Experiment:
        """Return the experiment that trains on ``fold``."""
        if self.count == 1:
            return experiment
        data = experiment.data.model_copy(update={"fold": fold})
        return experiment.model_copy(update={"data": data})

    def metrics(
        self, epoch: int, measured: Mapping[str, float], bests: Sequence[BestEpoch], objective: str
    ) -> dict[str, float]:
        """Return the metrics of an epoch as the trial reports them.

        ``bests`` are the best epochs of the folds so far. Where a fold ends its best objective is
        among the metrics, and in the last fold the scores of the whole trial.
        """
        if self.count == 1:
            return dict(measured)
        fold = self.of(epoch)
        told = {
            f"fold/{fold}/{name}" if name.startswith(OF_FOLD) else name: value
            for name, value in measured.items()
        }
        if epoch % self.epochs == 0:
            told[fold_best(fold)] = bests[-1].metrics[objective]
        return told | (self.scores(bests) if len(bests) == self.count else {})

    def best(self, bests: Sequence[BestEpoch]) -> BestEpoch | None:
        """Return the best epoch of the trial with its scores, or None before the last fold."""
        if self.count == 1:
            return bests[-1] if bests else None
        if len(bests) < self.count:
            return None
        return BestEpoch(bests[-1].epoch, {**bests[-1].metrics, **self.scores(bests)})

    def scores(self, bests: Sequence[BestEpoch]) -> dict[str, float]:
        """Return the mean over the folds of each validation score at their best epochs."""
        names = [name for name in bests[-1].metrics if name.startswith(SCORES)]
        return {name: statistics.fmean(best.metrics[name] for best in bests) for name in names}
