"""Another user of the machine while ``segan-ray ui`` runs, and records that lead elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from mlflow import MlflowClient

from segan_ray.home import Home
from segan_ray.tracking.client.connection import connect, experiment_id
from segan_ray.tracking.ui.access import REFUSAL, new_secret
from tests.integration.intruder import ask
from tests.integration.serving import Served, served

pytestmark = pytest.mark.full

SECRET = "only its owner may read this"
another_user = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can become another user to try what that user can do"
)


@dataclass(frozen=True)
class Desk:
    """A home, and beside it a file of its owner's and a folder of somebody else's."""

    folder: Path
    home: Home
    client: MlflowClient
    run: str
    since: float

    @property
    def wanted(self) -> Path:
        return self.folder / "owner" / "id_ed25519"

    @property
    def planted(self) -> Path:
        return self.folder / "owner" / "authorized_keys"

    @property
    def thesis(self) -> Path:
        """A folder of the owner's that nothing has changed for long."""
        return self.folder / "owner" / "thesis"

    @property
    def theirs(self) -> Path:
        return self.folder / "theirs"

    @property
    def artifacts(self) -> Path:
        """The folder of the artifacts of the home's own run."""
        return self.home.artifacts / self.run / "artifacts"


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    # Where others can go: pytest keeps its own folders closed.
    folder = Path(tempfile.mkdtemp(prefix="segan-ray-intruder-")).resolve()
    folder.chmod(0o755)
    since = time.time() - 1
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            (folder / "owner").mkdir()
            (folder / "theirs").mkdir(mode=0o777)
            (folder / "theirs").chmod(0o777)
            home = Home.at(folder / "owner" / "home")
            client = connect(home)
            run = client.create_run(experiment_id(client, home)).info.run_id
            client.log_text(run, "it is here", "notes/kept.txt")
            desk = Desk(folder, home, client, run, since)
            desk.wanted.write_text(SECRET)
            desk.wanted.chmod(0o600)
            yield desk
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def ui(desk: Desk) -> Iterator[Served]:
    # As another user may find it, and set it up before the owner starts anything.
    temporary = desk.theirs / "tmp"
    (temporary / "mlflow-assistant-sessions").mkdir(parents=True)
    (temporary / "mlflow-assistant-sessions" / "sandbox-home").symlink_to(desk.wanted.parent)
    desk.thesis.mkdir()
    os.utime(desk.thesis, (0, 0))
    with served(desk.home, TMPDIR=str(temporary)) as ui:
        yield ui


