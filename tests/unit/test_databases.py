"""Databases: a server that does not answer is reported at once."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from segan_ray.databases import are_one, is_database, sqlite_url, tables_at
from segan_ray.errors import NotInstalledError, SweepError, TrackingError
from segan_ray.home import Home
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.tracking.client.connection import connect


@pytest.fixture
def dead() -> Iterator[str]:
    """The URL of a database server that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"postgresql://me:planted@127.0.0.1:{taken.getsockname()[1]}/mlflow"


def test_a_server_that_does_not_answer_is_reported(dead: str) -> None:
    with pytest.raises(SQLAlchemyError, match="refused"):
        tables_at(dead)


def test_a_missing_driver_is_said_if_ours_bring_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # None in its place makes Python say that there is no such module.
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(NotInstalledError, match=r"needs psycopg2, .*'segan-ray\[postgres\]'"):
        tables_at("postgresql+psycopg2://me:planted@127.0.0.1:1/mlflow")
    with pytest.raises(ModuleNotFoundError, match="pg8000"):
        tables_at("postgresql+pg8000://me:planted@127.0.0.1:1/mlflow")


def test_records_and_studies_on_a_dead_server_give_a_plain_line(
    dead: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home.at(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead)
    with pytest.raises(TrackingError, match=r"(?i)connection.*refused") as caught:
        connect(home)
    assert "planted" not in str(caught.value)
    monkeypatch.setenv("OPTUNA_STORAGE", dead)
    with pytest.raises(SweepError, match=r"(?i)connection.*refused") as caught:
        open_storage(home)
    assert "planted" not in str(caught.value)


def test_a_url_without_a_database_is_not_opened(tmp_path: Path) -> None:
    assert not is_database("http://127.0.0.1:5000")
    assert tables_at(f"sqlite:///{tmp_path}/not/yet/there.db") == frozenset()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_mlflow_and_optuna_each_want_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    home = Home.at(tmp_path)
    connect(home)
    open_storage(home)
    monkeypatch.setenv("OPTUNA_STORAGE", home.tracking_uri)
    with pytest.raises(SweepError, match="is MLflow's database"):
        open_storage(home)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_url(home.studies))
    with pytest.raises(TrackingError, match="is Optuna's database"):
        connect(home)
    both = f"sqlite:///{tmp_path}/both.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", both)
    monkeypatch.setenv("OPTUNA_STORAGE", both)
    with pytest.raises(SweepError, match="is MLflow's database"):
        open_storage(home)


def test_one_database_has_many_urls() -> None:
    url = "postgresql://me:secret@server:5432/records"
    assert are_one(url, "postgresql+psycopg2://you@server:5432/records")
    assert not are_one(url, "postgresql://me:secret@server:5432/studies")
    assert not are_one(url, "mysql://me:secret@server:5432/records")
