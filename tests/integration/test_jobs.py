"""Sweeps as jobs of a real cluster with tokens: run, killed, stopped, resumed; no secret seen."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import yaml
from mlflow import MlflowClient

from segan_ray.home import Home
from segan_ray.tracking.outbox import read_outbox
from tests.integration.backends import mlflow_server, postgresql
from tests.integration.job_cluster import JobCluster, job_cluster
from tests.integration.killing import eventually, space_of

pytestmark = [pytest.mark.full, pytest.mark.timeout(2400)]

TOKEN = "planted-cluster-token-71"
PASSWORD = "planted-mlflow-password-72"
KEY = "planted-aws-secret-73"
SHOWN_BY_THE_DASHBOARD = (
    "/api/jobs/",
    "/api/v0/jobs?detail=1",
    "/api/v0/actors?detail=1",
    "/api/v0/runtime_envs?detail=1",
    "/api/v0/workers?detail=1",
    "/api/v0/tasks?detail=1",
    "/nodes?view=summary",
    "/api/v0/nodes?detail=1",
)


class Servers:
    """Where records go, by addresses with passwords, and every secret that was planted."""

    def __init__(self, cluster: JobCluster, mlflow: str, planted: tuple[str, ...]) -> None:
        self.cluster, self.mlflow, self.planted = cluster, mlflow, planted

    def assert_none_in(self, text: str, where: str) -> None:
        for secret in self.planted:
            assert secret not in text, f"{where}: {text[max(0, text.index(secret) - 200) :][:400]}"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """PostgreSQL for studies, an MLflow server, and a cluster that knows both their passwords."""
    # PostgreSQL's own user must be able to look into it.
    folder = tmp_path_factory.mktemp("jobs")
    for place in (folder, folder.parent, folder.parent.parent):
        place.chmod(0o755)
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(postgresql(folder))
        backend, artifacts = f"sqlite:///{folder}/mlflow.db", str(folder / "artifacts")
        mlflow = stack.enter_context(mlflow_server(folder, backend, artifacts, {}))
        secrets = {
            "OPTUNA_STORAGE": postgres.database("studies"),
            "MLFLOW_TRACKING_URI": f"http://me:{PASSWORD}@{urlsplit(mlflow).netloc}",
            "AWS_SECRET_ACCESS_KEY": KEY,
        }
        cluster = stack.enter_context(job_cluster(folder, TOKEN, secrets))
        yield Servers(cluster, mlflow, (TOKEN, PASSWORD, KEY, postgres.password))


@pytest.fixture
def cluster(servers: Servers) -> JobCluster:
    return servers.cluster


def write_space(cluster: JobCluster, **more: int) -> Path:
    file = cluster.folder / "my space.yaml"
    file.write_text(yaml.safe_dump(space_of(**more), sort_keys=False))
    return file


def epochs(cluster: JobCluster, sweep: str) -> int:
    outbox = Home.at(cluster.folder / "segan-ray-home").sweeps / sweep / "tracking.jsonl"
    return sum(entry.kind == "epoch" for entry in read_outbox(outbox))


def driver(cluster: JobCluster, sweep: str) -> psutil.Process | None:
    """The process that runs a sweep on the cluster, once it does."""
    for process in cluster.processes():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if "segan_ray.cli.begin_job" in words and sweep in words:
                return process
    return None


def status(cluster: JobCluster, sweep: str) -> str:
    jobs = json.loads(cluster.submit("--list", "--json").stdout)["jobs"]
    return [job["status"] for job in jobs if job["sweep"] == sweep][-1]


@pytest.mark.endurance
def test_a_sweep_runs_as_a_job_and_no_secret_is_seen(servers: Servers, store: Path) -> None:
    cluster, seen = servers.cluster, set()
    space = write_space(cluster, trials=2, epochs=4)
    process = cluster.start(
        "--package", "--json", "--", "tune", store, "--space", space, "--name", "open"
    )
    over = threading.Event()
    # Not without pauses, for the job runs on the same cores; a page of the dashboard each time, for
    # it keeps what it shows.
    shown = itertools.cycle(SHOWN_BY_THE_DASHBOARD)
    while process.poll() is None and not over.wait(0.5):
        for each in cluster.processes():
            with contextlib.suppress(psutil.Error):
                line = " ".join(each.cmdline())
                seen.add(each.name())
                servers.assert_none_in(line, "process list")
        path = next(shown)
        servers.assert_none_in(cluster.get(path), path)
    out, err = process.communicate()
    assert process.returncode == 0, err
    for path in SHOWN_BY_THE_DASHBOARD:
        servers.assert_none_in(cluster.get(path), path)
    assert any("RayTrainWorker" in name or "ReusableTrainable" in name for name in seen), seen
    document = json.loads(out)
    assert (document["job"], document["status"]) == ("open-1", "SUCCEEDED")
    assert "Not sent, they hold secrets: MLFLOW_TRACKING_URI, OPTUNA_STORAGE" in err
    # The code that was sent ran, and records went where only the cluster's environment says.
    assert "Best of open" in err
    servers.assert_none_in(out + err, "what submit prints")
    servers.assert_none_in(cluster.get("/api/jobs/open-1/logs"), "log")
    assert '"open-1"' in cluster.get("/api/jobs/")
    for file in (cluster.ray / "session_latest" / "logs").rglob("*"):
        if file.is_file():
            servers.assert_none_in(file.read_text(errors="replace"), str(file))
    client = MlflowClient(servers.mlflow)
    (experiment,) = client.search_experiments(filter_string="name = 'segan-ray'")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 3
    servers.assert_none_in(str([run.to_dictionary() for run in runs]), "runs")


@pytest.mark.endurance
def test_a_job_whose_driver_is_killed_is_resumed_stopped_and_finished(
    servers: Servers, store: Path
) -> None:
    cluster = servers.cluster
    # So many trials that none of the jobs before the last comes to its end.
    space = write_space(cluster, trials=200, steps=30)
    command = ("--", "tune", store, "--space", space, "--name", "kills")
    begun = cluster.submit("--no-wait", "--json", *command)
    assert begun.returncode == 0, begun.stderr
    assert json.loads(begun.stdout)["job"] == "kills-1"
    assert eventually(lambda: epochs(cluster, "kills") >= 2, 900)

    second = cluster.submit(*command)
    assert second.returncode == 1
    assert "'kills' is run by the job kills-1 now (RUNNING)" in second.stderr
    follower = cluster.start("--follow", "kills")
    assert "Running entrypoint" in "".join(follower.stdout.readline() for _ in range(3))
    follower.send_signal(signal.SIGINT)
    _, said = follower.communicate(timeout=300)
    assert follower.returncode == 130
    assert "kills-1 goes on" in said
    assert f"End it: segan-ray submit --address {cluster.address} --stop kills-1" in said
    assert status(cluster, "kills") == "RUNNING"

    driver(cluster, "kills").kill()
    followed = cluster.submit("--follow", "kills-1", "--json")
    assert followed.returncode == 1
    assert json.loads(followed.stdout)["status"] == "FAILED"
    assert "killed by signal 9" in followed.stderr
    assert "--name kills --resume" in followed.stderr

    known = epochs(cluster, "kills")
    again = cluster.submit("--no-wait", "--json", *command, "--resume")
    assert json.loads(again.stdout)["job"] == "kills-2", again.stderr
    assert eventually(lambda: epochs(cluster, "kills") >= known + 2, 900)
    stopped = cluster.submit("--stop", "kills")
    assert "kills-2 has ended: STOPPED" in stopped.stdout, stopped.stderr
    assert driver(cluster, "kills") is None
    assert "nothing of it is lost" in cluster.get("/api/jobs/kills-2/logs")
    assert "had ended before" in cluster.submit("--stop", "kills-2").stdout
    client = MlflowClient(servers.mlflow)
    (experiment,) = client.search_experiments(filter_string="name = 'segan-ray'")
    ids, of_sweep = [experiment.experiment_id], "tags.`segan.sweep` = 'kills'"
    # As after Ctrl-C: suspended, not running, and all of it there to go on with.
    suspended = client.search_runs(ids, of_sweep)
    assert {run.info.status for run in suspended} <= {"KILLED", "SCHEDULED", "FINISHED"}

    # The next trial may have been drawn; it is among those that are left, and no more are drawn.
    trials = len(suspended)
    last = cluster.submit(*command, "--resume", "--trials", trials)
    assert last.returncode == 0, last.stderr
    assert "Best of kills" in last.stdout
    ended = client.search_runs(ids, of_sweep)
    assert len(ended) == trials + 1
    assert {run.info.status for run in ended} <= {"FINISHED", "KILLED"}


def test_a_job_that_lacks_what_was_not_sent_says_so(cluster: JobCluster, store: Path) -> None:
    space = write_space(cluster)
    result = cluster.submit(
        "--", "tune", store, "--space", space, "--name", "lacks",
        SEGAN_RAY_STORAGE="s3://me:planted-elsewhere@bucket/x",
    )  # fmt: skip
    assert result.returncode == 1
    assert "lacks-1: FAILED. SEGAN_RAY_STORAGE: set where the job was submitted" in result.stderr
    assert "planted-elsewhere" not in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("mode", "token", "words"),
    [
        ("token", "wrong", "Invalid authentication token"),
        ("disabled", "", "Missing authentication token"),
        ("token", "", "couldn't find an authentication token"),
    ],
)
def test_a_wrong_or_missing_token_is_explained(
    cluster: JobCluster, tmp_path: Path, mode: str, token: str, words: str
) -> None:
    result = cluster.submit("--list", RAY_AUTH_MODE=mode, RAY_AUTH_TOKEN=token, HOME=str(tmp_path))
    assert (result.returncode, result.stdout) == (1, "")
    assert words in result.stderr
    assert "Set RAY_AUTH_MODE=token" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_token_may_be_in_a_file_and_the_address_in_the_environment(
    cluster: JobCluster, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    result = cluster.submit(
        "--list", "--json", RAY_AUTH_TOKEN="", RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"),
        RAY_ADDRESS="127.0.0.1:6379",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert set(json.loads(result.stdout)) == {"jobs"}
