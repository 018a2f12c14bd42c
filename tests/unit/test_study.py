from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from segan_ray.errors import SweepError
from segan_ray.search.ranking import SweepRecord, TrialRecord, rank
from segan_ray.search.space import SearchSpace
from segan_ray.search.study import SweepStudy

SPACE = SearchSpace.model_validate(
    {
        "name": "test",
        "parameters": {
            "critic.depth": {"type": "int", "low": 1, "high": 3},
            "loss.scale_weights": {
                "type": "floats", "length": "critic.depth + 1", "low": 0.1, "high": 4,
            },
        },
        "sampler": {"type": "tpe", "seed": 0, "startup_trials": 3},
    }
)  # fmt: skip


@pytest.fixture
def storage(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'optuna.db'}"


def test_trials_are_told_as_what_they_were(storage: str) -> None:
    study = SweepStudy.create("sweep", SPACE, storage)
    for outcome, values in (
        ("completed", [0.2, 0.7, 0.5]),
        ("stopped", [0.1]),
        ("failed", [0.6]),
        ("completed", []),
    ):
        number = study.ask().number
        for epoch, value in enumerate(values, start=1):
            study.report(number, epoch, value)
            study.report(number, epoch, value)
        study.tell(number, outcome)
    open_number = study.ask().number
    study.close()
    trials = optuna.load_study(study_name="sweep", storage=storage).trials
    assert [trial.state for trial in trials] == [
        TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL, TrialState.FAIL,
    ]  # fmt: skip
    # A completed trial is told by its best epoch, whatever came after.
    assert trials[0].value == 0.7
    assert trials[0].intermediate_values == {1: 0.2, 2: 0.7, 3: 0.5}
    assert trials[1].intermediate_values == {1: 0.1}
    assert trials[open_number].state == TrialState.FAIL


def test_two_sweeps_of_one_name_do_not_mix(storage: str) -> None:
    SweepStudy.create("sweep", SPACE, storage)
    with pytest.raises(SweepError, match="exists already"):
        SweepStudy.create("sweep", SPACE, storage)


def test_the_same_seed_draws_the_same_points(tmp_path: Path) -> None:
    drawn = []
    for name in ("a", "b"):
        study = SweepStudy.create(name, SPACE, f"sqlite:///{tmp_path / name}.db")
        points = []
        for _ in range(6):
            point = study.ask()
            points.append(point.params)
            study.report(point.number, 1, point.params["critic.depth"] / 10)
            study.tell(point.number, "completed")
        drawn.append(points)
    assert drawn[0] == drawn[1]


def record(trial: str, score: float | None) -> TrialRecord:
    return TrialRecord(trial, "completed", 1, score, f"run{trial}", {"critic.depth": 1})


@pytest.mark.parametrize(
    ("mode", "expected"), [("max", ["2", "0", "1", "3"]), ("min", ["1", "0", "2", "3"])]
)
def test_the_leaderboard_goes_best_first_and_unscored_last(mode, expected: list[str]) -> None:
    trials = [record("0", 0.5), record("1", 0.1), record("2", 0.9), record("3", None)]
    ranked = rank(trials, mode)
    assert [trial.trial for trial in ranked] == expected
    sweep = SweepRecord("s", "finished", "val/dice_mean", mode, "f", "now", ranked)
    assert sweep.best is not None
    assert sweep.best.trial == expected[0]
    assert set(sweep.document()) >= {"sweep", "metric", "mode", "trials", "best"}


def test_a_sweep_without_scores_has_no_best() -> None:
    sweep = SweepRecord("s", "failed", "m", "max", "f", "now", rank([record("0", None)], "max"))
    assert sweep.best is None
    assert sweep.summary()["best"] is None
