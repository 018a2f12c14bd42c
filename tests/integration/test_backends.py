"""The servers that other tests take for granted: they come up, ask for secrets, and go."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest

from segan_ray.home import Home
from segan_ray.search.storage import open_storage
from tests.integration.backends import LOOPBACK, object_store, postgresql

pytestmark = pytest.mark.slow


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
