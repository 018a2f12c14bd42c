"""Reading many trials: the fast way gives what MLflow's own gives, and says what it leaves out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from _many_trials import OBJECTIVE, write_many

from segan_ray.home import TRACKING_URI, Home
from segan_ray.tracking import reader, sqlite_reader
from segan_ray.tracking.client import connect
from segan_ray.tracking.client_reader import ClientReader
from segan_ray.tracking.sqlite_reader import SCHEMAS, SqliteReader
from segan_ray.tracking.sweeps import histories, list_sweeps, read_sweep


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Three sweeps of twelve trials; read only."""
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
