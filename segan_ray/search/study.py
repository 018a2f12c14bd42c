"""A sweep's Optuna study: asking for points, telling what came of them.

One study per sweep, named after it, in a real storage; only the process that runs the sweep
writes to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.study import StudyDirection
from optuna.trial import TrialState

from segan_ray.errors import SweepError
from segan_ray.search.samplers import make_sampler
from segan_ray.search.space import SearchSpace

Outcome = Literal["completed", "stopped", "failed"]


@dataclass(frozen=True)
class Point:
    """One drawn point: the number of its trial, and what was drawn."""

    number: int
    params: Mapping[str, Any]


@dataclass
class SweepStudy:
    """Ask and tell for one sweep. A trial's score is its best epoch's, whatever came after."""

    space: SearchSpace
    study: optuna.Study
    _open: dict[int, optuna.Trial] = field(default_factory=dict)
    _values: dict[int, dict[int, float]] = field(default_factory=dict)

    @classmethod
    def create(cls, sweep: str, space: SearchSpace, storage: str) -> SweepStudy:
        """Start the study of a new sweep.

        Raises:
            SweepError: if ``storage`` holds a study of that name already.
        """
        # Optuna would print where it stores and that multivariate TPE is experimental.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        direction = (
            StudyDirection.MAXIMIZE if space.objective.mode == "max" else StudyDirection.MINIMIZE
        )
        try:
            study = optuna.create_study(
                study_name=sweep,
                storage=storage,
                sampler=make_sampler(space, None),
                direction=direction,
            )
        except DuplicatedStudyError:
            raise SweepError(
                f"A sweep named '{sweep}' exists already. Choose another --name."
            ) from None
        return cls(space, study)

    def ask(self) -> Point:
        """Draw the next point."""
        trial = self.study.ask()
        self._open[trial.number] = trial
        self._values[trial.number] = {}
        return Point(trial.number, self.space.suggest(trial))

    def report(self, number: int, epoch: int, value: float) -> None:
        """Record the objective after one epoch; an epoch said before is not said again."""
        if epoch not in self._values[number]:
            self._values[number][epoch] = value
            self._open[number].report(value, epoch)

    def tell(self, number: int, outcome: Outcome) -> None:
        """Close a trial: COMPLETE with its best value, PRUNED if stopped early, or FAIL."""
        if self._open.pop(number, None) is None:
            return
        values = self._values[number]
        if outcome == "failed" or not values:
            self.study.tell(number, state=TrialState.FAIL)
        elif outcome == "stopped":
            self.study.tell(number, state=TrialState.PRUNED)
        else:
            best = max if self.space.objective.mode == "max" else min
            self.study.tell(number, best(values.values()))

    def close(self) -> None:
        """Leave no trial RUNNING: whatever is open now did not end."""
        for number in list(self._open):
            self.tell(number, "failed")
