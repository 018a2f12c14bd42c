"""Stopping and deleting sweeps from outside: real records, no Ray."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient

from segan_ray.config import Experiment
from segan_ray.errors import SweepError
from segan_ray.filesystem import locks
from segan_ray.home import Home
from segan_ray.orchestration.tune.end_sweep import Stopped, delete, plan_deletion, size_of, stop
from segan_ray.orchestration.tune.sweep_lock import LOCK, held, request_stop, stop_requested
from segan_ray.search.storage import lease
from segan_ray.search.storage.lease import holder_of, lease_of, leased
from segan_ray.search.storage.lease_record import HELD
from segan_ray.search.storage.recorded_locations import settle_records
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.search.study.sweep_study import SweepStudy, study_exists
from segan_ray.tracking.client.connection import EXPERIMENT
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.reading.sweeps import name_is_taken, read_sweep
from segan_ray.tracking.recording.recorder import Recorder
from tests.unit.search.study.test_study import space

CARD = StoreCard("/data/store", "f", {"train": 4, "val": 2})
METRIC = "val/dice_mean"

HOLDER = """
import sys, time
from pathlib import Path
from segan_ray.home import Home
from segan_ray.orchestration.tune.sweep_lock import held, stop_requested
from tests.unit.orchestration.test_end_sweep import begin
home = Home(Path(sys.argv[1]))
folder = home.sweeps / "sweep"
with held(folder, "sweep"):
    study, recorder = begin(home)
    print("running", flush=True)
    while not stop_requested(folder):
        time.sleep(0.05)
    study.end("Stopped by segan-ray stop.")
    recorder.close("stopped")
