"""The home of another user: read without writing, with files that others may read."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from segan_ray.errors import RegistryError, StoreError
from segan_ray.filesystem import locks
from segan_ray.home import TRACKING_URI, Home
from segan_ray.orchestration.tune.sweep_lock import held, request_stop
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.tracking.client.connection import connect
from segan_ray.tracking.outbox import OUTBOX, lock_of
from segan_ray.tracking.reading.sweeps import list_sweeps, read_sweep
from segan_ray.tracking.registry.model_versions import fetched
from segan_ray.workflows.promote import promote
from segan_ray.workflows.write_report import collect_report
from tests.unit.promotable import WHOLE, record_sweep, write_store


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home with one promoted model."""
    monkeypatch.delenv(TRACKING_URI, raising=False)
    made = Home(tmp_path / "home")
    (tmp_path / "store").mkdir()
    write_store(tmp_path / "store")
    record_sweep(made, "one", tmp_path / "store", WHOLE)
    promote(made, "one", alias="champion", force=True)
    return made


@pytest.mark.slow
def test_files_have_the_modes_that_the_umask_gives(umask: int, home: Home) -> None:
    # The code in a package is a copy of this one, with the modes it was installed with.
    paths = [
        path for path in home.folder.rglob("*") if path.suffix != ".py" and "code" not in path.parts
    ]
    assert sum(path.name == "segmentor.safetensors" for path in paths) >= 2
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_file()}
    wrong = {str(path): oct(mode) for path, mode in modes.items() if mode != 0o666 & ~umask}
    assert wrong == {}
    folders = {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_dir()}
    assert folders == {0o777 & ~umask}


def pretend_unwritable(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse the home to root too, as far as somebody asks before writing."""
    access = os.access
    monkeypatch.setattr(
        os,
        "access",
        lambda path, mode: not Path(path).is_relative_to(home.folder) and access(path, mode),
    )


def times(home: Home) -> dict[Path, int]:
    """Return when each file of the home was changed last."""
    return {path: path.stat().st_mtime_ns for path in home.folder.rglob("*")}


@pytest.mark.slow
@pytest.mark.parametrize("live", [False, True], ids=["at rest", "being written"])
def test_a_model_is_fetched_from_a_home_that_cannot_be_written_to(
    home: Home, live: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is made or changed there, not even the files by which SQLite shares a database."""
    (home.folder / ".mlflow.lock").unlink()
    with contextlib.closing(sqlite3.connect(home.tracking_database)) as writer:
        if live:
            with writer:
                writer.execute("CREATE TABLE more (x INTEGER)")
            assert home.tracking_database.with_name("mlflow.db-wal").stat().st_size
        else:
            writer.close()
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        before = times(home)
        pretend_unwritable(home, monkeypatch)
        with fetched(home, "champion") as found:
            assert (found.version, found.sweep) == ("1", "one")
        with (
            pytest.raises(RegistryError, match="'nobody' is no checkpoint folder"),
            fetched(home, "nobody"),
        ):
            pass
        after = times(home)
        assert {path for path in after if after[path] != before.get(path)} <= {
            home.tracking_database.with_name("mlflow.db-shm")
        }
        assert after.keys() == before.keys()
        assert not list(elsewhere.iterdir())


@pytest.mark.slow
def test_sweeps_are_read_where_nothing_can_be_written(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = lock_of(home.sweeps / "one" / OUTBOX)
    lock.chmod(0o444)
    report = collect_report(home, "one")
    before = times(home)
    pretend_unwritable(home, monkeypatch)
    assert [sweep.sweep for sweep in list_sweeps(home)] == ["one"]
    assert read_sweep(home, "one").best is not None
    assert collect_report(home, "one") == report
    assert times(home) == before


def test_a_lock_that_can_only_be_read_tells_whether_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lock"
    assert not locks.is_held(path)
    held = locks.acquire(path)
    assert held is not None
    opened = os.open

    def read_only(name: str | Path, flags: int, mode: int = 0o777) -> int:
        assert not flags & (os.O_RDWR | os.O_WRONLY | os.O_CREAT)
        return opened(name, flags, mode)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only)
        assert locks.is_held(path)
        locks.release(held)
        assert not locks.is_held(path)


def use_optuna(home: Home) -> None:
    open_storage(home)


def hold(home: Home) -> None:
    with held(home.sweeps / "one", "one"):
        pass


def ask_to_stop(home: Home) -> None:
    request_stop(home.sweeps / "one")


@pytest.mark.parametrize("use", [connect, list_sweeps, use_optuna, hold, ask_to_stop])
def test_a_home_that_cannot_be_written_is_said(use: Callable[[Home], Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    home = Home(tmp_path / "file" / "home")
    with pytest.raises(StoreError, match=r"cannot be written \(Not a directory\)\. Choose another"):
        use(home)
