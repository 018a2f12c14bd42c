"""Which trials of a sweep are promoted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from segan_ray.errors import SweepError
from segan_ray.search.results.ranking import SweepRecord, TrialRecord
from segan_ray.workflows.candidate import best_trials


def sweep(status: str, **trials: tuple[str, float | None]) -> SweepRecord:
    records = tuple(
        TrialRecord(name, state, 3, score, f"run-{name}", {})
        for name, (state, score) in trials.items()
    )
    return SweepRecord("s", status, "val/dice_mean", "max", "store", "2026-01-01", records)


def chosen(record: SweepRecord, count: int = 1) -> list[str]:
    return [trial.trial for trial in best_trials(record, count)]


def test_a_trial_that_waits_is_promoted_once_its_sweep_has_ended() -> None:
    trials = {"000": ("completed", 0.6), "001": ("paused", 0.8), "002": ("running", 0.9)}
    # Only then is its checkpoint with the records.
    assert chosen(sweep("finished", **trials)) == ["001"]
    assert chosen(sweep("running", **trials)) == ["000"]
    assert chosen(sweep("interrupted", **trials)) == ["000"]


def test_a_sweep_without_a_score_promotes_nothing() -> None:
    with pytest.raises(SweepError, match="'s' has no ended trial with a score"):
        chosen(sweep("finished", **{"000": ("failed", 0.6), "001": ("paused", None)}))


def test_the_best_trials_of_an_ensemble_have_settings_of_their_own() -> None:
    scores = {"000": 0.5, "001": 0.8, "002": 0.7, "003": 0.6, "004": 0.78, "005": 0.74}
    record = sweep("finished", **{name: ("completed", score) for name, score in scores.items()})
    assert chosen(record, 3) == ["001", "004", "005"]
    repeats = {"004": "001", "005": "002"}
    repeated = replace(
        record, trials=tuple(replace(t, repeat_of=repeats.get(t.trial)) for t in record.trials)
    )
    # 001 won by the mean over fresh seeds; 004 is its settings again, 002 those of 005.
    assert chosen(repeated, 3) == ["001", "005", "003"]
    with pytest.raises(SweepError, match="has 4 ended trials with a score and settings of its own"):
        chosen(repeated, 5)


def test_infeasible_trials_are_in_no_ensemble() -> None:
    record = sweep("finished", **{f"{n:03d}": ("completed", n / 10) for n in range(3)})
    trials = tuple(replace(each, infeasible=each.trial == "001") for each in record.trials)
    assert chosen(replace(record, trials=trials), 2) == ["002", "000"]
