"""Reading many trials: the fast way gives what MLflow's own gives, and says what it leaves out."""

from __future__ import annotations

import contextlib
import math
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
from _many_trials import OBJECTIVE, write_many

from segan_ray.home import TRACKING_URI, Home
from segan_ray.tracking.client import connection
from segan_ray.tracking.client.connection import connect
from segan_ray.tracking.reading import reader, sqlite_reader
from segan_ray.tracking.reading.client_reader import ClientReader
from segan_ray.tracking.reading.sqlite_reader import SCHEMAS, SqliteReader
from segan_ray.tracking.reading.sweeps import histories, list_sweeps, read_sweep


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Three sweeps of twelve trials; tests change nothing of these."""
    made = Home(tmp_path_factory.mktemp("many") / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(TRACKING_URI, raising=False)
        write_many(made, sweeps=3, trials=12, epochs=9)
    return made


@pytest.fixture
def by_client(monkeypatch: pytest.MonkeyPatch):
    """Have MLflow read what follows."""

    def switch() -> None:
        monkeypatch.setattr(reader, "sqlite_reader", lambda _: None)

    return switch


def test_the_schema_that_the_installed_mlflow_makes_is_one_that_is_read_directly(
    home: Home,
) -> None:
    fast = sqlite_reader.sqlite_reader(home)
    assert isinstance(fast, SqliteReader)
    assert len(SCHEMAS) == 1


def test_both_readers_return_the_same(home: Home) -> None:
    fast, slow = sqlite_reader.sqlite_reader(home), ClientReader(connect(home))
    assert fast is not None
    runs = fast.runs()
    assert len(runs) == 3 * 13
    assert runs == slow.runs()
    trials = fast.runs("segan.kind", "trial")
    assert len(trials) == 36
    assert trials == slow.runs("segan.kind", "trial")
    ids = [run.run for run in runs]
    assert fast.histories(ids, OBJECTIVE) == slow.histories(ids, OBJECTIVE)
    assert fast.registered() == slow.registered() == set()


def test_sweeps_and_curves_are_the_same_however_they_are_read(home: Home, by_client) -> None:
    def everything():
        sweeps = list_sweeps(home, pytest.fail)
        alone = [read_sweep(home, sweep.sweep, pytest.fail) for sweep in sweeps]
        curves = [histories(home, sweep, OBJECTIVE) for sweep in sweeps]
        return sweeps, alone, curves

    sweeps, alone, curves = everything()
    assert [sweep.sweep for sweep in sweeps] == ["many-000", "many-001", "many-002"]
    assert all(len(sweep.trials) == 12 for sweep in sweeps)
    assert sweeps == alone
    assert len(curves[0]["002"]) == 9
    by_client()
    assert everything() == (sweeps, alone, curves)


class Server:
    """A client whose store answers for one run at a time, as that of a server does."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._tracking_client = SimpleNamespace(store=object())

    def __getattr__(self, name: str):
        return getattr(self._client, name)


def test_a_server_is_read_page_by_page_and_run_by_run(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, far = sqlite_reader.sqlite_reader(home), ClientReader(Server(connect(home)))
    assert fast is not None
    monkeypatch.setattr(connection, "PAGE", 7)
    assert far.runs() == fast.runs()
    ids = [run.run for run in fast.runs()]
    assert far.histories(ids, OBJECTIVE) == fast.histories(ids, OBJECTIVE)


def test_a_metric_that_is_no_number_is_read_as_such(home: Home) -> None:
    fast, slow = sqlite_reader.sqlite_reader(home), ClientReader(connect(home))
    assert fast is not None
    run = fast.runs("segan.kind", "trial")[0].run
    connect(home).log_metric(run, "val/odd", math.nan, step=1)
    for each in (fast, slow):
        ((step, value, _),) = each.histories([run], "val/odd")[run]
        assert step == 1
        assert math.isnan(value)


def test_only_a_database_as_it_is_known_is_read_directly(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sqlite_reader.sqlite_reader(Home(tmp_path)) is None
    copy = Home(tmp_path / "copy")
    shutil.copytree(home.folder, copy.folder)
    assert sqlite_reader.sqlite_reader(copy) is None  # its records still name the other's files
    assert [sweep.sweep for sweep in list_sweeps(copy)] == ["many-000", "many-001", "many-002"]
    assert sqlite_reader.sqlite_reader(copy) is not None
    with monkeypatch.context() as patch:
        patch.setenv(TRACKING_URI, "http://127.0.0.1:9")
        assert sqlite_reader.sqlite_reader(copy) is None
    for statement in (
        "UPDATE experiments SET lifecycle_stage = 'deleted'",
        "UPDATE alembic_version SET version_num = '000000000000'",
        "DROP TABLE alembic_version",
    ):
        with contextlib.closing(sqlite3.connect(copy.tracking_database)) as database, database:
            database.execute(statement)
        assert sqlite_reader.sqlite_reader(copy) is None
    copy.tracking_database.write_bytes(b"not a database")
    assert sqlite_reader.sqlite_reader(copy) is None


def test_a_home_is_listed_without_mlflow(home: Home) -> None:
    code = (
        "import sys; from pathlib import Path; from segan_ray.home import Home; "
        "from segan_ray.tracking.reading.sweeps import list_sweeps; "
        f"print(len(list_sweeps(Home(Path({str(home.folder)!r}))))); "
        "print([name for name in ('mlflow', 'torch', 'ray', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["3", "[]"]
