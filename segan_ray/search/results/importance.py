"""Which parameters made the difference between good trials and the rest, as Optuna tells."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Final

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.importance import get_param_importances
from optuna.trial import create_trial

from segan_ray.search.results.columns import Column, columns, is_number
from segan_ray.search.results.ranking import TrialRecord
from segan_ray.search.space.parameters import said_as
from segan_ray.training.epoch_record import Mode

FEWEST: Final = 4
"""Fewer trials say nothing about importance."""
DECADE: Final = 10


def importances(trials: Sequence[TrialRecord], mode: Mode) -> dict[str, float]:
    """Return each parameter's share of the difference, greatest first; they sum to 1.

    Optuna's PED-ANOVA (Watanabe et al. 2023) asks how differently the best tenth of the trials
    is spread. Every trial with a score counts, stopped trials too; a repeat adds no point and
    does not count. Only parameters that vary and that every counted trial has are compared. The
    result is empty without such parameters, or with fewer than ``FEWEST`` trials.
    """
    scored = [
        trial
        for trial in trials
        if trial.score is not None and math.isfinite(trial.score) and trial.repeat_of is None
    ]
    comparable = {name: _comparable(column) for name, column in columns(scored).items()}
    shared = {name: column for name, column in comparable.items() if _compares(column, len(scored))}
    if len(scored) < FEWEST or not shared:
        return {}
    space = {name: _distribution(column) for name, column in shared.items()}
    # Keep Optuna from printing that it made a study.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if mode == "max" else "minimize")
    study.add_trials(
        create_trial(
            params={name: column[trial.trial] for name, column in shared.items()},
            distributions=space,
            value=trial.score,
        )
        for trial in scored
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        shares = get_param_importances(study)
    return dict(sorted(shares.items(), key=lambda share: (-share[1], share[0])))


def _comparable(column: Column) -> dict[str, float] | dict[str, str]:
    """Return all values as numbers, or all as words if any value is a word."""
    if all(map(is_number, column.values())):
        return {trial: float(value) for trial, value in column.items()}
    return {trial: said_as(value) for trial, value in column.items()}


def _compares(column: Column, trials: int) -> bool:
    """Whether every trial has a value, all of them finite if they are numbers, and they differ."""
    values = column.values()
    finite = all(not isinstance(value, float) or math.isfinite(value) for value in values)
    return len(values) == trials and finite and len(set(values)) > 1


def _distribution(column: Column) -> BaseDistribution:
    """Return the range of the values, logarithmic where they span a decade."""
    values = column.values()
    if not all(map(is_number, values)):
        return CategoricalDistribution(sorted(set(values)))
    low, high = min(values), max(values)
    return FloatDistribution(low, high, log=low > 0 and high / low >= DECADE)
