"""The doctor, and what it keeps tune from, on a real cluster whose nodes have their own disks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.integration.killing import Killable, eventually, space_of
from tests.integration.nodes import Nodes, nodes

pytestmark = [pytest.mark.full, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A head and a node of another host."""
    with nodes(tmp_path_factory.mktemp("cluster"), {}) as cluster:
        cluster.add(1, ip="127.0.0.2")
        yield cluster


def segan_ray(cluster: Nodes, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "segan_ray", *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
        env={**os.environ, **cluster.environment, **environment},
    )


def doctor(cluster: Nodes, *words: str, **environment: str) -> tuple[int, dict[str, dict]]:
    done = segan_ray(cluster, "doctor", *words, "--json", **environment)
    document = json.loads(done.stdout)
    assert document["ok"] is all(check["ok"] for check in document["checks"])
    assert (done.returncode == 0) is document["ok"], done.stderr
    return done.returncode, {
        f"{check['name']} {check['node']}".strip(): check for check in document["checks"]
    }


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder that every node sees."""
    return str(tmp_path_factory.mktemp("shared"))


def test_a_cluster_in_order(cluster: Nodes, store: Path, shared: str, tmp_path: Path) -> None:
    # A name of this machine that is not loopback; what answers there is not asked of every host.
    words = (str(store), "--home", str(tmp_path))
    with_server = {"SEGAN_RAY_STORAGE": shared, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/x.db"}
    code, checks = doctor(cluster, *words, **with_server)
    bad = {name for name, check in checks.items() if not check["ok"]}
    # All but the records: a file of one machine.
    assert (code, bad) == (1, {"tracking"}), checks
    assert checks["cluster"]["detail"] == "2 nodes on 2 hosts"
    for name in ("clock 127.0.0.2", "network 127.0.0.2", "GPUs 127.0.0.2", "store", "storage"):
        assert checks[name]["ok"], checks
    assert checks["version of ray"]["detail"].endswith("everywhere")
    assert list(Path(shared).iterdir()) == []


def test_faults_are_named_with_their_node(cluster: Nodes, store: Path, tmp_path: Path) -> None:
    hidden = cluster.folder / "store"
    shutil.copytree(store, hidden)
    code, checks = doctor(
        cluster, str(hidden), "--home", str(cluster.folder / "home"),
        MLFLOW_TRACKING_URI="http://user:hunter2hunter2@localhost:1",
        OPTUNA_STORAGE="postgresql://user:hunter2hunter2@localhost:1/x",
    )  # fmt: skip
    assert code == 1
    assert "another server on every host" in checks["tracking"]["detail"]
    assert not checks["tracking answers"]["ok"]
    assert not checks["studies answers"]["ok"]
    assert "127.0.0.2 cannot connect" in checks["studies from the nodes"]["detail"]
    assert "is a folder of its own on" in checks["storage"]["detail"]
    assert "127.0.0.2" in checks["storage"]["detail"]
    assert not checks["store 127.0.0.2"]["ok"]
    assert "hunter2" not in json.dumps(checks)


@pytest.mark.endurance
@pytest.mark.parametrize("command", ["tune", "train"])
def test_nothing_is_begun_on_a_cluster_that_would_lose_it(
    cluster: Nodes, store: Path, shared: str, tmp_path: Path, command: str
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump(space_of()))
    words = ["--space", str(space)] if command == "tune" else []
    home = tmp_path / "home"
    done = segan_ray(
        cluster, command, str(store), *words, "--name", "x", "--home", str(home),
        SEGAN_RAY_STORAGE=shared,
    )  # fmt: skip
    assert done.returncode == 1
    assert "not fit for a sweep" in done.stderr
    assert "Set MLFLOW_TRACKING_URI to a server" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (home / "mlflow.db").exists()
    assert not (home / "optuna.db").exists()


@pytest.mark.endurance
def test_a_node_that_comes_late_and_shares_no_disk_trains_nothing(
    store: Path, tmp_path: Path
) -> None:
    # The head was the only node that could be asked when the sweep began.
    with nodes(tmp_path, {}) as cluster:
        sweep = Killable(tmp_path, store, space=space_of(trials=1), environment=cluster.environment)
        sweep.space["base"]["resources"]["retries"] = 0
        process = sweep.start()
        log = tmp_path / "sweep.log"
        assert eventually(lambda: "Waiting for nodes" in log.read_text(), 900), log.read_text()
        cluster.add(1, ip="127.0.0.2")
        assert process.wait(900) == 1
    assert "checkpoints is not there on 127.0.0.2" in log.read_text()
    assert "Set SEGAN_RAY_STORAGE" in log.read_text()
    assert list((sweep.sweep_folder / "checkpoints").iterdir()) == []


@pytest.mark.endurance
def test_a_node_that_died_is_no_riddle(cluster: Nodes, shared: str, tmp_path: Path) -> None:
    third = cluster.add(1, ip="127.0.0.3")
    cluster.kill(third)
    _, checks = doctor(cluster, "--home", str(tmp_path), SEGAN_RAY_STORAGE=shared)
    assert checks["cluster"]["detail"] == "2 nodes on 2 hosts"


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", "Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"),
        ("wrong", "the one of this process is another"),
    ],
)
def test_a_cluster_that_asks_for_a_token(
    cluster: Nodes, tmp_path: Path, token: str, words: str
) -> None:
    done = segan_ray(
        cluster, "doctor", "--home", str(tmp_path), RAY_AUTH_TOKEN=token, HOME=str(tmp_path)
    )
    assert done.returncode == 1
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.endurance
def test_a_machine_by_itself(store: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "segan_ray", "doctor", str(store), "--home", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    lines = done.stdout.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    assert "this machine by itself" in lines[0]
    assert any("store: " in line for line in lines)
    assert any("version of torch: " in line for line in lines)
