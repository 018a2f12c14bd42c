"""Sweeps whose trials train on several folds: their scores, and which of them end early."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution

from segan_ray.search.points.points import EPOCHS
from segan_ray.search.space.scheduler_settings import WilcoxonScheduler
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.study.fold_by_fold import fold_best, is_worse
from tests.unit.search.study.test_study import Sweep, space

pytestmark = pytest.mark.usefixtures("studies")

FOLDS, EPOCHS_EACH = 4, 2
VALUES = st.lists(st.integers(0, 8), min_size=4, max_size=4)


def on_folds(**changes: Any) -> SearchSpace:
    base = {"training": {"epochs": EPOCHS_EACH}}
    tree = {"base": base, "folds": "all", "scheduler": {"type": "wilcoxon"}, **changes}
    return space(**tree).on_folds(FOLDS)


def train(sweep: Sweep, *bests: float) -> str:
    """Train the next trial on its folds; return how it went after the last of them."""
    number = sweep.study.ask().number
    verdict = "continue"
    for fold, best in enumerate(bests):
        for epoch in range(1, EPOCHS_EACH + 1):
            of_trial = fold * EPOCHS_EACH + epoch
            score = sum(bests) / FOLDS if fold == FOLDS - 1 else math.nan
            metrics = {fold_best(fold): best} if epoch == EPOCHS_EACH else {}
            verdict = sweep.study.report(number, of_trial, score, metrics=metrics)
            if verdict != "continue":
                sweep.study.tell(number, "stopped")
                return f"{verdict} after fold {fold}, epoch {epoch}"
    sweep.study.tell(number, "completed")
    return verdict


def test_the_scheduler_of_folds_is_by_folds_unless_another_is_asked_for() -> None:
    tree = {"name": "s", "parameters": {"segmentor.lr": {"type": "float", "low": 0.1, "high": 1}}}
    made = SearchSpace.model_validate({**tree, "folds": "all"})
    assert made.scheduler == WilcoxonScheduler()
    assert SearchSpace.model_validate(tree).scheduler.type == "asha"
    none = SearchSpace.model_validate({**tree, "folds": 3, "scheduler": {"type": "none"}})
    assert none.scheduler.type == "none"
    assert none.on_folds(5).runs == 3
    again = SearchSpace.model_validate_json(made.on_folds(5).model_dump_json())
    assert (again.runs, again.single_folds()) == (5, (0, 1, 2, 3, 4))


def test_a_trial_counts_with_the_mean_over_all_its_folds_and_ends_where_they_are_worse(
    tmp_path: Path,
) -> None:
    sweep = Sweep(tmp_path, on_folds())
    assert train(sweep, 0.5, 0.6, 0.7, 0.8) == "continue"
    assert train(sweep, 0.4, 0.5, 0.6, 0.7) == "stop after fold 2, epoch 2"
    # One fold that is better, and it goes on.
    assert train(sweep, 0.4, 0.7, 0.5, 0.6) == "continue"
    assert sweep.states == ["COMPLETE", "PRUNED", "COMPLETE"]
    first, second, _ = sweep.trials
    assert first.value == pytest.approx(0.65)
    assert second.intermediate_values == {0: 0.4, 1: 0.5, 2: 0.6}
    # Also by JavaScript, which has no NaN.
    text = json.dumps(first.user_attrs[EPOCHS], allow_nan=False)
    assert json.loads(text) == {str(e): [None if e < 7 else 0.65] for e in range(1, 9)}
    # As a process sees it that was started anew.
    study = sweep.again()
    assert study.trials.scores(study.trials.values()) == {0: [0.65, 0.65], 1: [], 2: [0.55, 0.55]}
    assert train(sweep, 0.3, 0.5, 0.6, 0.7) == "stop after fold 2, epoch 2"


def test_within_a_fold_no_trial_ends_and_a_decision_stays(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, on_folds())
    train(sweep, 0.5, 0.6, 0.7, 0.8)
    number = sweep.study.ask().number
    for epoch in range(1, 6):
        fold = {fold_best(epoch // 2 - 1): 0.1} if epoch % 2 == 0 else {}
        assert sweep.study.report(number, epoch, math.nan, metrics=fold) == "continue"
    assert sweep.study.report(number, 6, math.nan, metrics={fold_best(2): 0.1}) == "stop"
    study = sweep.again()
    (point,) = study.reopen()
    assert point.number == number
    assert study.report(number, 6, math.nan, metrics={fold_best(2): 0.1}) == "stop"


def test_what_cannot_win_is_not_compared_with(tmp_path: Path) -> None:
    bounds = [{"metric": "time/epoch_s", "max": 30.0}]
    sweep = Sweep(tmp_path, on_folds(constraints=bounds))
    number = sweep.study.ask().number
    for epoch in range(1, 9):
        fold = {fold_best(epoch // 2 - 1): 0.9} if epoch % 2 == 0 else {}
        value = 0.9 if epoch > 6 else math.nan
        sweep.study.report(number, epoch, value, metrics={**fold, "time/epoch_s": 99.0})
    assert sweep.study.tell(number, "completed").infeasible
    assert train(sweep, 0.4, 0.5, 0.6, 0.7) == "continue"


@given(VALUES, VALUES, st.integers(2, 3), st.sampled_from(["max", "min"]))
def test_it_decides_as_optuna_does(own: list[int], best: list[int], done: int, mode: Any) -> None:
    """Unless the trial is better on average, where Optuna's never stops it."""
    scheduler = WilcoxonScheduler(p_threshold=0.15)
    folds = dict(enumerate(map(float, own[:done])))
    whole = dict(enumerate(map(float, best)))
    study = optuna.create_study(direction={"max": "maximize", "min": "minimize"}[mode])
    x = {"x": FloatDistribution(0, 1)}
    study.add_trial(
        optuna.create_trial(
            params={"x": 0.5}, distributions=x, value=sum(best), intermediate_values=whole
        )
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study.pruner = optuna.pruners.WilcoxonPruner(p_threshold=0.15)
        trial = study.ask(x)
        for fold, value in folds.items():
            trial.report(value, fold)
        theirs = trial.should_prune()
    sign = 1 if mode == "max" else -1
    better_mean = sign * (sum(own[:done]) / done - sum(best) / len(best)) >= 0
    assert is_worse(folds, [whole], mode, scheduler) == theirs or better_mean
