"""The servers that other tests take for granted: they come up, ask for secrets, and go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import psycopg2
import pytest
from optuna.storages import BaseStorage
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from segan_ray.errors import SweepError, TakenOver
from segan_ray.home import Home
from segan_ray.search.storage import lease
from segan_ray.search.storage.lease import lease_of, leased
from segan_ray.search.storage.lease_record import engine_of
from segan_ray.search.storage.study_record import READY
from segan_ray.search.storage.study_storage import open_storage
from tests.integration.backends import LOOPBACK, PostgreSQL, object_store, postgresql
from tests.unit.search import test_lease
from tests.unit.search.test_lease import SWEEP, eventually, standing_still

pytestmark = pytest.mark.full


def test_postgresql_asks_for_its_password(tmp_path: Path) -> None:
    with postgresql(tmp_path) as postgres:
        url = postgres.database("records")
        with psycopg2.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(url.replace(postgres.password, "wrong"))
    with pytest.raises(psycopg2.OperationalError, match=LOOPBACK):
        psycopg2.connect(url)


def test_sweeps_that_begin_at_once_share_a_fresh_database(tmp_path: Path, monkeypatch) -> None:
    with postgresql(tmp_path) as postgres:
        monkeypatch.setenv("OPTUNA_STORAGE", postgres.database("studies"))
        with ThreadPoolExecutor(8) as pool:
            storages = list(pool.map(lambda _: open_storage(Home(tmp_path)), range(8)))
        assert [storage.get_all_studies() for storage in storages] == [[]] * 8


def test_the_object_store_asks_for_its_secret(tmp_path: Path) -> None:
    with object_store(tmp_path) as store:
        files = store.files()
        files.pipe_file(f"{store.bucket}/a/b", b"content")
        assert files.cat_file(f"{store.bucket}/a/b") == b"content"
        stranger = type(files)(
            key=store.key, secret="wrong", client_kwargs={"endpoint_url": store.url}
        )
        with pytest.raises(PermissionError):
            stranger.ls(store.bucket)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    with postgresql(tmp_path_factory.mktemp("server")) as postgres:
        yield postgres


@pytest.fixture
def shared(
    server: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request
) -> BaseStorage:
    """A study on PostgreSQL, and a lease of less than a second."""
    monkeypatch.setattr(lease, "LEASE_S", 0.5)
    monkeypatch.setattr(lease, "RENEW_S", 0.1)
    monkeypatch.setenv("OPTUNA_STORAGE", server.database(request.node.name[:60]))
    storage = open_storage(Home(tmp_path))
    optuna.create_study(study_name=SWEEP, storage=storage).set_user_attr(READY, True)
    return storage


def locks_on(storage: BaseStorage) -> list[int]:
    """The connections that hold an advisory lock of this database."""
    asked = text(
        "SELECT pid FROM pg_locks JOIN pg_database ON oid = database"
        " WHERE locktype = 'advisory' AND granted AND datname = current_database()"
    )
    engine = create_engine(engine_of(storage).url, poolclass=NullPool)
    with engine.connect() as connection:
        return list(connection.execute(asked).scalars())


def test_a_lock_goes_with_its_lease(shared: BaseStorage) -> None:
    with leased(SWEEP, shared, "a", print) as holding:
        first = locks_on(shared)
        assert len(first) == 1
        # A connection that was cut is replaced; the lease was never another's.
        with engine_of(shared).connect() as connection:
            connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": first[0]})
        eventually(lambda: locks_on(shared) not in (first, []))
        holding.check()
        here = leased(SWEEP, shared, "b", print)
        with pytest.raises(SweepError, match="running now, by a"), here:
            raise AssertionError("both have it")
        assert len(locks_on(shared)) == 1
    assert locks_on(shared) == []


def test_a_holder_that_stands_still_is_cut_off(shared: BaseStorage, tmp_path: Path) -> None:
    with standing_still(shared, "there") as stopped:
        # A process of the server lets go of its locks a moment after its client has gone.
        eventually(lambda: len(locks_on(shared)) == 1)
        (before,) = locks_on(shared)
        with leased(SWEEP, open_storage(Home(tmp_path)), "here", print):
            eventually(lambda: len(locks_on(shared)) == 1)
            (now,) = locks_on(shared)
            assert now != before
            with pytest.raises(TakenOver, match="taken over by here"):
                stopped.check()
            with pytest.raises(DBAPIError, match=r"terminat|closed"):
                stopped._lock._connection.execute(text("SELECT 1"))
        eventually(lambda: locks_on(shared) == [])
    assert lease_of(SWEEP, shared) is None


def test_a_holder_that_was_stopped_in_a_transaction_blocks_no_other(
    shared: BaseStorage, tmp_path: Path
) -> None:
    other = open_storage(Home(tmp_path))
    with standing_still(shared, "there") as stopped, engine_of(shared).connect() as connection:
        connection.execute(text("UPDATE study_user_attributes SET value_json = '0'"))
        with leased(SWEEP, other, "here", print):
            with pytest.raises(DBAPIError, match=r"terminat|closed"):
                connection.commit()
            with pytest.raises(TakenOver, match="taken over by here"):
                stopped.check()


def test_a_holder_that_may_not_be_cut_off_keeps_its_sweep(
    shared: BaseStorage, server: PostgreSQL, tmp_path: Path, monkeypatch
) -> None:
    with engine_of(shared).begin() as connection:
        connection.execute(text("CREATE ROLE guest LOGIN PASSWORD 'guest'"))
        connection.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO guest"))
        connection.execute(text("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO guest"))
    url = os.environ["OPTUNA_STORAGE"].replace(f"postgres:{server.password}", "guest:guest")
    monkeypatch.setenv("OPTUNA_STORAGE", url)
    guests = open_storage(Home(tmp_path))
    with standing_still(shared, "there") as stopped:
        here = leased(SWEEP, guests, "here", print)
        with pytest.raises(SweepError, match=r"SELECT pg_terminate_backend\(pid\)") as told, here:
            raise AssertionError("both have it")
        assert "you may not end that" in str(told.value)
        stopped.renew()


def test_of_many_processes_one_takes_over_on_a_server_too(
    shared: BaseStorage, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(lease, "LEASE_S", 1e6)
    study = optuna.load_study(study_name=SWEEP, storage=shared)
    test_lease.one_of_many_takes_over([open_storage(Home(tmp_path)) for _ in range(6)], study)
    test_lease.test_of_many_processes_one_takes_the_first_lease(shared)