"""


@pytest.fixture
def home(made_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    return Home(shutil.copytree(made_home, tmp_path / "home"))


def begin(home: Home) -> tuple[SweepStudy, Recorder]:
    """Begin a sweep as its process does: one trial ended, one with an epoch, one without."""
    study = SweepStudy.create("sweep", space(), open_storage(home), store="f")
    folder = home.sweeps / "sweep"
    recorder = Recorder.for_sweep(home, "sweep", CARD, METRIC, "max", "name: test", folder)
    for number, epochs in enumerate((1, 1, 0)):
        point, trial = study.ask(), f"{number:03d}"
        recorder.start_trial(trial, Experiment(), point.params)
        for epoch in range(1, epochs + 1):
            study.report(number, epoch, 0.5)
            recorder.log_epoch(trial, epoch, {METRIC: 0.5})
        checkpoint = folder / "checkpoints" / trial / "epoch-0001"
        checkpoint.mkdir(parents=True)
        (checkpoint / "state.json").write_text(json.dumps({"epoch": epochs}))
    study.tell(0, "completed")
    return study, recorder


def killed(home: Home, *, between: bool = False) -> None:
    """Leave what a sweep leaves whose process was killed."""
    _, recorder = begin(home)
    if not between:
        recorder.end_trial("000", "completed", None, None)
    recorder.uploader.finish(10)


def statuses(home: Home) -> dict[str, str]:
    return {trial.trial: trial.status for trial in read_sweep(home, "sweep").trials}


@pytest.mark.parametrize("between", [False, True], ids=["", "between study and outbox"])
def test_stopping_a_killed_sweep_ends_its_records(home: Home, between: bool) -> None:
    killed(home, between=between)
    said: list[str] = []
    assert stop(home, "sweep", said.append) == Stopped("sweep", "stopped", already=False)
    assert said == ["No process runs 'sweep': ending what is left open in its records."]
    assert read_sweep(home, "sweep").status == "stopped"
    assert statuses(home) == {"000": "completed", "001": "stopped", "002": "failed"}
    study = SweepStudy.reopened("sweep", open_storage(home))
    assert [trial.state.name for trial in study.study.trials] == ["COMPLETE", "PRUNED", "FAIL"]
    assert stop(home, "sweep", said.append) == Stopped("sweep", "stopped", already=True)
    assert len(said) == 1


def test_stopping_an_interrupted_sweep_ends_its_waiting_trials(home: Home) -> None:
    study, recorder = begin(home)
    study.suspend()
    recorder.suspend()
    assert read_sweep(home, "sweep").status == "interrupted"
    assert stop(home, "sweep", print).status == "stopped"
    assert statuses(home) == {"000": "completed", "001": "stopped", "002": "failed"}


@pytest.mark.slow
def test_stopping_a_running_sweep_asks_its_process(home: Home) -> None:
    command = [sys.executable, "-c", HOLDER, str(home.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        with pytest.raises(SweepError, match="End it first: segan-ray stop sweep"):
            delete(home, "sweep")
        said: list[str] = []
        assert stop(home, "sweep", said.append) == Stopped("sweep", "stopped", already=False)
        assert process.wait() == 0
    assert "running trials end as stopped" in said[0]
    assert statuses(home)["001"] == "stopped"


def test_a_process_that_does_not_end_in_time(home: Home) -> None:
    with held(home.sweeps / "sweep", "sweep"), pytest.raises(SweepError, match="still runs after"):
        stop(home, "sweep", print, wait_s=0)


@pytest.mark.parametrize("act", [lambda home, name: stop(home, name, print), delete])
def test_unknown_names(home: Home, act) -> None:
    with pytest.raises(SweepError, match=r"'swept'\. There is none yet"):
        act(home, "swept")
    killed(home)
    with pytest.raises(SweepError, match=r"'swept'\. Did you mean 'sweep'\?"):
        act(home, "swept")
    with pytest.raises(SweepError, match="cannot name a sweep"):
        act(home, "../sweep")
    assert not (home.sweeps / "swept").exists()


def test_what_was_started_in_another_home(home: Home, tmp_path: Path, monkeypatch) -> None:
    killed(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", home.tracking_uri)
    with pytest.raises(SweepError, match="started in another home"):
        stop(Home(tmp_path / "other"), "sweep", print)
    # A refusal here does not make the sweep this home's.
    with held(tmp_path / "other/sweeps/sweep", "sweep"):
        pass
    with pytest.raises(SweepError, match="started in another home"):
        stop(Home(tmp_path / "other"), "sweep", print)
    with pytest.raises(SweepError, match=r"started in another home.* End it there first"):
        delete(Home(tmp_path / "other"), "sweep")
    assert statuses(home)["001"] == "pending"
    # No process runs a sweep that has ended there.
    assert stop(home, "sweep", print).status == "stopped"
    assert delete(Home(tmp_path / "other"), "sweep").runs == 4


def test_a_deleted_sweep_leaves_its_name_free(home: Home) -> None:
    killed(home)
    goes = plan_deletion(home, "sweep")
    size = size_of(home.checkpoints("sweep"))
    assert (goes.trials, goes.checkpoint_bytes, goes.study) == (3, size, True)
    assert goes.sentence().startswith("'sweep' has 3 trials and 0.0 kB of checkpoints;")
    gone = delete(home, "sweep")
    assert (gone.runs, gone.folder, gone.kept) == (4, True, ())
    assert not (home.sweeps / "sweep").exists()
    assert not study_exists("sweep", open_storage(home))
    assert not name_is_taken(home, "sweep")
    study, recorder = begin(home)
    assert study.asked == 3
    recorder.close("stopped")
    assert len(read_sweep(home, "sweep").trials) == 3


def test_what_was_killed_before_it_was_recorded_can_be_deleted(home: Home) -> None:
    SweepStudy.create("sweep", space(), open_storage(home), store="f")
    (home.sweeps / "sweep").mkdir(parents=True)
    with pytest.raises(SweepError, match="cut off before anything of it was recorded"):
        stop(home, "sweep", print)
    assert delete(home, "sweep").runs == 0
    assert not study_exists("sweep", open_storage(home))


@pytest.fixture
def homes(
    home: Home, made_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Home, Home]:
    """Two homes that share their records and studies and nothing else; a lease of seconds."""
    for database in ("mlflow.db", "optuna.db"):
        shutil.copy(made_home / database, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("OPTUNA_STORAGE", f"sqlite:///{tmp_path}/optuna.db")
    monkeypatch.setattr(lease, "RENEW_S", 0.1)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    client.create_experiment(EXPERIMENT, artifact_location=f"{tmp_path}/artifacts")
    return home, Home(tmp_path / "other")


def run_until_asked(home: Home, begun: threading.Event) -> None:
    """Run a sweep as its process does, until it is asked to end."""
    folder = home.sweeps / "sweep"
    study, recorder = begin(home)
    with (
        held(folder, "sweep"),
        leased(
            "sweep",
            open_storage(home),
            holder_of(home),
            print,
            on_stop=partial(request_stop, folder),
        ),
    ):
        begun.set()
        deadline = time.monotonic() + 60
        while not stop_requested(folder):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        study.end("Stopped by segan-ray stop.")
        recorder.close("stopped")


def test_another_home_asks_the_process_that_runs_a_sweep(homes) -> None:
    here, other = homes
    begun, said = threading.Event(), []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_until_asked, here, begun)
        assert begun.wait(60)
        for refused in (plan_deletion, delete):
            with pytest.raises(SweepError, match=f"running now, by .*:{here.folder}. End it first"):
                refused(other, "sweep")
        assert stop(other, "sweep", said.append) == Stopped("sweep", "stopped", already=False)
        running.result()
    assert f":{here.folder}, which runs 'sweep' or did so last, to end it" in said[0]
    assert len(said) == 1
    assert statuses(other)["001"] == "stopped"
    assert stop(other, "sweep", print).already
    assert delete(other, "sweep").runs == 4
    assert not study_exists("sweep", open_storage(here))


def test_a_process_of_another_home_that_does_not_end_in_time(homes) -> None:
    here, other = homes
    _, recorder = begin(here)
    with (
        leased("sweep", open_storage(here), "there", print),
        pytest.raises(SweepError, match="still runs after"),
    ):
        stop(other, "sweep", print, wait_s=0)
    recorder.close("stopped")


def killed_elsewhere(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the lease of a driver that died, which is waited for half a second."""
    killed(home)
    study = optuna.load_study(study_name="sweep", storage=open_storage(home))
    study.set_user_attr(HELD, {"by": "there", "token": "t", "renewals": 3})
    monkeypatch.setattr(lease, "LEASE_S", 0.5)


