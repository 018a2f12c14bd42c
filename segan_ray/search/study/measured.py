"""What trials measured of the metrics that are bounded: which constraints they break.

A trial that breaks one is infeasible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial

from segan_ray.search.space.objectives import Constraint

MEASURED: Final = "measured"
"""The bounded metrics of a trial by epoch."""
MEMORY: Final = "memory"
"""The constraint that a trial broke which ran out of memory."""
Metrics = Mapping[str, float]


@dataclass
class Measured:
    """The bounded metrics of each trial of a sweep, by epoch."""

    constraints: tuple[Constraint, ...]
    _of: dict[int, dict[int, dict[str, float]]] = field(default_factory=dict)

    @classmethod
    def of(cls, constraints: tuple[Constraint, ...], trials: list[FrozenTrial]) -> Measured:
        """Return what ``trials``, in the order of their numbers, have in their attributes."""
        found = {number: _measured(each.user_attrs) for number, each in enumerate(trials)}
        return cls(constraints, {number: each for number, each in found.items() if each})

    def note(self, trial: optuna.Trial, number: int, epoch: int, metrics: Metrics) -> None:
        """Keep the bounded ones of an epoch's ``metrics``."""
        bounded = {c.metric: float(metrics[c.metric]) for c in self.constraints
                   if c.metric in metrics}  # fmt: skip
        if bounded:
            epochs = self._of.setdefault(number, {})
            epochs[epoch] = bounded
            trial.set_user_attr(MEASURED, {str(each): epochs[each] for each in epochs})

    def values(self, number: int, best: int | None) -> dict[str, float]:
        """Return what decides on each constraint of a trial whose ``best`` epoch that is.

        Of a metric that follows from the settings it is the worst of all epochs.
        """
        epochs = self._of.get(number, {})
        return {
            each.metric: max(values, key=each.violation)
            for each in self.constraints
            if (values := [
                metrics[each.metric]
                for epoch, metrics in epochs.items()
                if each.metric in metrics and (each.follows_from_settings or epoch == best)
            ])
        }  # fmt: skip

    def violations(self, number: int, best: int | None) -> dict[str, float]:
        """Return by how much a trial breaks each constraint (see ``Constraint.violation``)."""
        values = self.values(number, best)
        return {
            each.metric: each.violation(values[each.metric])
            for each in self.constraints
            if each.metric in values
        }

    def broken(self, number: int, best: int | None) -> str | None:
        """Return in words which constraints a trial breaks, or None if it keeps them."""
        values, violations = self.values(number, best), self.violations(number, best)
        told = [
            f"{each.said()}, found {values[each.metric]:g}"
            for each in self.constraints
            if violations.get(each.metric, 0.0) > 0
        ]
        return f"constraint broken: {'; '.join(told)}" if told else None

    def are_kept_by(self, metrics: Metrics) -> bool:
        """Tell whether an epoch of these ``metrics`` keeps every constraint that it tells of."""
        bounded = (each for each in self.constraints if each.metric in metrics)
        return all(each.violation(metrics[each.metric]) <= 0 for each in bounded)

    def breaks_for_good(self, number: int) -> bool:
        """Tell whether a trial breaks a constraint whatever it learns yet."""
        return any(violation > 0 for violation in self.violations(number, None).values())


def _measured(attributes: Mapping[str, Any]) -> dict[int, dict[str, float]]:
    return {int(epoch): dict(each) for epoch, each in attributes.get(MEASURED, {}).items()}
