"""A trainable that trains nothing: its trials only read out recorded curves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any, Final

from ray import tune
from recorded import Curves, read_curves

from segan_ray.orchestration.train.messages import EpochResult
from segan_ray.training.epoch_record import BestEpoch

METRIC: Final = "val/dice_mean"
BROKE_OFF: Final = "The recorded run broke off here."
REAL_METRICS: Final = 21
"""How many metrics an epoch of a real trial on one worker has; see docs/tracking-ui.md."""


@dataclass
class Reading:
    """One trial's recorded curve and how far it was read out."""

    scores: tuple[float, ...]
    broke_off: int | None
    epoch: int = 0

    @classmethod
    def of(cls, task: dict[str, Any], curves: Curves) -> Reading:
        """Find the grid point nearest to the task's settings, with one of its seeds."""
        setting = curves.grid.nearest(task["params"])
        seed = Random(task["trial"]).choice(curves.grid.seeds)
        return cls(curves.scores[setting][seed], curves.ended.get((setting, seed)))

    def next(self) -> EpochResult:
        """Return the next epoch, with as many metrics as a real one has."""
        self.epoch += 1
        score = self.scores[self.epoch - 1]
        best = max(range(self.epoch), key=lambda index: (self.scores[index], index))
        rest = {f"recorded/{number:02d}": score for number in range(REAL_METRICS - 1)}
        return EpochResult(
            self.epoch,
            len(self.scores),
            {METRIC: score, **rest},
            BestEpoch(best + 1, {METRIC: self.scores[best]}),
            BROKE_OFF if self.epoch == self.broke_off else None,
        )


class ReplayedTrainable(tune.Trainable):
    """Takes the configuration of ``ReusableTrainable``; nothing is trained."""

    def setup(self, config: dict[str, Any]) -> None:
        self._reading = Reading.of(config["task"], _curves())

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._reading = Reading.of(new_config["task"], _curves())
        return True

    def step(self) -> dict[str, Any]:
        result = self._reading.next()
        return {"result": result, "done": result.last, "group": self.trial_id, "number": 1}


@cache
def _curves() -> Curves:
    return read_curves()
