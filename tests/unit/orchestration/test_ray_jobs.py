"""Jobs: which files and variables travel, and which commands are refused before that."""

from __future__ import annotations

import http.server
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from segan_ray import __version__
from segan_ray.cli import begin_job, jobs
from segan_ray.cli.packing import pack, parse
from segan_ray.errors import ClusterError, ConfigError, SweepError
from segan_ray.orchestration.jobs import job_logs
from segan_ray.orchestration.jobs.dashboard import check_address, dashboard
from segan_ray.orchestration.jobs.job_spec import (
    LARGEST_FILE_BYTES,
    SECRETS,
    JobSpec,
    carried,
    check_open,
    environment_of,
    seen_from_afar,
    unsent_of,
)
from segan_ray.orchestration.jobs.ray_jobs import LOST, SWEEP, Cluster, Job, lay_out, reason_of
from tests.integration.backends import free_ports
from tests.unit.command_line import refused, segan

SPACE = "name: small\nparameters:\n  segmentor.lr: {type: float, low: 1.0e-5, high: 1.0e-2}\n"
NASTY = ["a b", "$(touch pwned)", "; exit 7 #", "'\"", "`id`", "${HOME}", "\\", "&&", "ü", "*"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a space and a secret beside it; no settings in the environment."""
    for name in (*SECRETS, "OPTUNA_STORAGE", "SEGAN_RAY_HOME", "SEGAN_RAY_STORAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.of.mine.yaml").write_text(SPACE)
    (tmp_path / ".env").write_text("AWS_SECRET_ACCESS_KEY=planted\n")
    return tmp_path


def packed(*command: str, package: bool = False) -> JobSpec:
    return pack(command, package, lambda sentence: None)


def test_the_command_is_rewritten_to_what_is_there(here: Path) -> None:
    spec = packed(
        "tune", "store", "--space", "space.of.mine.yaml", "--trials", "3", "--name", "mine"
    )
    assert spec.words == (
        "tune", str(here / "store"), "--space", "space.yaml", "--name", "mine", "--trials", "3",
    )  # fmt: skip
    assert spec.files == {"space.yaml": SPACE.encode()}
    assert spec.home == str(here / "segan-ray-home")
    assert spec.again == (
        "--", "tune", "store", "--space", "space.of.mine.yaml", "--name", "mine", "--trials", "3",
        "--resume",
    )  # fmt: skip


def test_a_name_is_settled_at_submission() -> None:
    spec = packed("tune", "s3://bucket/store", "--space", "space.of.mine.yaml")
    assert spec.sweep.startswith("small-")
    assert spec.words[1] == "s3://bucket/store"
    assert spec.words[spec.words.index("--name") + 1] == spec.sweep
    assert packed("train", "store", "--home", "h").sweep.startswith("train-")
    with pytest.raises(SweepError, match="--name"):
        packed("tune", "store", "--space", "space.of.mine.yaml", "--resume")


def test_shipped_spaces_and_configs_travel_too(here: Path) -> None:
    assert b"name: smoke" in packed("tune", "store", "--space", "smoke").files["space.yaml"]
    (here / "my.yaml").write_text("critic: {depth: 4}\n")
    spec = packed("train", "store", "--config", "my.yaml", "--set", "training.epochs=2")
    assert spec.files == {"config.yaml": b"critic: {depth: 4}\n"}
    assert spec.words[-4:] == ("--set", "training.epochs=2", "--name", spec.sweep)
    assert packed("train", "store").files == {}


@pytest.mark.slow
@given(
    store=st.text("abc/.-_ ", min_size=1).filter(lambda text: not text.startswith("-")),
    name=st.none() | st.from_regex(r"[a-z][a-z0-9.-]{0,8}", fullmatch=True),
    trials=st.none() | st.integers(1, 999),
    resume=st.booleans(),
    repeat_top=st.integers(0, 9),
)
def test_what_is_parsed_is_typed_again_as_it_was(
    store: str, name: str | None, trials: int | None, resume: bool, repeat_top: int
) -> None:
    line = ["tune", store, "--space", "x", *(["--resume"] if resume else [])]
    line += [] if name is None else ["--name", name]
    line += [] if trials is None else [f"--trials={trials}"]
    line += [f"--repeat-top={repeat_top}"]
    typed = parse(line)
    again = parse(typed.words({}))
    assert (again.values, again.typed) == (typed.values, typed.typed)


@pytest.mark.parametrize("command", ["promote", "evaluate", "submit", "delete", "sh"])
def test_only_what_trains_can_be_a_job(command: str) -> None:
    with pytest.raises(typer.BadParameter, match="only tune and train"):
        parse([command, "x"])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--", "promote", "x"],
        ["--", "tune", "store"],
        ["--", "tune", "store", "--space", "x", "--nonsense"],
        ["--list", "--", "train", "store"],
        ["--list", "--stop", "x"],
        ["--nonsense"],
    ],
)
def test_wrong_syntax_exits_2(here: Path, arguments: list[str]) -> None:
    result = segan("submit", "--address", "http://127.0.0.1:1", *arguments, cwd=here)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""


def test_what_cannot_be_a_space_does_not_travel(here: Path) -> None:
    (here / "link.yaml").symlink_to(here / ".env")
    for name in (".env", "link.yaml"):
        with pytest.raises(ConfigError):
            packed("tune", "store", "--space", name, "--name", "n")
    (here / "large.yaml").write_bytes(b"#" * (LARGEST_FILE_BYTES + 1))
    with pytest.raises(ClusterError, match="larger than 1 MiB"):
        carried(here / "large.yaml")
    with pytest.raises(ClusterError, match="No such file"):
        carried(here / "absent.yaml")


def test_a_folder_that_travels_holds_nothing_else(here: Path) -> None:
    for place in (here / "sub", here / "folder"):
        place.mkdir()
    (here / "sub" / "other.yaml").write_text(SPACE)
    spec = packed("tune", "store", "--space", "folder/../sub/other.yaml", package=True)
    uploads = lay_out(spec, here / "folder")
    files = Path(uploads["working_dir"])
    assert [path.name for path in files.rglob("*")] == ["space.yaml"]
    (code,) = uploads["py_modules"]
    names = {str(path.relative_to(code)) for path in Path(code).rglob("*")}
    assert {"__init__.py", "cli/begin_job.py", "presets/paper.yaml"} <= names
    assert not [name for name in names if "__pycache__" in name or "/." in f"/{name}"]
    assert not [path for path in Path(code).rglob("*") if path.is_symlink()]


def test_without_package_no_code_travels(here: Path) -> None:
    assert lay_out(packed("train", "store"), here) == {}


def test_addresses_without_secrets_travel_and_others_are_named() -> None:
    variables = {
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "OPTUNA_STORAGE": "postgresql://me:planted@db/studies",
        "SEGAN_RAY_STORAGE": "s3://bucket/segan",
        "SEGAN_RAY_HOME": "home",
        "AWS_SECRET_ACCESS_KEY": "planted",
        "MLFLOW_TRACKING_TOKEN": "",
        "PATH": "/bin",
    }
    sent, needed = environment_of(variables)
    assert sent == {
        "MLFLOW_TRACKING_URI": "http://mlflow:5000",
        "SEGAN_RAY_STORAGE": "s3://bucket/segan",
        "SEGAN_RAY_HOME": str(Path("home").resolve()),
    }
    assert needed == ("OPTUNA_STORAGE",)
    assert unsent_of(variables, needed) == ("OPTUNA_STORAGE", "AWS_SECRET_ACCESS_KEY")


def test_no_secret_is_in_anything_that_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    for name in SECRETS:
        monkeypatch.setenv(name, "planted-secret")
    monkeypatch.setenv("OPTUNA_STORAGE", "postgresql://me:planted-secret@db/studies")
    monkeypatch.setenv("SEGAN_RAY_STORAGE", "s3://bucket/x?token=planted-secret")
    spec = pack(["tune", "s3://b/s", "--space", "smoke"], False, said.append)
    everything = (
        spec.entrypoint(),
        spec.variables("again"),
        spec.files,
        spec,
        said,
    )
    assert "planted-secret" not in str(everything)
    assert "--needs OPTUNA_STORAGE --needs SEGAN_RAY_STORAGE" in spec.entrypoint()
    assert "OPTUNA_STORAGE" in said[-1]


@pytest.mark.parametrize("word", ["ftp://me:planted-secret@host/store", "x=planted-secret"])
def test_a_command_with_a_secret_is_refused(word: str) -> None:
    with pytest.raises(ClusterError, match="holds a password") as caught:
        check_open(("train", "store", word), {"AWS_SECRET_ACCESS_KEY": "planted-secret"})
    assert "planted-secret" not in str(caught.value)


def test_places_mean_the_same_everywhere(here: Path) -> None:
    assert seen_from_afar("sqlite:///runs.db") == f"sqlite:///{here}/runs.db"
    assert seen_from_afar("sqlite:////data/runs.db") == "sqlite:////data/runs.db"
    assert seen_from_afar("/data") == "/data"
    assert seen_from_afar("s3://bucket/x") == "s3://bucket/x"


def run_entrypoint(spec: JobSpec, path: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["/bin/sh", "-c", spec.entrypoint()],
        env={"PATH": str(path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_shell_hands_every_word_on_as_it_is(here: Path, monkeypatch) -> None:
    python = here / "bin" / "python3"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\n[ "$2" = -c ] && exit 0\nfor w in "$@"; do echo "<$w>"; done\n')
    python.chmod(0o755)
    settings = [word for text in NASTY for word in ("--set", text)]
    spec = packed("train", "a store", *settings, "--name", "n")
    ran = run_entrypoint(spec, python.parent)
    words = [*spec.words]
    assert words[1::1][:2] == [str(here / "a store"), "--set"]
    shown = ran.stdout.splitlines()
    assert shown[-len(words) - 1 :] == ["<-->", *(f"<{word}>" for word in words)]
    assert not (here / "pwned").exists()


def test_the_first_python_that_has_both_is_taken(here: Path) -> None:
    lacking, having = here / "bin" / "python3", here / "bin" / "python"
    lacking.parent.mkdir()
    lacking.write_text("#!/bin/sh\nexit 1\n")
    having.write_text('#!/bin/sh\n[ "$2" = -c ] && exit 0\necho having\n')
    for program in (lacking, having):
        program.chmod(0o755)
    assert run_entrypoint(packed("train", "s"), lacking.parent).stdout == "having\n"


def test_a_node_without_segan_ray_says_so(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    ran = run_entrypoint(packed("train", "s"), here)
    assert ran.returncode == 1
    assert "no Python on the head node has both ray and segan_ray" in ran.stderr
    assert "--package" in ran.stderr


def test_the_node_must_have_the_version_and_what_was_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPTUNA_STORAGE", "x")
    assert begin_job.missing(__version__, ["OPTUNA_STORAGE"]) is None
    assert "send it along" in str(begin_job.missing("0.0.0", []))
    absent = begin_job.missing(__version__, ["OPTUNA_STORAGE", "SEGAN_RAY_STORAGE"])
    assert str(absent).startswith("SEGAN_RAY_STORAGE: set where the job was submitted")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (None, "No cluster is named"),
        ("ray://head:10001", "Ray Client's"),
        ("head:6379", "no dashboard's"),
        ("auto", "no dashboard's"),
        ("http://", "no dashboard's"),
        ("redis://:planted@head", "no dashboard's"),
    ],
)
def test_other_addresses_of_a_cluster_are_explained(address: str | None, words: str) -> None:
    with pytest.raises(ClusterError, match="http://head:8265") as caught:
        check_address(address)
    assert words in str(caught.value)
    assert "planted" not in str(caught.value)


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers what its path asks for: /CODE/BODY."""

    code, body = 404, b"nothing here"

    def do_GET(self) -> None:
        self.send_response(self.code)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server() -> Iterator[tuple[str, type[Answer]]]:
    handler = type("Handler", (Answer,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}", handler
        served.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("code", "body", "words"),
    [
        (404, b"no", "no Ray dashboard"),
        (200, b"<html>", "no Ray dashboard"),
        (200, b'{"version": "3"}', "no Ray dashboard"),
        (500, b"", "no Ray dashboard"),
        (200, b'{"ray_version": "1.8.0"}', "Ray version 1.8.0 is running"),
        (401, b"who", "asks for a token"),
        (403, b"not you", "asks for a token"),
    ],
)
def test_what_is_no_usable_dashboard_is_explained(
    server: tuple[str, type[Answer]], monkeypatch: pytest.MonkeyPatch, code, body, words
) -> None:
    address, handler = server
    handler.code, handler.body = code, body
    # The argument goes before the variable.
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    with pytest.raises(ClusterError, match=words) as caught:
        dashboard(address)
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "RAY_API_SERVER_ADDRESS" not in os.environ


def test_an_address_where_nothing_is(here: Path) -> None:
    (port,) = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    refused(segan("submit", "--address", address, "--list", cwd=here), "nothing answers")
    refused(segan("submit", "--address", "ray://head:10001", "--list", cwd=here), "Ray Client's")


def test_why_a_job_ended() -> None:
    log = "failed with exit code 1, last logs:\na\nError: one\nError: two\nGo on: x\n"
    assert reason_of(log, 1) == "two"
    assert reason_of("failed with exit code -9, last logs:\ntrial 1", -9) == (
        "its process was killed by signal 9."
    )
    assert reason_of("Job was intentionally stopped.", None) == "Job was intentionally stopped."
    assert reason_of("", None) == ""


class DroppingClient:
    """A dashboard whose connections drop after some pieces; each sends the log from the start."""

    def __init__(self, log: list[str], drops: list[int | None]) -> None:
        self.log, self.drops = log, drops

    async def tail_job_logs(self, job: str) -> AsyncIterator[str]:
        until = self.drops.pop(0)
        for piece in self.log[:until]:
            yield piece
        if until is not None:
            raise RuntimeError("WebSocket connection closed unexpectedly")

    def get_job_logs(self, job: str) -> str:
        return "".join(self.log)

    def get_job_info(self, job: str) -> SimpleNamespace:
        return SimpleNamespace(
            submission_id=job, metadata={"segan.sweep": "s"}, runtime_env={}, start_time=0,
            status=SimpleNamespace(value="RUNNING" if self.drops else "SUCCEEDED"), message="",
            driver_exit_code=0,
        )  # fmt: skip


JOB = Job("s-1", "s", "RUNNING", None, "", "")


@given(
    st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=8),
    st.lists(st.integers(0, 8), max_size=4),
    st.booleans(),
)
def test_a_log_is_shown_once_however_often_the_connection_drops(
    log: list[str], drops: list[int], whole: bool
) -> None:
    client = DroppingClient(log, [*drops, None if whole else 0])
    shown: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_logs, "POLL_S", 0)
        ended = job_logs.follow(Cluster("http://head:8265", client), JOB, shown.append)
    assert ended.status == "SUCCEEDED"
    assert "".join(shown) == "".join(log)


