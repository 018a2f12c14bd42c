"""The parts of `benchmarks/driver_scale.py`; the sweep that it runs is the product's own."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from driver_parts import RUNGS, SETTING, ended_trials, suggestion_s
from driver_scale import Moment, Watch, document, replayed
from recorded import SPACE, read_curves
from replayed_trials import METRIC, REAL_METRICS, Reading, ReplayedTrainable

from segan_ray.orchestration.tune import run_trials
from segan_ray.orchestration.tune import sweep as sweeps
from segan_ray.search.space.space_file import load_space

CURVES = read_curves()
MOMENT = Moment(10, 30, 10.0, 0.1, 500.0, 5.0, 400.0, 1.0, 0)


def test_a_trial_reads_out_the_curve_of_the_nearest_setting() -> None:
    reading = Reading.of({"params": SETTING, "trial": "007"}, CURVES)
    results = [reading.next() for _ in reading.scores]
    scores = [result.metrics[METRIC] for result in results]
    assert tuple(scores) in CURVES.scores[CURVES.grid.nearest(SETTING)].values()
    assert [result.epoch for result in results] == list(range(1, CURVES.grid.epochs + 1))
    assert [result.last for result in results] == [False] * (CURVES.grid.epochs - 1) + [True]
    assert results[-1].best.metrics[METRIC] == max(scores)
    assert {len(result.metrics) for result in results} == {REAL_METRICS}


def test_a_run_that_broke_off_breaks_off() -> None:
    (setting, seed), epoch = next(iter(CURVES.ended.items()))
    reading = Reading(CURVES.scores[setting][seed], epoch)
    ended = [reading.next() for _ in range(epoch)][-1]
    assert ended.last
    assert ended.failure


def test_known_trials_are_stopped_as_asha_leaves_them() -> None:
    trials = ended_trials(load_space(SPACE), 3 * len(RUNGS))
    lengths = [len(trial.intermediate_values) for trial in trials]
    assert lengths == list(RUNGS) * 3
    assert sum(trial.state == TrialState.COMPLETE for trial in trials) == 3


def test_suggestions_of_a_real_study_are_timed(tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seconds = suggestion_s(tmp_path, load_space(SPACE), known=12, times=2)
    assert len(seconds) == 2
    assert all(each > 0 for each in seconds)


def test_a_sweep_is_replayed_only_meanwhile() -> None:
    trainable, limit = run_trials.ReusableTrainable, sweeps.concurrency_limit
    with replayed(Watch(1), at_once=3):
        assert run_trials.ReusableTrainable is ReplayedTrainable
        assert sweeps.concurrency_limit(None, None).now(wanted=10) == 3
    assert (run_trials.ReusableTrainable, sweeps.concurrency_limit) == (trainable, limit)


def test_ratios_compare_the_end_with_the_beginning() -> None:
    watch = Watch(10, suggestions_s=[0.1, 0.2, 0.3])
    watch.moments = [
        MOMENT,
        replace(MOMENT, trials=20, seconds=20.0),
        replace(MOMENT, trials=30, seconds=45.0, driver_mb=1000.0, epochs=90, records_waiting=3),
    ]
    ratios = document(watch, {}, {})["ratios"]
    assert {name: ratio["value"] for name, ratio in ratios.items()} == {
        "trials/s, last tenth to first": pytest.approx(0.4),
        "driver's memory, end to first tenth": pytest.approx(2.0),
        "records not in MLflow at the end, share": pytest.approx(3 / 150),
    }
    assert [ratio["ok"] for ratio in ratios.values()] == [False] * 3
