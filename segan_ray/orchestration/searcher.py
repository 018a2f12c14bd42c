"""Ray Tune's view of a sweep's Optuna study.

Ray's own ``OptunaSearch`` tells every ended trial's last value as COMPLETE; here a stopped
trial is PRUNED, a crashed one FAIL, and a completed one is told by its best epoch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from segan_ray.search.study import Outcome, SweepStudy

OutcomeOf = Callable[[dict[str, Any] | None, bool], Outcome]


class StudySearcher(Searcher):
    """Draws trials from a ``SweepStudy`` and tells it what came of them.

    ``make_config`` turns a drawn point into the configuration of a trial; ``outcome`` tells
    from a trial's last result, and whether it crashed, how it ended.
    """

    def __init__(
        self,
        study: SweepStudy,
        make_config: Callable[[int, dict[str, Any]], dict[str, Any]],
        outcome: OutcomeOf,
    ) -> None:
        objective = study.space.objective
        super().__init__(metric=objective.metric, mode=objective.mode)
        self.study = study
        self.make_config = make_config
        self.outcome = outcome
        self.numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Return the configuration of the next trial."""
        point = self.study.ask()
        self.numbers[trial_id] = point.number
        return self.make_config(point.number, dict(point.params))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report an epoch's objective to the study."""
        if "epoch" in result:
            self.study.report(self.numbers[trial_id], result["epoch"], result[self.metric])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tell the study how the trial ended."""
        if result is not None and not error:
            self.on_trial_result(trial_id, result)
        self.study.tell(self.numbers[trial_id], self.outcome(result, error))

    def save(self, checkpoint_path: str) -> None:
        """Write which Tune trial is which Optuna trial; the study itself is in its database."""
        Path(checkpoint_path).write_text(json.dumps(self.numbers), encoding="utf-8")

    def restore(self, checkpoint_path: str) -> None:
        """Read what ``save`` wrote."""
        self.numbers = json.loads(Path(checkpoint_path).read_text(encoding="utf-8"))
