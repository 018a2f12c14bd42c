"""The database of studies: the first process makes it, once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from segan_ray.errors import StoreError, SweepError
from segan_ray.filesystem import locks
from segan_ray.home import Home
from segan_ray.search.storage import study_storage
from segan_ray.search.storage.study_storage import open_storage

CREATE = """
import sys
from pathlib import Path
from segan_ray.home import Home
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.search.study.sweep_study import SweepStudy
print("ready", flush=True)
sys.stdin.readline()
storage = open_storage(Home(Path(sys.argv[1])))
space = {"name": "test", "parameters": {"segmentor.lr": {"type": "float", "low": 1e-5, "high": 1}}}
study = SweepStudy.create(sys.argv[2], SearchSpace.model_validate(space), storage)
for _ in range(5):
    study.tell(study.ask().number, "failed")
"""


@pytest.fixture(autouse=True)
def _no_other_storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)


@pytest.mark.slow
def test_processes_that_make_the_database_at_once_all_succeed(tmp_path: Path) -> None:
    home = Home(tmp_path / "fresh" / "home")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CREATE, str(home.folder), f"sweep-{number}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    opened = open_storage(home)
    assert sorted(optuna.get_all_study_names(opened)) == ["sweep-0", "sweep-1"]
    for name in ("sweep-0", "sweep-1"):
        assert len(optuna.load_study(study_name=name, storage=opened).trials) == 5


def test_another_storage_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    monkeypatch.setenv("OPTUNA_STORAGE", url)
    optuna.create_study(study_name="there", storage=url)
    assert optuna.get_all_study_names(open_storage(Home(tmp_path / "home"))) == ["there"]
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("url", ["nonsense://x", "sqlite:////nowhere/at/all.db", "not a url"])
def test_a_storage_that_cannot_be_used(tmp_path: Path, monkeypatch, url: str) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", url)
    with pytest.raises(SweepError) as refused:
        open_storage(Home(tmp_path))
    said = str(refused.value)
    assert said.startswith(f"OPTUNA_STORAGE={url}: the studies of sweeps cannot be read (")
    assert said.endswith("). Correct OPTUNA_STORAGE, or unset it to use the home's.")


def test_a_database_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(SweepError, match=r"optuna\.db: the studies of sweeps cannot be read"):
        open_storage(Home(tmp_path))


def test_a_home_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(StoreError, match="home: cannot be written"):
        open_storage(Home(tmp_path / "home"))


def test_a_process_that_makes_the_database_for_ever(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(study_storage, "WAIT_S", 0.0)
    handle = locks.acquire(tmp_path / ".optuna.lock")
    assert handle is not None
    with pytest.raises(SweepError, match="has been making the database for long"):
        open_storage(Home(tmp_path))
    locks.release(handle)
    open_storage(Home(tmp_path))
