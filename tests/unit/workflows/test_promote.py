"""Which trial of a sweep is promoted."""

from __future__ import annotations

import pytest

from segan_ray.errors import SweepError
from segan_ray.search.results.ranking import SweepRecord, TrialRecord
from segan_ray.workflows.promote import _best_ended


def sweep(status: str, **trials: tuple[str, float | None]) -> SweepRecord:
    records = tuple(
        TrialRecord(name, state, 3, score, f"run-{name}", {})
        for name, (state, score) in trials.items()
    )
    return SweepRecord("s", status, "val/dice_mean", "max", "store", "2026-01-01", records)


def test_a_trial_that_waits_is_promoted_once_its_sweep_has_ended() -> None:
    trials = {"000": ("completed", 0.6), "001": ("paused", 0.8), "002": ("running", 0.9)}
    # Only then is its checkpoint with the records.
    assert _best_ended(sweep("finished", **trials)).trial == "001"
    assert _best_ended(sweep("running", **trials)).trial == "000"
    assert _best_ended(sweep("interrupted", **trials)).trial == "000"


def test_a_sweep_without_a_score_promotes_nothing() -> None:
    with pytest.raises(SweepError, match="'s' has no ended trial with a score"):
        _best_ended(sweep("finished", **{"000": ("failed", 0.6), "001": ("paused", None)}))
