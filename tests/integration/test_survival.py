"""Whatever is killed, a sweep has exactly its trials in the end, each recorded once.

Real processes, really killed. One of each kind here, a node in ``test_real_cluster``; two at once,
at random moments and again and again in the tests marked ``endurance``.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from segan_ray.orchestration.tune.sweep_lock import is_held
from segan_ray.tracking.reading.sweeps import read_sweep
from tests.integration.killing import (
    CHANNEL,
    CONTROLLER,
    EPOCHS,
    TRAINABLE,
    WORKER,
    Killable,
    assert_nothing_runs,
    assert_same_search,
    assert_whole,
    eventually,
    family,
    kill_one,
    kill_one_if_any,
    runs_of,
    space_of,
    watching_checkpoints,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture
def sweep(store: Path, tmp_path: Path) -> Iterator[Killable]:
    killable = Killable(tmp_path, store)
    yield killable
    killable.end_all()


def assert_good(sweep: Killable) -> None:
    assert_whole(sweep.home, sweep.name, sweep.space["budget"]["trials"])
    assert_same_search(sweep.home, sweep.name, sweep.space)


def of_two_trials() -> dict:
    """A space in which what the first trial is told to have reached leads to the second."""
    space = space_of(trials=2)
    space["sampler"]["startup_trials"] = 1
    return space


def trained_twice(seen: dict[tuple[str, str], set[int]]) -> list[tuple[str, str]]:
    return [epoch for epoch, inodes in seen.items() if len(inodes) > 1]


def test_workers_and_the_sweeps_own_process_may_be_killed(sweep: Killable) -> None:
    """One sweep, so that a kill of each kind costs no new cluster."""
    with watching_checkpoints(sweep.sweep_folder / "checkpoints") as seen:
        process = sweep.start()
        root = psutil.Process(process.pid)
        for epochs, title in ((2, WORKER), (5, TRAINABLE), (7, CONTROLLER)):
            sweep.wait_for_epochs(epochs, process)
            kill_one(root, title)
        sweep.wait_for_epochs(9, process)
        assert "RUNNING" in {run.info.status for run in runs_of(sweep.home, sweep.name)}
        sweep.end(process, signal.SIGKILL)
        assert read_sweep(sweep.home, sweep.name).status == "interrupted"

        process = sweep.start()
        sweep.wait_for_epochs(12, process)
        # SIGTERM is what Slurm and Ray's jobs send: test_cluster_slurm.py and test_jobs.py.
        assert sweep.end(process, signal.SIGINT) == 128 + signal.SIGINT
        assert f"--name {sweep.name} --resume" in sweep.log
        assert_nothing_runs(sweep.home, sweep.name)
        record = read_sweep(sweep.home, sweep.name)
        assert record.status == "interrupted"
        assert {trial.status for trial in record.trials} <= {"pending", "completed", "stopped"}

        process = sweep.start()
        assert process.wait(900) == 0, sweep.log
    # None was trained again that had its checkpoint.
    assert trained_twice(seen) == []
    assert_good(sweep)


@pytest.mark.endurance
def test_two_sweeps_share_a_fresh_home_and_one_name_is_run_once(
    store: Path, tmp_path: Path
) -> None:
    shared = {"folder": tmp_path, "store": store, "space": space_of(trials=2, epochs=3)}
    first, second = Killable(name="one", **shared), Killable(name="two", **shared)
    try:
        both = [first.start(), second.start()]
        assert eventually(lambda: is_held(first.sweep_folder) or both[0].poll() is not None, 900)
        assert both[0].poll() is None, first.log
        again = first.start()
        assert again.wait(900) == 1
        assert "'one' is running now" in first.log
        assert [process.wait(900) for process in both] == [0, 0], first.log
    finally:
        first.end_all()
        second.end_all()
    for sweep in (first, second):
        assert_whole(sweep.home, sweep.name, 2, epochs=3)
        assert_same_search(sweep.home, sweep.name, sweep.space)


@pytest.mark.endurance
@pytest.mark.parametrize("scheduler", [{}, {"grace_period": 2, "promote": True}])
def test_a_node_of_two_may_be_lost(
    sweep: Killable, monkeypatch: pytest.MonkeyPatch, scheduler: dict
) -> None:
    sweep.space = space_of(trials=4, concurrent=2)
    sweep.space["scheduler"] |= scheduler
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-this-test-alone")
    # Ray takes loopback addresses as they are, for every process of the test.
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    with two_nodes(sweep.folder) as (address, kill_second_node):
        sweep.environment = {"RAY_ADDRESS": address}
        process = sweep.start()
        sweep.wait_for_epochs(3, process)
        kill_second_node()
        assert process.wait(900) == 0, sweep.log
        assert_whole(sweep.home, sweep.name, 4)
        assert placement_groups(address) == 0


@pytest.mark.endurance
def test_the_tracking_server_may_be_away(sweep: Killable) -> None:
    sweep.space = of_two_trials()
    with mlflow_server(sweep.folder) as (uri, restart):
        sweep.environment = {"MLFLOW_TRACKING_URI": uri}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", uri)
            process = sweep.start()
            sweep.wait_for_epochs(2, process)
            with restart():
                # Training goes on while nothing answers.
                sweep.wait_for_epochs(2 + EPOCHS, process)
            assert process.wait(900) == 0, sweep.log
            assert_good(sweep)


@pytest.mark.full
@pytest.mark.endurance
def test_a_full_disk_ends_a_sweep_that_goes_on_when_there_is_room(sweep: Killable) -> None:
    sweep.space = of_two_trials()
    with small_disk(sweep.folder / "home", megabytes=60) as disk:
        process = sweep.start()
        sweep.wait_for_epochs(2, process)
        ballast = disk / "ballast"
        fill(ballast)
        assert process.wait(900) == 1, sweep.log
        assert "space" in sweep.log
        assert f"--name {sweep.name} --resume" in sweep.log
        ballast.unlink()
        process = sweep.start()
        assert process.wait(900) == 0, sweep.log
        assert_good(sweep)


@pytest.mark.endurance
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(6))
def test_killed_again_and_again_at_random(sweep: Killable, seed: int) -> None:
    rng = random.Random(seed)
    sweep.space = space_of(trials=4)
    if seed % 2:
        sweep.space["scheduler"] |= {"grace_period": 2, "promote": True}
    process = sweep.start()
    for _ in range(6):
        known = len(sweep.epochs())
        eventually(lambda p=process, n=known: p.poll() is not None or len(sweep.epochs()) > n, 200)
        # Somewhere within the seconds that follow, which may be any part of a trial's life.
        eventually(lambda p=process: p.poll() is not None, rng.uniform(0, 6))
        if process.poll() is not None:
            break
        kind = rng.choice([WORKER, TRAINABLE, CONTROLLER, CHANNEL, None])
        if kind is not None:
            kill_one_if_any(psutil.Process(process.pid), kind)
            continue
        sweep.end(process, rng.choice([signal.SIGKILL, signal.SIGINT, signal.SIGTERM]))
        process = sweep.start()
    process.wait(900)
    if process.returncode != 0:
        process = sweep.start()
        assert process.wait(900) == 0, sweep.log
    assert_good(sweep)


def fill(ballast: Path) -> None:
    """Write until the disk is full."""
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as stream:
        while True:
            stream.write(b"0" * 2**16)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def two_nodes(folder: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A Ray cluster of two nodes with a core each; yields its address and what kills one."""
    port = free_port()
    program = Path(__file__).with_name("two_nodes.py")
    quick = {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}
    cache = {"SEGAN_RAY_CACHE": str(folder / "cache")}
    nodes = subprocess.Popen(
        [sys.executable, str(program), str(port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **quick, **cache},
    )  # fmt: skip
    assert nodes.stdin is not None
    assert nodes.stdout is not None
    said, told = nodes.stdout, nodes.stdin

    def wait_for(word: str) -> None:
        assert word in iter(lambda: said.readline().strip() or None, None), word

    def kill() -> None:
        told.write("kill it\n")
        told.flush()
        wait_for("killed")

    try:
        wait_for("ready")
        yield f"127.0.0.1:{port}", kill
    finally:
        below = family(psutil.Process(nodes.pid))
        nodes.communicate("end\n", timeout=300)
        for each in below:
            with_no_process(each)


def with_no_process(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def ask_ray(address: str, question: str) -> int:
    """Ask a cluster something in a process of its own; -1 if it does not answer."""
    program = f"import ray; ray.init('{address}', logging_level='ERROR'); {question}"
    command = [sys.executable, "-c", program]
    asked = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
    return int(asked.stdout.split()[-1]) if asked.returncode == 0 else -1


def placement_groups(address: str) -> int:
    return ask_ray(
        address,
        "print(sum(g['state'] != 'REMOVED' for g in ray.util.placement_group_table().values()))",
    )


@contextmanager
def mlflow_server(folder: Path):
    """An MLflow server on loopback, and what takes it away for a while."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--workers", "1",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    log = (folder / "server.log").open("a")
    running: list[subprocess.Popen] = []

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=2) as reply:
                return reply.status == 200
        except OSError:
            return False

    def start() -> None:
        # Its seven consumers of jobs, which nobody gives it, take longer to start than it does.
        quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        running.append(subprocess.Popen(command, env=quiet, stdout=log, stderr=log))
        assert eventually(answers, 900), (folder / "server.log").read_text()

    def kill() -> None:
        process = running.pop()
        for each in [*family(psutil.Process(process.pid)), psutil.Process(process.pid)]:
            with_no_process(each)
        process.wait()

    @contextmanager
    def restart():
        kill()
        yield
        start()

    start()
    try:
        yield uri, restart
    finally:
        kill()
        log.close()


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own, of that size."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    refused = subprocess.run(mount, check=False, capture_output=True).returncode != 0
    if refused:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