def other_user(task: str, **asked: Any) -> Any:
    """Let the other user do ``task``, see ``intruder``."""
    program = Path(__file__).with_name("intruder.py")
    result = subprocess.run(
        [sys.executable, "-I", str(program)], input=json.dumps({"task": task, **asked}),
        capture_output=True, text=True, check=False, cwd="/", env={},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def other_keys(ui: Served) -> list[dict[str, str]]:
    """Keys of another start, and halves of this one's."""
    old = new_secret()
    return [
        {"Authorization": f"Bearer {old}"},
        {"Cookie": f"segan-ray-{ui.port}={old}"},
        {"Authorization": f"Bearer {ui.token[:-1]}"},
        {"Authorization": "Basic bWxmbG93Om1sZmxvdw=="},
    ]


@another_user
def test_another_user_reads_and_writes_nothing(desk: Desk, ui: Served) -> None:
    for headers in [{}, *other_keys(ui)]:
        answers = other_user(
            "attack", port=ui.port, headers=headers, folder=str(desk.theirs),
            wanted=str(desk.wanted), planted=str(desk.planted),
        )  # fmt: skip
        assert answers.pop("open")[0] == 13  # as the system says that it is not permitted
        assert set(map(tuple, answers.values())) == {(403, REFUSAL)}
        (desk.theirs / "x").unlink(missing_ok=True)
    assert not desk.planted.exists()
    assert [found.name for found in desk.client.search_experiments()] == ["segan-ray", "Default"]


@another_user
def test_no_path_answers_another_user(ui: Served) -> None:
    from mlflow.server import app

    rules = {re.sub(r"<[^>]+>", "1", rule.rule) for rule in app.url_map.iter_rules()}
    native = {
        "/api/3.0/mlflow/server-info", "/v1/traces", "/ajax-api/3.0/jobs/1", "/docs",
        "/ajax-api/3.0/mlflow/assistant/config", "/api/2.0/mlflow-artifacts/artifacts/x",
        "/ajax-api/3.0/mlflow/mcp-servers", "/gateway/mlflow/v1/models", "/openapi.json",
        f"/?token={new_secret()}",
    }  # fmt: skip
    paths = sorted(rules | native)
    assert len(paths) > 200
    answers = other_user("knock", port=ui.port, paths=paths, keys=other_keys(ui))
    assert len(answers) == 4 * len(paths)
    assert [answer for answer in answers if answer[2:] != [403, REFUSAL]] == []
    owner = {"Authorization": f"Bearer {ui.token}"}
    assert ask(ui.port, "GET", "/health", owner) == (200, "OK")


@another_user
def test_the_secret_is_nowhere_another_user_can_look(desk: Desk, ui: Served) -> None:
    noted = desk.theirs / "noted"
    noted.write_text("something else")
    port = f"--port\0{ui.port}"
    found = other_user(
        "search", texts=[ui.token, "something else", port], folder=str(desk.folder),
        others=[tempfile.gettempdir(), "/dev/shm", "/var/tmp", "/run"], since=desk.since,
    )  # fmt: skip
    # What can be found is.
    assert str(noted) in found["something else"]
    assert f"/proc/{ui.process.pid}/cmdline" in found[port]
    assert found[ui.token] == []


def run_at(desk: Desk, place: Path) -> str:
    """Return a run as somebody's experiment had it before: with its artifacts at ``place``."""
    name = f"at {place.name} {len(desk.client.search_experiments())}"
    made = desk.client.create_experiment(name, place.as_uri())
    return str(desk.client.create_run(made).info.run_id)


def way_out(desk: Desk, run: str) -> str:
    """Make the folder of the artifacts of ``run`` a link to /; return its run."""
    uri = desk.client.get_run(run).info.artifact_uri
    link = Path(str(uri).removeprefix("file://"))
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to("/")
    return run


def reading(run: str, path: str) -> list[tuple[str, str]]:
    """Return every way to read an artifact of a run."""
    return [
        ("GET", f"/get-artifact?run_id={run}&path={path}"),
        ("GET", f"/get-artifact?run_uuid={run}&path={path}"),
        *(
            ("GET", f"/{api}/mlflow/artifacts/list?run_id={run}&path={path}")
            for api in ("api/2.0", "ajax-api/2.0")
        ),
    ]


def test_records_that_lead_out_of_the_home_are_refused_to_its_owner(desk: Desk, ui: Served) -> None:
    wanted = quote(str(desk.wanted)[1:])
    owner = {"Authorization": f"Bearer {ui.token}"}
    direct = run_at(desk, desk.wanted.parent)
    linked = way_out(desk, run_at(desk, desk.theirs))
    within = way_out(desk, desk.client.create_run("1").info.run_id)
    relative = run_at(desk, desk.home.artifacts / ".." / "..")
    ways = [way for run in (linked, within) for way in reading(run, wanted)]
    ways += [way for run in (direct, relative) for way in reading(run, "")]
    (desk.artifacts / "out").symlink_to(desk.wanted.parent)
    (desk.artifacts / "key").symlink_to(desk.wanted)
    up = "../" * len(desk.artifacts.parts)
    once, twice = quote(up, safe=""), quote(quote(up, safe=""), safe="")
    for path in (
        "out/id_ed25519", "key", f"{up}{wanted}", f"{once}{wanted}", f"{twice}{wanted}",
        f"file:///{wanted}", f"/{wanted}",
    ):  # fmt: skip
        ways += reading(desk.run, path)[:2]
    ways += [("GET", f"/api/2.0/mlflow-artifacts/artifacts/{wanted}")]
    ways += model_versions(desk, linked) + logged_models(desk) + traces(desk, ui)
    for method, path in ways:
        status, text = ask(ui.port, method, path, owner)
        assert 400 <= status < 500 or status == 503, (path, status, text)
        assert SECRET not in text
        assert desk.wanted.name not in text or desk.wanted.name in path, (path, text)
    upload = (
        f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={{}}&path={quote(str(desk.planted)[1:])}"
    )
    for run in (linked, within):
        status, text = ask(ui.port, "POST", upload.format(run), owner, b"planted")
        assert (status, "are not shown, read or written here" in text) == (403, True)
    status, _ = ask(
        ui.port, "POST", upload.format(desk.run).replace("path=", "path=out/"), owner, b"x"
    )
    assert status >= 400
    assert not desk.planted.exists()


def model_versions(desk: Desk, run: str) -> list[tuple[str, str]]:
    desk.client.create_registered_model("theirs")
    sources = (
        "file:///",
        "/",
        f"runs:/{run}/",
        f"file://localhost{desk.wanted.parent}",
        "s3://x/y",
    )
    versions = [desk.client.create_model_version("theirs", source) for source in sources]
    at = f"&path={quote(str(desk.wanted)[1:])}"
    return [
        ("GET", f"/model-versions/get-artifact?name=theirs&version={version.version}{at}")
        for version in versions
    ]


def logged_models(desk: Desk) -> list[tuple[str, str]]:
    theirs = desk.client.get_experiment_by_name("at owner 2")
    assert theirs is not None
    model = desk.client.create_logged_model(theirs.experiment_id, "m").model_id
    folder = Path(
        str(desk.client.get_logged_model(model).artifact_location).removeprefix("file://")
    )
    folder.parent.mkdir(parents=True)
    folder.symlink_to("/")
    at = f"/ajax-api/2.0/mlflow/logged-models/{model}/artifacts"
    wanted = quote(str(desk.wanted)[1:])
    return [
        ("GET", f"{at}/files?artifact_file_path={wanted}"),
        ("GET", f"{at}/directories?artifact_directory_path={quote(str(desk.wanted.parent)[1:])}"),
    ]


def traces(desk: Desk, ui: Served) -> list[tuple[str, str]]:
    """Return ways to a trace of which the record says that it is elsewhere, by a request for it."""
    as_json = {"Authorization": f"Bearer {ui.token}", "Content-Type": "application/json"}
    where = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "1"}}
    info = {
        "trace_id": "tr-1", "trace_location": where, "request_time": "2026-01-01T00:00:00Z",
        "state": "OK",
    }  # fmt: skip
    made = json.dumps({"trace": {"trace_info": info}}).encode()
    status, text = ask(ui.port, "POST", "/api/3.0/mlflow/traces", as_json, made)
    assert status == 200, text
    (desk.folder / "owner" / "traces.json").write_text(json.dumps({"spans": [], "x": SECRET}))
    tag = json.dumps({"key": "mlflow.artifactLocation", "value": desk.wanted.parent.as_uri()})
    status, text = ask(ui.port, "PATCH", "/api/3.0/mlflow/traces/tr-1/tags", as_json, tag.encode())
    assert status == 200, text
    return [
        ("GET", f"/ajax-api/{api}/mlflow/get-trace-artifact?request_id=tr-1")
        for api in ("2.0", "3.0")
    ]


