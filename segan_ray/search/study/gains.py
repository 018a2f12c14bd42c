"""When trials have stopped to bring gains: how many were drawn since the best score."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import optuna

from segan_ray.training.epoch_record import Mode, improves

LAST_GAIN: Final = "last_gain"
"""How many trials had been drawn when a score was last better than all before it."""


@dataclass
class Gains:
    """The best score of a sweep's trials so far, and when it came."""

    study: optuna.Study
    mode: Mode
    best: float | None = None

    @classmethod
    def of(cls, study: optuna.Study, mode: Mode, scores: Iterable[float]) -> Gains:
        """Go on behind ``scores``, which are in the study."""
        gains = cls(study, mode)
        for score in scores:
            if gains.is_one(score):
                gains.best = score
        return gains

    def is_one(self, score: float) -> bool:
        """Tell whether a score is better than all before it; an equal is not."""
        return score != self.best and improves(score, self.best, self.mode)

    def note(self, score: float, drawn: int) -> None:
        """Note a gain, as ``drawn`` trials have been drawn.

        To be called before the score itself is in the study: after a kill between the two, the
        trial goes on from before that epoch and reports it again.
        """
        self.study.set_user_attr(LAST_GAIN, drawn)
        self.best = score

    def missing_for(self, drawn: int) -> int:
        """Return how many of ``drawn`` trials were drawn since the last gain."""
        return drawn - int(self.study.user_attrs.get(LAST_GAIN, 0))
