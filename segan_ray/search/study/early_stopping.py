"""Which trials end early, wait and go on: by Optuna's pruners, or by rungs of our own.

Optuna neither pauses trials nor stops them by several objectives.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import optuna

from segan_ray.search.points.points import RUNG, STOP, AtRung, Verdict
from segan_ray.search.space.scheduler_settings import AshaScheduler, WilcoxonScheduler
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.study.rungs import Rungs
from segan_ray.search.study.scores import Scores
from segan_ray.search.study.study_trials import StudyTrials


@dataclass(frozen=True)
class EarlyStopping:
    """The scheduler of a space, over the scores of its trials; decisions are in the study."""

    space: SearchSpace
    trials: StudyTrials
    scores: Scores

    @property
    def pauses(self) -> bool:
        """Whether trials are paused rather than stopped."""
        scheduler = self.space.scheduler
        return isinstance(scheduler, AshaScheduler) and scheduler.promote

    def verdict(self, trial: optuna.Trial, number: int, epoch: int) -> Verdict:
        """Return what a trial does after an epoch, by its rank among the others.

        A trial that trains on folds is asked for where one of them ends.
        """
        # What was decided stays so. Optuna's halving, too, judges a rung once.
        if trial.user_attrs.get(STOP) == epoch:
            return "stop"
        rungs, scheduler = self._rungs, self.space.scheduler
        verdict: Verdict
        if isinstance(scheduler, WilcoxonScheduler):
            worse = self.scores.is_worse_by_folds(number, scheduler)
            verdict = "stop" if worse else "continue"
        elif rungs is not None:
            verdict = self._at_rung(trial, number, epoch, rungs)
        elif len(self.space.objectives) > 1:
            verdict = "continue"
        else:
            verdict = "stop" if trial.should_prune() else "continue"
        if verdict == "stop":
            trial.set_user_attr(STOP, epoch)
        return verdict

    def next_to_go_on(self, *, last: bool) -> int | None:
        """Return the paused trial that may go on, or None.

        If nothing trains and nothing is left to draw, it is the ``last`` to go all the way.
        """
        rungs = self._rungs
        if rungs is None:
            return None
        reached, paused = self.scores.reached(), self.trials.paused()
        number = rungs.next_to_go_on(reached, paused)
        return rungs.last_to_go_on(reached, paused) if number is None and last else number

    def go_on(self, trial: optuna.Trial, number: int) -> None:
        """Record that a paused trial goes on from its rung."""
        trial.set_user_attr(RUNG, asdict(AtRung(self.trials.paused()[number], paused=False)))

    def out_of_reach(self, trials: int) -> list[int]:
        """Return the paused trials that cannot go on if there are so many ``trials`` in all."""
        rungs = self._rungs
        if rungs is None:
            return []
        return rungs.out_of_reach(self.scores.reached(), self.trials.paused(), trials)

    @property
    def _rungs(self) -> Rungs | None:
        scheduler, objectives = self.space.scheduler, self.space.objectives
        if not isinstance(scheduler, AshaScheduler):
            return None
        if not scheduler.promote and len(objectives) == 1:
            return None
        modes = [objective.mode for objective in objectives]
        return Rungs.of(scheduler, self.space.most_epochs(), modes)

    def _at_rung(self, trial: optuna.Trial, number: int, epoch: int, rungs: Rungs) -> Verdict:
        if epoch not in rungs.epochs:
            return "continue"
        # A trial that was lost after a rung reports it again, when others may have come.
        if trial.user_attrs.get(RUNG, {}).get("epoch") == epoch:
            return "continue"
        verdict = self._rank_at(number, epoch, rungs)
        if verdict != "stop":
            trial.set_user_attr(RUNG, asdict(AtRung(epoch, paused=verdict == "pause")))
        return verdict

    def _rank_at(self, number: int, epoch: int, rungs: Rungs) -> Verdict:
        reached = self.scores.reached()
        if not self.pauses:
            return "stop" if rungs.has_to_stop(reached, number, epoch) else "continue"
        if not rungs.has_to_wait(reached, number, epoch):
            return "continue"
        # To go on it would have to win, which it cannot.
        return "pause" if self.scores.broken(number) is None else "stop"
