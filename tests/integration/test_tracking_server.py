"""A real MLflow server that hangs, dies and comes back, and a recording process that is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from segan_ray.config import Experiment
from segan_ray.home import Home
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.reading.sweeps import read_sweep
from segan_ray.tracking.recording.recorder import Recorder
from tests.integration.killing import eventually

pytestmark = pytest.mark.slow

METRIC = "val/dice_mean"
CARD = StoreCard("/data/store", "fingerprint", {"train": 8})


class Server:
    """An `mlflow server` of its own session, so that what it starts stops and dies with it."""

    def __init__(self, folder: Path) -> None:
        self.database = folder / "server.db"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.artifacts = folder / "served"
        self._log = (folder / "server.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1",
            "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.database}",
            "--artifacts-destination", str(self.artifacts),
        ]  # fmt: skip
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
        self._process = subprocess.Popen(
            command, stdout=self._log, stderr=self._log, start_new_session=True,
            env=environment | quiet,
        )  # fmt: skip
        assert eventually(self._healthy, within_s=900)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _healthy(self) -> bool:
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(f"{self.uri}/health", timeout=5).status == 200
        return False


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    served = Server(tmp_path)
    # The outcome of a request that is given up early is unknown.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served.uri)
    try:
        served.start()
        yield served
    finally:
        served.kill()


def record(recorder: Recorder, trial: str, epochs: range) -> None:
    for epoch in epochs:
        recorder.log_epoch(trial, epoch, {METRIC: epoch / 100, "system/cpu": 1.0})


def steps(database: Path) -> dict[str, list[int]]:
    """Return the steps of METRIC by trial, one entry a row: a double shows as two."""
    with contextlib.closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(
            "SELECT tags.value, metrics.step FROM metrics JOIN tags USING (run_uuid)"
            " JOIN runs USING (run_uuid) WHERE tags.key = 'segan.trial' AND metrics.key = ?"
            " AND runs.lifecycle_stage = 'active' ORDER BY 1, 2",
            (METRIC,),
        ).fetchall()
    found: dict[str, list[int]] = {}
    for trial, step in rows:
        found.setdefault(trial, []).append(step)
    return found


def test_records_outlive_a_server_that_hangs_and_dies(server: Server, tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    folder = home.sweeps / "s"
    recorder = Recorder.for_sweep(
        home, "s", CARD, METRIC, "max", "name: s\n", folder, keep_checkpoints=1
    )
    recorder.start_trial("000", Experiment(), {})
    record(recorder, "000", range(1, 6))
    assert eventually(lambda: recorder.uploader.waiting == 0, within_s=900)

    server.signal(signal.SIGSTOP)
    recorder.start_trial("001", Experiment(), {})
    record(recorder, "001", range(1, 31))
    record(recorder, "000", range(6, 11))
    # Every call has returned while the server still hangs.
    assert recorder.uploader.waiting == 36
    assert eventually(lambda: recorder.uploader._failing, within_s=900)
    server.signal(signal.SIGCONT)
    assert eventually(lambda: recorder.uploader.waiting == 0, within_s=900)

    server.kill()
    recorder.start_trial("002", Experiment(), {})
    record(recorder, "002", range(1, 31))
    for trial in ("000", "001", "002"):
        checkpoint = folder / "checkpoints" / trial / "checkpoint_1"
        checkpoint.mkdir(parents=True)
        (checkpoint / "state.json").write_text("{}")
        (checkpoint / "validation.png").write_bytes(b"PNG")
        recorder.end_trial(trial, "completed", None, str(checkpoint))
    # Two of the trials fell out of the best one.
    assert recorder.uploader.waiting == 36
    server.start()
    recorder.close("finished")

    assert recorder.uploader.waiting == 0
    expected = {"000": range(1, 11), "001": range(1, 31), "002": range(1, 31)}
    assert steps(server.database) == {trial: list(some) for trial, some in expected.items()}
    kept = [path.parents[2].name for path in server.artifacts.glob("**/checkpoint/state.json")]
    best = read_sweep(home, "s").best
    assert best is not None
    assert kept == [best.mlflow_run]
    assert len(list(server.artifacts.glob("**/overlays/validation.png"))) == 3
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {best.trial}


def test_what_waited_at_the_end_is_written_by_the_next_resume(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = Home.at(tmp_path / "home")
    folder = home.sweeps / "s"
    recorder = Recorder.for_sweep(home, "s", CARD, METRIC, "max", "name: s\n", folder)
    server.kill()
    recorder.start_trial("000", Experiment(), {})
    record(recorder, "000", range(1, 6))
    recorder.suspend(patience_s=0)
    assert "8 records of 's' wait in" in caplog.text
    server.start()
    recorder = Recorder.for_sweep(home, "s", CARD, METRIC, "max", "name: s\n", folder, resume=True)
    assert steps(server.database) == {"000": [1, 2, 3, 4, 5]}
    assert read_sweep(home, "s").status == "running"
    recorder.close("stopped")
    record_of = read_sweep(home, "s")
    assert (record_of.status, record_of.trials[0].status) == ("stopped", "stopped")


RECORDING = f"""
import sys
from pathlib import Path
from segan_ray.config import Experiment
from segan_ray.home import Home
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.recording.recorder import Recorder

home = Home.at(Path(sys.argv[1]))
recorder = Recorder.for_sweep(
    home, "s", StoreCard("/data/store", "fingerprint", {{}}), "{METRIC}", "max", "name: s",
    home.sweeps / "s", resume=True,
)
for trial in ("000", "001"):
    recorder.start_trial(trial, Experiment(), {{}})
for epoch in range(1, 41):
    for trial in ("000", "001"):
        recorder.log_epoch(trial, epoch, {{"{METRIC}": epoch / 100}})
    print(epoch, flush=True)
    sys.stdin.readline()
for trial in ("000", "001"):
    recorder.end_trial(trial, "completed", None, None)
recorder.close("finished")
"""


@pytest.mark.endurance
def test_a_process_killed_again_and_again_leaves_every_epoch_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = Home.at(tmp_path / "home")
    command = [sys.executable, "-c", RECORDING, str(home.folder)]
    for lasts in (1, 7, 23, None):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == lasts:
                process.kill()
                break
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write("\n")
                process.stdin.flush()
        process.communicate()
        assert process.returncode == (0 if lasts is None else -signal.SIGKILL)
    every = list(range(1, 41))
    assert steps(home.tracking_database) == {"000": every, "001": every}
    record_of = read_sweep(home, "s")
    assert record_of.status == "finished"
    assert [one.status for one in record_of.trials] == ["completed", "completed"]
