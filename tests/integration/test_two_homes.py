"""Two homes that share databases and no disk, as two drivers on a cluster do: one runs a sweep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from segan_ray.search.storage.study_record import is_ours
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.tracking.client.connection import EXPERIMENT
from segan_ray.tracking.reading.sweeps import read_sweep
from tests.integration.backends import postgresql
from tests.integration.killing import (
    Killable,
    assert_nothing_runs,
    assert_same_search,
    assert_whole,
    runs_of,
    space_of,
)

pytestmark = [pytest.mark.full, pytest.mark.timeout(2400)]

TRIALS = 2
SHORT = """
from segan_ray.search.storage import lease
lease.LEASE_S, lease.RENEW_S = 8.0, 1.0
from segan_ray.cli.main import main
main()
"""
"""The command line, with a lease of seconds."""


@pytest.fixture
def homes(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Killable, Killable]]:
    shared = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        "OPTUNA_STORAGE": f"sqlite:///{tmp_path}/optuna.db",
        "SEGAN_RAY_STORAGE": str(tmp_path / "storage"),
    }
    for name, value in shared.items():
        monkeypatch.setenv(name, value)
    client = MlflowClient(shared["MLFLOW_TRACKING_URI"])
    client.create_experiment(EXPERIMENT, artifact_location=f"{tmp_path}/artifacts")
    both = [
        Killable(tmp_path / name, store, space=space_of(TRIALS), program=("-c", SHORT))
        for name in ("a", "b")
    ]
    for each in both:
        each.folder.mkdir()
    yield both[0], both[1]
    for each in both:
        each.end_all()


def command(at: Killable, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Say ``segan-ray arguments`` in a home."""
    return subprocess.run(
        [sys.executable, *at.program, *arguments, "--home", str(at.home.folder)],
        check=False, capture_output=True, text=True, timeout=900,
    )  # fmt: skip


def take_over_from_one_that_stands_still(first: Killable, second: Killable) -> None:
    stopped = first.start()
    first.wait_for_epochs(2, stopped)
    first.stand_still_once_recorded(stopped)
    taker = second.start()
    second.wait_for_epochs(2, taker)
    stopped.send_signal(signal.SIGCONT)
    assert stopped.wait(900) == 1, first.log
    assert f"'sweep' was taken over by {os.uname().nodename}:{second.home.folder}" in first.log
    assert taker.wait(900) == 0, second.log
    assert_whole(second.home, second.name, TRIALS)
    assert_same_search(second.home, second.name, second.space)
    # Its unsent records are put aside, and the sweep does not look interrupted.
    assert not (first.sweep_folder / "tracking.jsonl").exists()
    assert read_sweep(first.home, first.name) == read_sweep(second.home, second.name)


def test_a_driver_that_was_stopped_and_taken_over_from_ends(homes, tmp_path, monkeypatch) -> None:
    with postgresql(tmp_path) as postgres:
        url = postgres.database("studies")
        monkeypatch.setenv("OPTUNA_STORAGE", url)
        take_over_from_one_that_stands_still(*homes)


@pytest.mark.endurance
def test_without_postgresql_too(homes) -> None:
    take_over_from_one_that_stands_still(*homes)


@pytest.mark.endurance
def test_of_several_drivers_that_resume_at_once_one_does_and_nothing_old_is_written(homes) -> None:
    first, second = homes
    killed = first.start()
    first.wait_for_epochs(4, killed)
    first.stand_still_once_recorded(killed)
    first.end(killed, signal.SIGKILL)
    # Its outbox is longer than what MLflow has: all of it would be written once more.
    outbox = first.sweep_folder / "tracking.jsonl"
    outbox.with_name(f"{outbox.name}.acknowledged").unlink()

    third = replace(second, folder=second.folder.with_name("c"), started=[])
    third.folder.mkdir()
    try:
        at_once = [each.start() for each in (second, third)]
        ended = [process.wait(900) for process in at_once]
        told = f"{second.log}\n{third.log}"
        assert sorted(ended) == [0, 1], told
        assert "'sweep' is running now, by" in told
        assert_whole(second.home, second.name, TRIALS)
        assert_same_search(second.home, second.name, second.space)

        before = shown_by_mlflow(second)
        late = first.start()
        assert late.wait(900) == 0, first.log
        assert "Another home has gone on with 'sweep'" in first.log
        assert shown_by_mlflow(second) == before
    finally:
        third.end_all()


def shown_by_mlflow(at: Killable) -> list:
    """Return what MLflow has of every trial."""
    return [
        (run.info.run_id, run.info.status, run.data.metrics, run.data.params, run.data.tags)
        for run in sorted(runs_of(at.home, at.name), key=lambda run: run.info.run_id)
        if "segan.trial" in run.data.tags
    ]


@pytest.mark.endurance
def test_another_home_ends_a_sweep_through_its_own_process(homes) -> None:
    first, second = homes
    first.space = space_of(trials=50)
    process = first.start()
    first.wait_for_epochs(1, process)

    refused = command(second, "delete", "sweep", "--yes")
    assert refused.returncode == 1
    assert f"'sweep' is running now, by {os.uname().nodename}:{first.home.folder}" in refused.stderr
    assert "segan-ray stop sweep" in refused.stderr
    assert process.poll() is None
    assert is_ours("sweep", open_storage(second.home))

    asked = command(second, "stop", "sweep")
    assert asked.returncode == 0, asked.stderr
    assert "'sweep' has ended: stopped." in asked.stdout
    assert process.wait(900) == 0, first.log
    assert_nothing_runs(first.home, "sweep")
    assert read_sweep(second.home, "sweep").status == "stopped"

    gone = command(second, "delete", "sweep", "--yes")
    assert gone.returncode == 0, gone.stderr
    assert not is_ours("sweep", open_storage(second.home))
