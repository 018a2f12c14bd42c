"""Data that tests share: a small phantom folder and the store made of it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from unittest.mock import patch

import pytest
from filelock import FileLock
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from segan_ray.data.layouts.cases import discover
from segan_ray.data.phantom import dataset
from segan_ray.data.phantom.dataset import write_phantoms
from segan_ray.data.store.opened_store import PrepareSettings, TuningCases, open_for_tuning
from segan_ray.data.store.prepare import prepare
from segan_ray.data.store.splits import SplitSettings
from segan_ray.home import TRACKING_URI, Home

pytest.register_assert_rewrite("tests.integration.killing")

# How long an example takes is the machine's affair.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

MakeFolder = Callable[[Path], object]
UNIT = Path(__file__).parent / "unit"
CASES = 12
SPLIT = SplitSettings(val=0.17, gate=0.17, test=0.17)
SHARED_SESSION = ("test_listening.py", "test_preparation.py", "test_sweep.py")
"""What runs in one Ray session of the process of its tests."""


class OneRaySession(LoadScopeScheduling):
    """Shares tests out by file, and sends all that share a Ray session to one process."""

    def _split_scope(self, nodeid: str) -> str:
        shares = any(name in nodeid for name in SHARED_SESSION)
        return "shared Ray session" if shares else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> OneRaySession | None:
    """Take ``--dist loadgroup`` to mean the groups above."""
    return OneRaySession(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let no test be in no tier: what is outside ``unit`` is slow at least."""
    for item in items:
        if UNIT not in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def homes_stay_where_they_are() -> Iterator[None]:
    """A test that points MLflow elsewhere and leaves it so breaks others, far from itself."""
    before = os.environ.get(TRACKING_URI)
    yield
    assert os.environ.get(TRACKING_URI) == before


@pytest.fixture(autouse=True)
def recorders_are_closed() -> Iterator[None]:
    """A recorder's thread that outlives its test writes into a home that others may look at."""
    before = set(threading.enumerate())
    yield
    left = [new for new in set(threading.enumerate()) - before if new.name == "tracking"]
    for thread in left:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in left), "this test leaves a recorder open"


@pytest.fixture(scope="session", autouse=True)
def patients_are_made_once() -> Iterator[None]:
    """Of the same few phantom patients many folders are written; each is made once a process."""
    with patch.object(dataset, "synthesize_patient", cache(dataset.synthesize_patient)):
        yield


@pytest.fixture(scope="session", autouse=True)
def schemas_are_read_once() -> Iterator[None]:
    """Optuna and MLflow read a hundred files of their schemas' history for each database."""
    from alembic import util

    anew, once = util.load_python_file, cache(util.load_python_file)

    def read(folder: str, file: str) -> object:
        # This one is a program, which brings a database up to date.
        return anew(folder, file) if file == "env.py" else once(folder, file)

    with patch.object(util, "load_python_file", read):
        yield


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, MakeFolder], Path]:
    """Make a folder by its name, once for all the processes of this run of pytest; read only."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "made-once"
    shared.mkdir(exist_ok=True)

    def once(name: str, make: MakeFolder) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                make(folder)
                done.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def phantom_folder(made_once: Callable[[str, MakeFolder], Path]) -> Path:
    """Twelve phantoms at 4 mm; read only."""
    return made_once(
        "phantoms", lambda out: write_phantoms(out, cases=CASES, spacing_mm=4.0, seed=3)
    )


@pytest.fixture
def folder(phantom_folder: Path, tmp_path: Path) -> Path:
    """A copy of four phantoms that a test may break."""
    copy = tmp_path / "data"
    for case in sorted(phantom_folder.glob("BraTS2021_*"))[:8]:
        shutil.copytree(case, copy / case.name)
    return copy


@pytest.fixture(scope="session")
def store(phantom_folder: Path, made_once: Callable[[str, MakeFolder], Path]) -> Path:
    """The store of the phantoms; read only."""
    cases = discover(phantom_folder)
    return made_once(
        "store",
        lambda out: prepare(cases, out, settings=PrepareSettings(), split_settings=SPLIT),
    )


@pytest.fixture(scope="session")
def made_home(made_once: Callable[[str, MakeFolder], Path]) -> Path:
    """A home whose databases have their tables, which takes seconds to make; to be copied."""

    def make(folder: Path) -> None:
        from segan_ray.search.storage.study_storage import open_storage
        from segan_ray.tracking.client.connection import connect

        home = Home.at(folder)
        with pytest.MonkeyPatch.context() as patched:
            for name in (TRACKING_URI, "OPTUNA_STORAGE"):
                patched.delenv(name, raising=False)
            connect(home)
            open_storage(home)
        for database in (home.tracking_database, home.folder / "optuna.db"):
            with sqlite3.connect(database) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    return made_once("home", make)


@pytest.fixture
def home(made_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home of the test's own, with nothing recorded in it."""
    monkeypatch.delenv(TRACKING_URI, raising=False)
    # A copy, for MLflow runs stricter inside tests: writes of its own read-only sessions would
    # raise.
    shutil.copytree(made_home, tmp_path / "home")
    return Home.at(tmp_path / "home")


@pytest.fixture
def studies(made_home: Path, tmp_path: Path) -> None:
    """The database of studies of a home at ``tmp_path``, with nothing in it."""
    shutil.copy(made_home / "optuna.db", tmp_path)


@pytest.fixture(scope="session")
def tuning_cases(store: Path) -> TuningCases:
    """The train and val patients of the store."""
    return open_for_tuning(store)
