"""Sweeps as processes that can be killed, and what must be found of them afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import psutil
import yaml
from mlflow import MlflowClient
from optuna.trial import TrialState

from segan_ray.home import Home
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.search.study.sweep_study import SweepStudy
from segan_ray.tracking.outbox import read_outbox
from segan_ray.tracking.reading.sweeps import read_sweep

EPOCHS = 6
TRIALS = 3
WORKER, CONTROLLER = ("ray::RayTrainWorker",), ("ray::TrainController",)
TRAINABLE = ("ray::ReusableTrainable", "ray::ResourceTrainable")
CHANNEL = ("ray::TrialChannel",)
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""These do nothing for a sweep, and look for their lost cluster for a minute before they go."""


def space_of(
    trials: int = TRIALS, epochs: int = EPOCHS, concurrent: int = 1, steps: int = 6
) -> dict:
    """A space whose trials take seconds; one at a time, so that points can be foretold."""
    return {
        "name": "kills",
        "base": {
            "segmentor": {"base_width": 4, "depth": 2},
            "critic": {"base_width": 4, "depth": 1},
            "training": {"epochs": epochs, "steps_per_epoch": steps, "batch_size": 4, "crop": 48},
            "resources": {"retries": 5},
        },
        "parameters": {
            "segmentor.lr": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
            "loss.scale_weights": {"type": "floats", "length": 2, "low": 0.1, "high": 4},
        },
        "sampler": {"type": "tpe", "seed": 1, "startup_trials": 2},
        "scheduler": {"type": "asha", "grace_period": min(4, epochs - 1), "reduction_factor": 2},
        "budget": {"trials": trials, "max_concurrent": concurrent},
        "enqueue": [],
    }


