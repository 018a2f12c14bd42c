"""Successive halving by rungs: who is among the best at a rung, who waits there, who goes on.

The rule is ASHA's own (Li et al. 2020, algorithm 2): of the trials that have reached a rung, the
best 1/``factor`` go on. A trial that is not among them when it arrives is stopped or waits, and one
that waits goes on when later arrivals have put it there. Of several objectives the best are those
that others dominate least, and of these the most different (Schmucker et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from segan_ray.search.results.ranking import pareto_front
from segan_ray.search.space.scheduler_settings import AshaScheduler, rung_epochs
from segan_ray.training.epoch_record import Mode, best_epoch

Reached = Mapping[int, Mapping[int, tuple[float, ...]]]
"""The objectives of each trial by epoch."""
Points = Mapping[int, tuple[float, ...]]


@dataclass(frozen=True)
class Rungs:
    """The epochs after which trials are compared, in order, by objectives of these ``modes``."""

    epochs: tuple[int, ...]
    factor: int
    modes: tuple[Mode, ...]
    grow: bool = False

    @classmethod
    def of(cls, scheduler: AshaScheduler, most_epochs: int, modes: Sequence[Mode]) -> Rungs:
        """Return the rungs of trials that run at most ``most_epochs``; the last epoch is none."""
        factor = scheduler.reduction_factor
        rungs = rung_epochs(scheduler.grace_period, factor, most_epochs)
        return cls(rungs, factor, tuple(modes), scheduler.max_epochs == "grow")

    def has_to_wait(self, reached: Reached, trial: int, epoch: int) -> bool:
        """Tell whether ``trial``, which has just ended ``epoch``, waits there."""
        if epoch not in self.epochs:
            return False
        return epoch >= self._farthest(reached) or trial not in self._best(reached, epoch)

    def has_to_stop(self, reached: Reached, trial: int, epoch: int) -> bool:
        """Tell whether ``trial``, which has just ended ``epoch``, is stopped there.

        It could not go on later, so the best of few goes on though it is no whole share of them.
        """
        waits = self.has_to_wait(reached, trial, epoch)
        return waits and trial not in self._ranked(reached, epoch)[:1]

    def next_to_go_on(self, reached: Reached, paused: Mapping[int, int]) -> int | None:
        """Return the trial that may go on, the best of the highest rung first, or None.

        ``paused`` holds the rung at which each paused trial waits.
        """
        farthest = self._farthest(reached)
        for rung in (rung for rung in reversed(self.epochs) if rung < farthest):
            for trial in self._best(reached, rung):
                if paused.get(trial) == rung:
                    return trial
        return None

    def last_to_go_on(self, reached: Reached, paused: Mapping[int, int]) -> int | None:
        """Return the trial that goes on when no more arrive, or None if one has gone all the way.

        A share of few trials is none at the higher rungs, and then no trial would ever be trained
        to its end. The best at the highest rung that was reached is.
        """
        for rung in reversed(self.epochs):
            arrived = self._ranked(reached, rung)
            if any(max(reached[trial]) > rung for trial in arrived):
                return None
            if arrived:
                return next((trial for trial in arrived if paused.get(trial) == rung), None)
        return None

    def out_of_reach(self, reached: Reached, paused: Mapping[int, int], trials: int) -> list[int]:
        """Return the paused trials that cannot go on if the sweep has ``trials`` trials in all.

        Ranks only sink as others arrive, and no more than all of them arrive at a rung. Of several
        objectives ranks rise too, as a trial that is unlike others may lose them to better ones.
        """
        if len(self.modes) > 1:
            return []
        most = max(1, trials // self.factor)
        within = {rung: self._ranked(reached, rung)[:most] for rung in self.epochs}
        return sorted(trial for trial, rung in paused.items() if trial not in within[rung])

    def _farthest(self, reached: Reached) -> float:
        """Return the rung at which every trial waits, infinity if there is none.

        It is no rung that a trial has gone past.
        """
        if not self.grow:
            return math.inf
        gone = max((max(of_trial) for of_trial in reached.values() if of_trial), default=0)
        for below, rung in pairwise(self.epochs):
            if rung >= gone and self._same_order(reached, below, rung):
                return rung
        return math.inf

    def _same_order(self, reached: Reached, below: int, rung: int) -> bool:
        """Tell whether the trials at ``rung`` are in the order in which they left the one below.

        Scores that are no farther apart than those of trials that overtake each other again and
        again are taken for equal.
        """
        there = self._ranked(reached, rung)
        curves = np.array([[values[0] for _, values in sorted(reached[trial].items())][:rung]
                           for trial in there])  # fmt: skip
        if len(there) < 2:
            return True
        better = np.fmax if self.modes[0] == "max" else np.fmin
        now, before = better.reduce(curves, 1), better.reduce(curves[:, :below], 1)
        apart, was = np.subtract.outer(now, now), np.subtract.outer(before, before)
        return not np.any((np.abs(apart) > _noise(curves, apart)) & (apart * was < 0))

    def _best(self, reached: Reached, rung: int) -> list[int]:
        """Return the best 1/``factor`` of the trials that have reached a rung."""
        arrived = sum(rung in of_trial for of_trial in reached.values())
        return self._ranked(reached, rung)[: arrived // self.factor]

    def _ranked(self, reached: Reached, rung: int) -> list[int]:
        """Return the trials at a rung, best first, each by its best epoch so far.

        Of equal ones the trial that was drawn first counts as better; one without any number among
        its scores is left out.
        """
        found: dict[int, tuple[float, ...]] = {}
        for trial, of_trial in reached.items():
            so_far = {epoch: values[0] for epoch, values in of_trial.items() if epoch <= rung}
            best = best_epoch(so_far, self.modes[0]) if rung in of_trial else None
            if best is not None and not any(map(math.isnan, of_trial[best])):
                found[trial] = of_trial[best]
        if len(self.modes) > 1:
            return [trial for front in _fronts(found, self.modes) for trial in front]
        sign = -1 if self.modes[0] == "max" else 1
        return sorted(found, key=lambda trial: (sign * found[trial][0], trial))


def _fronts(points: Points, modes: Sequence[Mode]) -> Iterator[list[int]]:
    """Yield the trials that no other dominates, then those that only these dominate, and so on."""
    left = dict(sorted(points.items()))
    while left:
        trials = list(left)
        front = {trials[at]: left[trials[at]] for at in pareto_front(list(left.values()), modes)}
        yield _spread(front, modes[0])
        left = {trial: point for trial, point in left.items() if trial not in front}


def _spread(front: Points, mode: Mode) -> list[int]:
    """Return a front's trials, the best by the first objective first, then the unlikest to those.

    Each objective counts by its range over the front.
    """
    trials, values = list(front), np.array(list(front.values()))
    values = (values - values.min(0)) / np.where(np.ptp(values, 0) > 0, np.ptp(values, 0), 1.0)
    first = int(np.argmax(values[:, 0]) if mode == "max" else np.argmin(values[:, 0]))
    order, nearest = [first], np.linalg.norm(values - values[first], axis=1)
    while len(order) < len(trials):
        nearest[order] = -1.0
        order.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.linalg.norm(values - values[order[-1]], axis=1))
    return [trials[at] for at in order]


def _noise(curves: np.ndarray, apart: np.ndarray) -> float:
    """Return how far apart, at most, nearly all trials are that overtake each other twice.

    That is the 90th percentile of their differences, as in PASHA; 0 if there are no such trials.
    """
    ahead = np.sign(curves[:, None] - curves[None])
    crossings = np.count_nonzero(ahead[..., 1:] * ahead[..., :-1] < 0, axis=-1)
    overtaking = np.abs(apart[crossings >= 2])
    return float(np.percentile(overtaking, 90)) if overtaking.size else 0.0