@pytest.mark.parametrize(
    "location",
    ["/", "{folder}/theirs", "file://{folder}/theirs", "file:{folder}/theirs", "file://x{folder}",
     "{home}/mlartifacts/../..", "file://{home}/mlartifacts/%2e%2e", "{home}", "s3://bucket/x",
     "theirs", "FILE://{folder}", "{home}/mlartifacts2", "file:///tmp/%00", "mlflow-artifacts:/x"],
)  # fmt: skip
def test_no_experiment_is_made_that_keeps_artifacts_elsewhere(
    desk: Desk, ui: Served, location: str
) -> None:
    place = location.format(folder=desk.folder, home=desk.home.folder)
    for api in ("api", "ajax-api"):
        status, text = create_experiment(ui, api, place)
        assert status in {400, 403}, text
    assert desk.client.get_experiment_by_name(place) is None


def create_experiment(ui: Served, api: str, place: str) -> tuple[int, str]:
    as_json = {"Authorization": f"Bearer {ui.token}", "Content-Type": "application/json"}
    content = json.dumps({"name": place, "artifactLocation": place}).encode()
    return ask(ui.port, "POST", f"/{api}/2.0/mlflow/experiments/create", as_json, content)


def test_the_owner_reads_and_writes_artifacts_of_the_home(desk: Desk, ui: Served) -> None:
    owner = {"Cookie": f"segan-ray-{ui.port}={ui.token}"}
    (desk.artifacts / "aside").symlink_to("notes")
    for path in ("notes/kept.txt", "aside/kept.txt"):
        for method, way in reading(desk.run, path)[:2]:
            assert ask(ui.port, method, way, owner) == (200, "it is here")
    status, text = ask(ui.port, *reading(desk.run, "notes")[-1], owner)
    assert (status, "notes/kept.txt" in text) == (200, True)
    at = f"?run_uuid={desk.run}&path=notes/more.txt"
    upload = f"/ajax-api/2.0/mlflow/upload-artifact{at}"
    assert ask(ui.port, "POST", upload, owner, b"more")[0] == 200
    assert (desk.artifacts / "notes" / "more.txt").read_text() == "more"
    for place in (f"{desk.home.artifacts}/apart", desk.home.artifacts.as_uri()):
        assert create_experiment(ui, "api", place)[0] == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:1", 200), ("localhost:8080", 200), ("[::1]:5000", 200), ("localhost", 200),
     ("10.evil.org", 403), ("192.168.evil.org:5000", 403), ("localhost.evil.org:5000", 403)],
)  # fmt: skip
def test_only_names_of_loopback_are_answered_to(ui: Served, host: str, status: int) -> None:
    owner = {"Authorization": f"Bearer {ui.token}", "Host": host}
    assert ask(ui.port, "GET", "/", owner)[0] == status