@dataclass
class Killable:
    """One sweep under a home of its own, started and started again as a user would."""

    folder: Path
    store: Path | str
    name: str = "sweep"
    space: dict = field(default_factory=space_of)
    environment: dict[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = ("-m", "segan_ray")
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    agents: list[psutil.Process] = field(default_factory=list)
    """Of clusters whose process was ended."""

    @property
    def home(self) -> Home:
        return Home.at(self.folder / "home")

    @property
    def sweep_folder(self) -> Path:
        return self.home.sweeps / self.name

    def start(self, *more: str) -> subprocess.Popen[str]:
        """Start ``segan-ray tune --resume`` as a process of its own."""
        file = self.folder / "space.yaml"
        file.write_text(yaml.safe_dump(self.space, sort_keys=False))
        command = [
            sys.executable, *self.program, "tune", str(self.store), "--space", str(file),
            "--name", self.name, "--home", str(self.home.folder), "--resume", *more,
        ]  # fmt: skip
        log = (self.folder / f"{self.name}.log").open("a")
        cache = {"SEGAN_RAY_CACHE": str(self.folder / "cache")}
        environment = {**os.environ, **cache, **self.environment}
        process = subprocess.Popen(command, stdout=log, stderr=log, text=True, env=environment)
        self.started.append(process)
        return process

    def end(self, process: subprocess.Popen[str], number: int) -> int:
        """End a sweep's process; nothing that it started works on. Returns its exit code."""
        root = psutil.Process(process.pid)
        agents = titled(root, AGENTS)
        below = [each for each in family(root) if each not in agents]
        process.send_signal(number)
        code = process.wait(900)
        _, left = psutil.wait_procs(below, 90)
        assert left == []
        self.agents += agents
        return code

    def end_all(self) -> None:
        """End what is still running; nothing that it started outlives it."""
        for process in self.started:
            if process.poll() is None:
                self.end(process, signal.SIGKILL)
        _, left = psutil.wait_procs(self.agents, 90)
        assert left == []

    @property
    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text()

    def epochs(self) -> list[tuple[str, int]]:
        """Every epoch that the sweep has noted: (trial, epoch), in order."""
        return [
            (str(entry.trial), entry.facts["epoch"])
            for entry in read_outbox(self.sweep_folder / "tracking.jsonl")
            if entry.kind == "epoch"
        ]

    def wait_for_epochs(self, count: int, process: subprocess.Popen[str], limit_s: float = 900):
        """Wait until ``count`` epochs are noted."""

        def there() -> bool:
            assert process.poll() is None, f"the sweep ended early: {self.log}"
            return len(self.epochs()) >= count

        assert eventually(there, limit_s), f"no {count} epochs in {limit_s} s: {self.log}"

    def stand_still_once_recorded(self, process: subprocess.Popen[str]) -> None:
        """Send SIGSTOP at a moment when MLflow has every record of this home.

        Those that it has not taken stay in the outbox, which another home does not see.
        """
        outbox = self.sweep_folder / "tracking.jsonl"
        taken = outbox.with_name(f"{outbox.name}.acknowledged")

        def still() -> bool:
            process.send_signal(signal.SIGSTOP)
            if taken.exists() and int(taken.read_text()) == outbox.stat().st_size:
                return True
            process.send_signal(signal.SIGCONT)
            return False

        assert eventually(still, 900), self.log


def eventually(holds: Callable[[], bool], within_s: float = 300.0) -> bool:
    """Tell whether something comes true in time, looking twenty times a second."""
    never = threading.Event()
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        never.wait(0.05)
    return True


def family(root: psutil.Process) -> list[psutil.Process]:
    """The processes that ``root`` started, and those they did."""
    try:
        return root.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def titled(root: psutil.Process, title: tuple[str, ...]) -> list[psutil.Process]:
    """The processes below ``root`` that Ray has given this title."""
    found = []
    for process in family(root):
        try:
            if process.cmdline() and process.cmdline()[0].startswith(title):
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill_one(root: psutil.Process, title: tuple[str, ...]) -> int:
    """Kill a process of that title as soon as there is one."""
    killed = kill_one_if_any(root, title)
    assert killed is not None, f"no {title} came up"
    return killed


def kill_one_if_any(root: psutil.Process, title: tuple[str, ...]) -> int | None:
    """Kill a process of that title as soon as there is one, unless ``root`` ends before."""

    def ended() -> bool:
        return not root.is_running() or root.status() == psutil.STATUS_ZOMBIE

    found: list[psutil.Process] = []
    assert eventually(lambda: bool(found.extend(titled(root, title)) or found or ended()), 900)
    if not found:
        return None
    with contextlib.suppress(psutil.NoSuchProcess):
        found[0].send_signal(signal.SIGKILL)
    return found[0].pid


@contextmanager
def watching_checkpoints(folder: Path) -> Iterator[dict[tuple[str, str], set[int]]]:
    """See every checkpoint folder that comes to be: ``{(trial, epoch): inodes}``.

    Two inodes for one epoch mean that it was trained twice.
    """
    seen: dict[tuple[str, str], set[int]] = {}
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            for path in folder.glob("*/epoch-*"):
                try:
                    inode = path.stat().st_ino
                except FileNotFoundError:
                    continue
                seen.setdefault((path.parent.name, path.name), set()).add(inode)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def assert_nothing_runs(home: Home, name: str) -> None:
    """No MLflow run and no Optuna trial of the sweep is left RUNNING."""
    assert "RUNNING" not in {run.info.status for run in runs_of(home, name)}
    study = optuna.load_study(study_name=name, storage=open_storage(home))
    assert TrialState.RUNNING not in {trial.state for trial in study.trials}


def assert_whole(home: Home, name: str, trials: int, epochs: int = EPOCHS) -> None:
    """The sweep has exactly its trials, each recorded once and without gap, and nothing runs."""
    record = read_sweep(home, name)
    assert record.status == "finished"
    assert sorted(trial.trial for trial in record.trials) == [f"{n:03d}" for n in range(trials)]
    assert {trial.status for trial in record.trials} <= {"completed", "stopped"}
    runs = runs_of(home, name)
    assert len(runs) == trials + 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    client = MlflowClient(home.tracking_uri)
    study = optuna.load_study(study_name=name, storage=open_storage(home))
    assert len(study.trials) == trials
    for trial in record.trials:
        history = client.get_metric_history(trial.mlflow_run, "val/dice_mean")
        assert [point.step for point in history] == list(range(1, trial.epochs + 1))
        told = study.trials[int(trial.trial)]
        assert told.state == (
            TrialState.COMPLETE if trial.status == "completed" else TrialState.PRUNED
        )
        assert told.intermediate_values == {point.step: point.value for point in history}
        if trial.status == "completed":
            assert trial.epochs == epochs


def assert_same_search(home: Home, name: str, space: dict) -> None:
    """The points are those that one process would have drawn, trial by trial."""
    known = optuna.load_study(study_name=name, storage=open_storage(home)).trials
    foretold = SweepStudy.create(name, SearchSpace.model_validate(space), None)
    while point := foretold.promote() or (foretold.ask() if foretold.asked < len(known) else None):
        trial = known[point.number]
        assert dict(point.params) == trial.user_attrs["drawn"]
        for epoch, value in sorted(trial.intermediate_values.items()):
            verdict = foretold.report(point.number, epoch, value)
            if verdict == "pause":
                break
        else:
            done = trial.state == TrialState.COMPLETE
            foretold.tell(point.number, "completed" if done else "stopped")


def runs_of(home: Home, name: str) -> list:
    client = MlflowClient(home.tracking_uri)
    experiment = client.get_experiment_by_name("segan-ray")
    return client.search_runs([experiment.experiment_id], f"tags.`segan.sweep` = '{name}'")