def test_a_job_that_the_cluster_forgot_is_lost() -> None:
    client = DroppingClient(["some"], [1, 1])

    def forgotten(job: str) -> None:
        raise RuntimeError("Request failed with status code 404: Job s-1 does not exist.")

    client.get_job_info = forgotten
    ended = job_logs.follow(Cluster("http://head:8265", client), JOB, lambda piece: None)
    assert ended == replace(JOB, status=LOST, message=ended.message)
    assert "head restarted" in ended.message


def test_a_dashboard_that_stays_away_ends_the_following(monkeypatch: pytest.MonkeyPatch) -> None:
    client = DroppingClient([], [0, 0])

    def away(job: str) -> None:
        raise OSError("refused")

    client.get_job_info = away
    monkeypatch.setattr(job_logs, "AWAY_S", -1.0)
    with pytest.raises(ClusterError, match="--follow s-1"):
        job_logs.follow(Cluster("http://head:8265", client), JOB, lambda piece: None)


def test_the_command_to_go_on_can_be_typed(here: Path) -> None:
    (here / "my space.yaml").write_text(SPACE)
    spec = packed("tune", "a store", "--space", "my space.yaml", "--name", "n", package=True)
    words = shlex.split(Cluster("http://head:8265", None).command(*spec.again))
    assert words == [
        "segan-ray", "submit", "--address", "http://head:8265", "--package", "--", "tune",
        "a store", "--space", "my space.yaml", "--name", "n", "--resume",
    ]  # fmt: skip


def test_a_password_in_the_clusters_address_is_in_no_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The command that goes on with a job is in the job's environment, which Ray shows.
    details = SimpleNamespace(
        submission_id="critic-1",
        metadata={SWEEP: "critic"},
        runtime_env={},
        start_time=0,
        status=SimpleNamespace(value="RUNNING"),
        message="",
        driver_exit_code=None,
    )
    client = SimpleNamespace(list_jobs=lambda: [details])
    cluster = Cluster("https://me:planted@ray.example.com", client)  # type: ignore[arg-type]
    assert cluster.command("--list") == (
        "segan-ray submit --address https://me:***@ray.example.com --list"
    )
    jobs._list(cluster, as_json=False)
    said = capsys.readouterr().out
    assert "critic-1" in said
    assert "planted" not in said
