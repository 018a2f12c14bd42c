"""Trainables are reused from trial to trial, however short the trials are."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
from ray.util.placement_group import placement_group_table

from segan_ray.home import Home
from segan_ray.orchestration.tune import run_trials
from tests.integration.conftest import card
from tests.integration.killing import eventually

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from driver_scale import Watch, replayed
from recorded import SPACE
from replayed_trials import ReplayedTrainable

from segan_ray.orchestration.tune import sweep as sweeps
from segan_ray.orchestration.tune.sweep_plan import Sweep
from segan_ray.search.space.space_file import load_space
from segan_ray.search.study.study_budget import Limits

pytestmark = pytest.mark.endurance

TRAINABLES, TRIALS = 3, 60
EPOCH_S = 0.25
"""So long that one trainable alone cannot be through before the others have started."""


class Counted(ReplayedTrainable):
    """Leaves a file for its process in the store's folder; where that is, its task says."""

    def setup(self, config: dict) -> None:
        super().setup(config)
        Path(config["task"]["store"], f"trainable-{os.getpid()}").touch()

    def step(self) -> dict:
        time.sleep(EPOCH_S)
        return super().step()


def test_no_trainable_is_started_twice(cluster: None, store: Path, tmp_path: Path) -> None:
    """Trials end in a fraction of what it takes to start a trainable."""
    space, seen = load_space(SPACE), tmp_path / "seen"
    seen.mkdir()
    random = space.model_copy(
        update={"sampler": space.sampler.model_copy(update={"startup_trials": TRIALS})}
    )
    sweep = Sweep(
        "reused", random, SPACE.read_text(), seen, card(store), Home.at(tmp_path / "home"), "…",
        given=Limits(TRIALS),
    )  # fmt: skip
    watch = Watch(TRIALS)
    with replayed(watch, TRAINABLES), pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_trials, "ReusableTrainable", Counted)
        assert sweeps.run_sweep(sweep, watch.event, say=lambda *_: None) == "finished"
    assert watch.ended == TRIALS
    assert len(list(seen.glob("trainable-*"))) == TRAINABLES
    assert eventually(
        lambda: all(group["state"] == "REMOVED" for group in placement_group_table().values())
    )