def test_the_assistant_is_off(ui: Served) -> None:
    """It would work on any file of its owner's."""
    owner = {"Authorization": f"Bearer {ui.token}", "Content-Type": "application/json"}
    at = "/ajax-api/3.0/mlflow/assistant"
    for path in ("config", "providers"):
        status, text = ask(ui.port, "GET", f"{at}/{path}", owner)
        assert (status, list(json.loads(text)["providers"])) == (200, [])
    for method, path in (
        ("PUT", "config"), ("POST", "message"), ("POST", "skills/install"),
        ("GET", "providers/claude_code/health"),
        ("GET", "sessions/4f5b1b1e-6f0a-4d9c-8f0e-0a5b6c7d8e9f/stream"),
    ):  # fmt: skip
        assert ask(ui.port, method, f"{at}/{path}", owner, b"{}")[0] == 403


def test_nothing_of_its_owners_is_tidied_away_through_a_link_in_tmp(desk: Desk, ui: Served) -> None:
    assert desk.thesis.is_dir()


def test_a_client_of_mlflow_joins_with_the_token(
    desk: Desk, ui: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    joined = MlflowClient(ui.place.rstrip("/"))
    with pytest.raises(MlflowException, match="MLFLOW_TRACKING_TOKEN"):
        joined.get_run(desk.run)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", ui.token)
    assert joined.get_run(desk.run).info.run_id == desk.run
