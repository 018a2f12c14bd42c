"""Comparing a trial with the best one fold by fold, as Optuna's ``WilcoxonPruner`` does.

Optuna's own would also compare with trials of other sweeps that a study begins with, and with ones
that break a constraint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from segan_ray.search.space.scheduler_settings import WilcoxonScheduler
from segan_ray.training.epoch_record import Mode

Folds = Mapping[int, float]
"""The best objective of each fold that has ended."""


def ended_folds(metrics: Mapping[str, float], count: int) -> dict[int, float]:
    """Return the best objective of each fold that ends with an epoch of these ``metrics``."""
    named = {fold: fold_best(fold) for fold in range(count)}
    return {fold: metrics[name] for fold, name in named.items() if name in metrics}


def fold_best(fold: int) -> str:
    """Return the metric that holds the best objective of a fold that has ended."""
    return f"fold/{fold}/best"


def is_worse(
    folds: Folds, others: Sequence[Folds], mode: Mode, scheduler: WilcoxonScheduler
) -> bool:
    """Tell whether a trial is worse than the best of ``others``, which have all folds.

    They are compared by the one-sided signed-rank test over the folds of the trial.
    """
    sign = 1 if mode == "max" else -1
    if not others or len(folds) < scheduler.startup_folds:
        return False
    best = max(others, key=lambda each: sign * sum(each.values()))
    less = [sign * (value - best[fold]) for fold, value in folds.items()]
    # Takes a while to import, and few sweeps need it.
    from scipy.stats import wilcoxon

    # Folds that are equal count half on either side; the test fails where all are.
    p = wilcoxon(less, alternative="less", zero_method="zsplit").pvalue
    return bool(p < scheduler.p_threshold)
