"""The Slurm script under a real Slurm: a Ray cluster of two nodes, secrets, a second start."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from segan_ray.errors import SeganRayError
from segan_ray.home import Home
from segan_ray.tracking.reading.sweeps import SweepRecord, read_sweep
from tests.integration.slurm import Slurm, missing, slurm

pytestmark = [
    pytest.mark.endurance,
    pytest.mark.timeout(2700),
    pytest.mark.skipif(bool(missing()), reason=f"no Slurm here: {missing()}"),
]

SCRIPT = Path(__file__).parents[2] / "cluster" / "slurm" / "segan-ray.sbatch"
EPOCHS = 3
TRIALS = 2
SPACE = {
    "name": "slurm",
    "objective": {"metric": "val/dice_mean", "mode": "max"},
    "base": {
        "segmentor": {"base_width": 4, "depth": 2},
        "critic": {"base_width": 4, "depth": 1},
        "training": {"epochs": EPOCHS, "steps_per_epoch": 8, "batch_size": 4, "crop": 48},
        # A node gives one CPU, so that a trial trains on both or not at all.
        "resources": {"workers": 2, "cpus_per_worker": 1},
    },
    "parameters": {"segmentor.lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}},
    "sampler": {"type": "random", "seed": 0},
    "scheduler": {"type": "none"},
    "budget": {"trials": TRIALS, "max_concurrent": 1},
}


APPTAINER = """\
#!/bin/sh
# In the place of Apptainer: "exec IMAGE PROGRAM ARGUMENTS" runs the program of an environment.
test "$1" = exec && test -e "$2" || exit 1
program=$3
shift 3
exec {programs}/$program "$@"
"""

ANSWER = """
import sys, urllib.error, urllib.request
url, *tokens = sys.argv[1:]
headers = {"Authorization": f"Bearer {token}" for token in tokens}
try:
    print(urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30).status)
except urllib.error.HTTPError as refused:
    print(refused.code)
except OSError as away:
    print(away)
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Slurm]:
    with slurm(tmp_path) as running:
        yield running


@pytest.mark.parametrize("programs", ["environment", "image"])
def test_a_sweep_is_suspended_at_its_time_limit_and_goes_on(
    cluster: Slurm, store: Path, programs: str
) -> None:
    home = Home.at(cluster.folder / "home")
    job = submit(cluster, store, home, **where(cluster.folder, programs))

    eventually(lambda: "on 2 nodes" in log(cluster), cluster, job)
    assert_guarded(cluster, home, job)
    # At once, before the sweep has ended by itself.
    eventually(lambda: epochs(home) >= 1, cluster, job)
    cluster("scancel", "--batch", "--signal=USR1", job)

    eventually(lambda: cluster.job(job)["Restarts"] == "1", cluster, job)
    assert not ray_starts(job)
    # Slurm lets a job that was queued again wait for two minutes. In the second of its end, though,
    # slurmd would take its new start for the old one.
    ended = time.monotonic()
    eventually(lambda: time.monotonic() > ended + 2, cluster, job)
    cluster("scontrol", "update", f"JobId={job}", "StartTime=now")
    eventually(lambda: cluster.job(job)["JobState"] == "COMPLETED", cluster, job)

    record = read_sweep(home, "slurm")
    assert record.status == "finished"
    assert [trial.status for trial in record.trials] == ["completed"] * TRIALS
    assert [trial.epochs for trial in record.trials] == [EPOCHS] * TRIALS
    output = log(cluster)
    assert output.count("on 2 nodes") == 2, "it did not start twice"
    assert "parked; the job goes back to the queue" in output
    assert not (home.folder / "slurm" / job).exists(), "the token is left"
    assert not Path(f"/tmp/segan-ray-{job}").exists()
    assert not ray_starts(job)


def where(folder: Path, programs: str) -> dict[str, str]:
    """The variables that say where segan-ray is: an environment, or an image of Apptainer."""
    environment = Path(sys.executable).parents[1]
    if programs == "environment":
        return {"SEGAN_RAY_VENV": str(environment)}
    (folder / "segan ray.sif").touch()
    apptainer = folder / "bin" / "apptainer"
    apptainer.parent.mkdir()
    apptainer.write_text(APPTAINER.format(programs=environment / "bin"))
    apptainer.chmod(0o755)
    return {
        "SEGAN_RAY_SIF": str(folder / "segan ray.sif"),
        "PATH": f"{apptainer.parent}{os.pathsep}{os.environ['PATH']}",
    }


def submit(cluster: Slurm, store: Path, home: Home, **programs: str) -> str:
    space = cluster.folder / "space.yaml"
    space.write_text(yaml.safe_dump(SPACE))
    return cluster(
        *("sbatch", "--parsable", "--nodes=2", "--cpus-per-task=1", "--mem=2000", "--time=20"),
        f"--output={cluster.folder}/job.out",
        *(str(SCRIPT), str(store), "--space", str(space), "--name", "slurm"),
        SEGAN_RAY_HOME=str(home.folder),
        **programs,
        SEGAN_RAY_SECRETS=str(cluster.folder),
        SEGAN_RAY_CACHE=str(cluster.folder / "cache"),
    ).split(";")[0]


def log(cluster: Slurm) -> str:
    output = cluster.folder / "job.out"
    return output.read_text() if output.exists() else ""


def eventually(condition: Callable[[], bool], cluster: Slurm, job: str) -> None:
    end = time.monotonic() + 600
    while not condition():
        assert cluster.job(job)["JobState"] not in {"FAILED", "CANCELLED"}, log(cluster)[-4000:]
        assert time.monotonic() < end, log(cluster)[-4000:]
        time.sleep(0.5)


def epochs(home: Home) -> int:
    try:
        record: SweepRecord = read_sweep(home, "slurm")
    except SeganRayError:
        return 0
    return sum(trial.epochs for trial in record.trials)


def ray_starts(job: str) -> list[list[str]]:
    """The command lines of this job's ``ray start``s."""
    found = []
    for process in psutil.process_iter():
        try:
            line, environment = process.cmdline(), process.environ()
        except psutil.Error:
            continue
        here = environment.get("RAY_TMPDIR") == f"/tmp/segan-ray-{job}"
        if here and line[1:2] and Path(line[1]).name == "ray" and line[2] == "start":
            found.append(line)
    return found


def assert_guarded(cluster: Slurm, home: Home, job: str) -> None:
    """The token is its owner's alone, on no command line, and asked for."""
    file = home.folder / "slurm" / job / "token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = file.read_text()
    assert len(token) == 64
    for process in psutil.process_iter(["cmdline"]):
        assert not any(token in word for word in process.info["cmdline"] or ())

    (dashboard,) = {
        word.partition("=")[2]
        for line in ray_starts(job)
        for word in line
        if word.startswith("--dashboard-port=")
    }
    url = f"http://127.0.0.1:{dashboard}/api/jobs/"
    eventually(lambda: cluster("python3", "-c", ANSWER, url) == "401", cluster, job)
    assert cluster("python3", "-c", ANSWER, url, token) == "200"