def test_what_was_killed_in_another_home_is_ended_from_this_one(homes, monkeypatch) -> None:
    here, other = homes
    killed_elsewhere(here, monkeypatch)
    said: list[str] = []
    assert stop(other, "sweep", said.append) == Stopped("sweep", "stopped", already=False)
    assert said[1:] == [
        "Nothing was heard of there: its process is dead.",
        "No process runs 'sweep': ending what is left open in its records.",
    ]
    assert statuses(other) == {"000": "completed", "001": "stopped", "002": "failed"}
    assert lease_of("sweep", open_storage(other)) is None


def test_what_was_killed_in_another_home_is_deleted_once_that_is_sure(homes, monkeypatch) -> None:
    here, other = homes
    killed_elsewhere(here, monkeypatch)
    said: list[str] = []
    goes = plan_deletion(other, "sweep", said.append)
    assert said == ["'sweep' was run by there until now: waiting 0 s to see whether it still is."]
    monkeypatch.setattr(lease, "LEASE_S", 1e6)
    assert delete(other, "sweep", pytest.fail, goes).runs == 4
    assert not study_exists("sweep", open_storage(here))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["file://", ""])
def test_checkpoints_elsewhere_go_with_their_sweep(
    home: Home, tmp_path: Path, monkeypatch, scheme: str
) -> None:
    monkeypatch.setenv("SEGAN_RAY_STORAGE", f"{scheme}{tmp_path}/storage")
    killed(home)
    for sweep in ("sweep", "other"):
        epoch = tmp_path / "storage" / sweep / "checkpoints/000/epoch-0001"
        epoch.mkdir(parents=True)
        (epoch / "segmentor.safetensors").write_bytes(b"12345")
    assert plan_deletion(home, "sweep").checkpoint_bytes == 5
    delete(home, "sweep")
    assert [entry.name for entry in (tmp_path / "storage").iterdir()] == ["other"]


def test_linked_files_count_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to(tmp_path / "a")
    assert size_of(tmp_path) == 5
    assert size_of(tmp_path / "none") == 0


def test_no_other_process_holds_a_sweep_while_it_is_deleted(home: Home, monkeypatch) -> None:
    killed(home)
    seen = []
    lock = home.sweeps / "sweep" / LOCK
    monkeypatch.setattr(
        "segan_ray.orchestration.tune.end_sweep.delete_sweep",
        lambda *_: seen.append(locks.acquire(lock)),
    )
    delete(home, "sweep")
    assert seen == [None]


def test_a_sweep_that_is_recorded_elsewhere_is_not_ended_here(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, recorder = begin(home)
    settle_records(study.study, home, lambda: True)
    recorder.uploader.finish(10)
    elsewhere = f"sqlite:///{tmp_path}/elsewhere.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", elsewhere)
    with pytest.raises(SweepError, match="recorded in two halves") as refused:
        stop(home, "sweep", print)
    assert f"Unset MLFLOW_TRACKING_URI and say --home {home.folder}" in str(refused.value)
    assert not name_is_taken(home, "sweep")
    (left,) = plan_deletion(home, "sweep").out_of_reach
    assert left.startswith(f"its runs, recorded at {home.folder}")
    assert "Out of reach: its runs" in plan_deletion(home, "sweep").sentence()
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert plan_deletion(home, "sweep").out_of_reach == ()
    monkeypatch.setenv("OPTUNA_STORAGE", f"sqlite:///{tmp_path}/others.db")
    (left,) = plan_deletion(home, "sweep").out_of_reach
    assert left.startswith(f"its study, which is not in sqlite:///{tmp_path}/others.db")
