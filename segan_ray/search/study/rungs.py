"""Successive halving that pauses trials instead of ending them: who waits at a rung, who goes on.

The rule is ASHA's own (Li et al. 2020, algorithm 2): of the trials that have reached a rung, the
best 1/``factor`` go on. A trial that is not among them when it arrives waits, and goes on when
later arrivals have put it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from segan_ray.search.space.scheduler_settings import AshaScheduler, rung_epochs
from segan_ray.training.epoch_record import Mode, best_epoch

Scores = Mapping[int, Mapping[int, float]]
"""The score of each trial by epoch."""


@dataclass(frozen=True)
class Rungs:
    """The epochs after which trials are compared, in order."""

    epochs: tuple[int, ...]
    factor: int
    mode: Mode

    @classmethod
    def of(cls, scheduler: AshaScheduler, most_epochs: int, mode: Mode) -> Rungs:
        """Return the rungs of trials that run at most ``most_epochs``; the last epoch is none."""
        factor = scheduler.reduction_factor
        return cls(rung_epochs(scheduler.grace_period, factor, most_epochs), factor, mode)

    def has_to_wait(self, scores: Scores, trial: int, epoch: int) -> bool:
        """Tell whether ``trial``, which has just ended ``epoch``, waits there."""
        return epoch in self.epochs and trial not in self._best(scores, epoch)

    def next_to_go_on(self, scores: Scores, paused: Mapping[int, int]) -> int | None:
        """Return the trial that may go on, the best of the highest rung first, or None.

        ``paused`` holds the rung at which each paused trial waits.
        """
        for rung in reversed(self.epochs):
            for trial in self._best(scores, rung):
                if paused.get(trial) == rung:
                    return trial
        return None

    def last_to_go_on(self, scores: Scores, paused: Mapping[int, int]) -> int | None:
        """Return the trial that goes on when no more arrive, or None if one has gone all the way.

        A share of few trials is none at the higher rungs, and then no trial would ever be trained
        to its end. The best at the highest rung that was reached is.
        """
        for rung in reversed(self.epochs):
            arrived = self._ranked(scores, rung)
            if any(max(scores[trial]) > rung for trial in arrived):
                return None
            if arrived:
                return next((trial for trial in arrived if paused.get(trial) == rung), None)
        return None

    def out_of_reach(self, scores: Scores, paused: Mapping[int, int], trials: int) -> list[int]:
        """Return the paused trials that cannot go on if the sweep has ``trials`` trials in all.

        Ranks only sink as others arrive, and no more than all of them arrive at a rung.
        """
        most = max(1, trials // self.factor)
        within = {rung: self._ranked(scores, rung)[:most] for rung in self.epochs}
        return sorted(trial for trial, rung in paused.items() if trial not in within[rung])

    def _best(self, scores: Scores, rung: int) -> list[int]:
        """Return the best 1/``factor`` of the trials that have reached a rung."""
        arrived = sum(rung in of_trial for of_trial in scores.values())
        return self._ranked(scores, rung)[: arrived // self.factor]

    def _ranked(self, scores: Scores, rung: int) -> list[int]:
        """Return the trials at a rung, best first, each by its best epoch so far.

        Of equal scores the trial that was drawn first counts as better; one without any number
        among its scores is left out.
        """
        found: dict[int, float] = {}
        for trial, of_trial in scores.items():
            so_far = {epoch: score for epoch, score in of_trial.items() if epoch <= rung}
            best = best_epoch(so_far, self.mode) if rung in of_trial else None
            if best is not None:
                found[trial] = so_far[best]
        sign = -1 if self.mode == "max" else 1
        return sorted(found, key=lambda trial: (sign * found[trial], trial))
