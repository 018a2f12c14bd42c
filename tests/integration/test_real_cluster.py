"""Sweeps as a platform engineer has them: three nodes with nothing in common but the network.

MLflow and Optuna are on PostgreSQL, checkpoints, artifacts and the prepared store behind an S3 API.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.integration.backends import ObjectStore, mlflow_server, object_store, postgresql
from tests.integration.killing import Killable, assert_whole, eventually, space_of
from tests.integration.nodes import Nodes, nodes

pytestmark = [pytest.mark.full, pytest.mark.timeout(2400)]


@dataclass(frozen=True)
class Backends:
    """Every server of a cluster, and what its clients have in their environment."""

    files: ObjectStore
    environment: dict[str, str]


@pytest.fixture(scope="module")
def backends(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    folder = tmp_path_factory.mktemp("backends")
    folder.chmod(0o755)
    with postgresql(folder) as postgres, object_store(folder) as files:
        files.files().put(f"{store}/", f"{files.bucket}/store/", recursive=True)
        records = postgres.database("mlflow")
        artifacts = f"s3://{files.bucket}/artifacts"
        with mlflow_server(folder, records, artifacts, files.environment) as tracking:
            environment = {
                **files.environment,
                "MLFLOW_TRACKING_URI": tracking,
                "OPTUNA_STORAGE": postgres.database("optuna"),
                "SEGAN_RAY_STORAGE": f"s3://{files.bucket}/sweeps",
            }
            yield Backends(files, environment)


@pytest.fixture(scope="module")
def one_node(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A head and a node of one CPU, which all tests share."""
    with nodes(tmp_path_factory.mktemp("cluster"), backends.environment) as cluster:
        cluster.add(1)
        yield cluster


@pytest.fixture
def cluster(one_node: Nodes, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    """That cluster, for the processes of a test; nodes that a test adds it takes away."""
    for name, value in one_node.environment.items():
        monkeypatch.setenv(name, value)
    return one_node


@contextmanager
def sweep_on(cluster: Nodes, backends: Backends, name: str, space: dict) -> Iterator[Killable]:
    folder = cluster.folder / name
    folder.mkdir()
    place = f"s3://{backends.files.bucket}/store"
    sweep = Killable(folder, place, name, space, dict(cluster.environment))
    try:
        yield sweep
    finally:
        sweep.end_all()


@contextmanager
def watching(files: ObjectStore, sweep: str) -> Iterator[dict[tuple[str, str], set[str]]]:
    """See every checkpoint that comes to be: ``{(trial, epoch): contents of its report}``.

    A report has the seconds that its epoch took: two contents mean that it was trained twice.
    """
    seen: dict[tuple[str, str], set[str]] = {}
    over = threading.Event()
    system = files.files()

    def look() -> None:
        while not over.wait(0.1):
            root = f"{files.bucket}/sweeps/{sweep}/checkpoints"
            for path, entry in system.find(root, detail=True).items():
                if path.endswith("report.json"):
                    trial, epoch, _ = path.split("/")[-3:]
                    seen.setdefault((trial, epoch), set()).add(entry["ETag"])

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


@pytest.mark.endurance
def test_two_sweeps_at_once_on_every_backend(cluster: Nodes, backends: Backends) -> None:
    larger = cluster.add(2)
    space = space_of(trials=1)
    with (
        sweep_on(cluster, backends, "first", space) as first,
        sweep_on(cluster, backends, "second", space) as second,
    ):
        running = [(sweep, sweep.start()) for sweep in (first, second)]
        seen_at_once: set[int] = set()

        def over() -> bool:
            seen_at_once.add(len(set(cluster.workers())))
            return all(process.poll() is not None for _, process in running)

        assert eventually(over, 900), first.log + second.log
        for sweep, process in running:
            assert process.wait() == 0, sweep.log
            assert_whole(sweep.home, sweep.name, 1)
        assert max(seen_at_once) == 2, "one of the nodes trained nothing"
        assert cluster.placement_groups() == 0
        listed = backends.files.files().find(f"{backends.files.bucket}/sweeps/first")
        assert {path.split("/")[2] for path in map(below_bucket, listed)} == {"checkpoints"}
    cluster.kill(larger)


def below_bucket(path: str) -> str:
    return path.partition("/")[2]


def test_a_node_that_comes_is_used_and_one_that_goes_costs_little(
    cluster: Nodes, backends: Backends
) -> None:
    epochs = 6
    space = space_of(trials=3, epochs=epochs)
    # Long enough for a node to come meanwhile.
    space["base"]["training"]["steps_per_epoch"] = 400
    space["budget"]["max_concurrent"] = "auto"
    space["scheduler"] = {"type": "none"}
    with (
        sweep_on(cluster, backends, "nodes", space) as sweep,
        watching(backends.files, "nodes") as seen,
    ):
        process = sweep.start()
        sweep.wait_for_epochs(1, process)
        second = cluster.add(1)

        def both_are_under_way() -> bool:
            assert process.poll() is None, sweep.log
            noted = sweep.epochs()
            ended = {trial for trial, epoch in noted if epoch == epochs}
            open_trials = {trial for trial, _ in noted} - ended
            return sum(max(e for t, e in noted if t == one) >= 2 for one in open_trials) == 2

        assert eventually(both_are_under_way, 900), sweep.log
        assert len(set(cluster.workers())) == 2
        cluster.kill(second)
        assert process.wait(900) == 0, sweep.log
        assert_whole(sweep.home, sweep.name, 3, epochs)
    # What was saved is not trained again.
    assert {key for key, reports in seen.items() if len(reports) > 1} == set()
    assert cluster.placement_groups() == 0


@pytest.mark.endurance
def test_two_workers_on_different_nodes_train_one_model(cluster: Nodes, backends: Backends) -> None:
    cluster.add(1)
    folder = cluster.folder
    settings = folder / "settings.yaml"
    base = space_of(epochs=3)["base"]
    base["resources"] = {"workers": 2, "retries": 0}
    settings.write_text(yaml.safe_dump(base))
    process = subprocess.Popen(
        [
            sys.executable, "-m", "segan_ray", "train", f"s3://{backends.files.bucket}/store",
            "--config", str(settings), "--name", "pair", "--json",
            "--home", str(folder / "home"),
        ],
        stdout=subprocess.PIPE,
        stderr=(folder / "pair.log").open("w"),
        text=True,
    )  # fmt: skip
    places: list[list[str]] = []

    def over() -> bool:
        places.append(cluster.workers())
        return process.poll() is not None

    assert eventually(over, 900)
    document, _ = process.communicate()
    assert process.returncode == 0, (folder / "pair.log").read_text()
    assert max(len(set(each)) for each in places) == 2
    told = json.loads(document)
    assert told["epochs"] == 3
    checkpoint = told["checkpoint"].removeprefix("s3://")
    assert backends.files.files().exists(f"{checkpoint}/segmentor.safetensors")
    # One model: one folder of checkpoints, whichever worker wrote it.
    trials = backends.files.files().ls(f"{backends.files.bucket}/sweeps/pair/checkpoints")
    assert [trial.rpartition("/")[2] for trial in trials] == ["000"]
