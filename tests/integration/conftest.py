"""One real sweep on a real local Ray cluster, shared by the tests that look at its traces."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import ray

from segan_ray.config import Experiment
from segan_ray.data.store.opened_store import read_manifest
from segan_ray.home import Home
from segan_ray.orchestration.cluster.session import ray_session
from segan_ray.orchestration.tune.one_trial import TrainResult, train_one
from segan_ray.orchestration.tune.sweep import run_sweep
from segan_ray.orchestration.tune.sweep_plan import Sweep
from segan_ray.search.results.trial_state import TrialState
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.tracking.description.card import StoreCard

SWEEP = "stops-early"
EPOCHS = 3
SPACE = SearchSpace.model_validate(
    {
        "name": "test",
        "base": {
            "segmentor": {"base_width": 4, "depth": 2},
            "critic": {"base_width": 4, "depth": 1},
            "resources": {"retries": 0},
            "training": {"epochs": EPOCHS, "steps_per_epoch": 6, "batch_size": 4, "crop": 48},
        },
        "parameters": {
            "segmentor.lr": {"type": "float", "low": 1e-7, "high": 1e-2, "log": True},
            "loss.scale_weights": {"type": "floats", "length": 2, "low": 0.1, "high": 4},
        },
        "sampler": {"type": "tpe", "seed": 1, "startup_trials": 2},
        "scheduler": {"type": "asha", "grace_period": 1, "reduction_factor": 2},
        "budget": {"trials": 4},
        # The second learns nothing and is stopped.
        "enqueue": [{"segmentor.lr": 3e-3}, {"segmentor.lr": 1e-7}],
    }
)


@dataclass
class FinishedSweep:
    """A sweep's records, what its watcher heard, and the placement groups it saw."""

    home: Home
    store: Path
    events: list[TrialState] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)


def live_placement_groups() -> int:
    """Return how many placement groups hold or want resources."""
    table = ray.util.placement_group_table()
    return sum(group["state"] != "REMOVED" for group in table.values())


def ignore(told: TrialState | str) -> None:
    """Watch nothing."""


def card(store: Path) -> StoreCard:
    manifest = read_manifest(store)
    counts: dict[str, int] = {name: len(members) for name, members in manifest.splits.items()}
    return StoreCard(store, manifest.fingerprint, counts)


def search(
    space: SearchSpace, name: str, store: Path, home: Home, on_event=ignore, say=ignore, **more
) -> str:
    """Run a sweep in this process."""
    sweep = Sweep(name, space, "name: test\n", store, card(store), home, "…", **more)
    return run_sweep(sweep, on_event, say)


def train(experiment: Experiment, name: str, store: Path, place, home: Home) -> TrainResult:
    """Run one experiment in this process, on the store at ``place``."""
    return train_one(name, experiment, place, card(store), home, ignore, lambda sentence: None)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A local cluster of this machine's cores, on loopback; its workers' cache is empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGAN_RAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        with ray_session():
            yield


@pytest.fixture(scope="session")
def sweep(cluster: None, store: Path, tmp_path_factory: pytest.TempPathFactory) -> FinishedSweep:
    """A finished sweep of four trials, one at a time, so that each needs what the last held."""
    finished = FinishedSweep(Home.at(tmp_path_factory.mktemp("home")), store)

    def watch(event: TrialState) -> None:
        finished.events.append(event)
        finished.groups.append(live_placement_groups())

    one_at_a_time = SPACE.model_copy(
        update={"budget": SPACE.budget.model_copy(update={"max_concurrent": 1})}
    )
    search(one_at_a_time, SWEEP, store, finished.home, watch)
    return finished
