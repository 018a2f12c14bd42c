"""The main job through the command line: from an empty folder to a report and the UI.

Each command is once a process of its own, as a user has it; what else is asked of one is asked in
the process of the tests, which does the same and imports nothing again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.command_line import refused, segan

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium")
UMASK = 0o007
"""Of people who share their files with a group."""


class Desk:
    """A working folder and the command line in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            key: value
            for key, value in os.environ.items()
            if key not in {"MLFLOW_TRACKING_URI", "RAY_ADDRESS", "SEGAN_RAY_HOME"}
        }
        self.program = [sys.executable, "-c", "from segan_ray.cli.main import main; main()"]

    def run(self, *arguments: object) -> str:
        result = subprocess.run(
            [*self.program, *map(str, arguments)], cwd=self.folder, env=self.environment,
            umask=UMASK, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return result.stdout

    def document(self, *arguments: object) -> dict:
        return json.loads(self.run(*arguments, "--json"))

    def here(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Say a command in this process."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("RAY_ADDRESS", "SEGAN_RAY_HOME"):
                patch.delenv(name, raising=False)
            before = os.umask(UMASK)
            try:
                return segan(*arguments, cwd=self.folder)
            finally:
                os.umask(before)

    def document_here(self, *arguments: object) -> dict:
        done = self.here(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A desk on which a sweep of three trials has run, on 6 mm phantoms."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk.run("phantom", "data", "--cases", 42, "--spacing", 6)
    desk.run("prepare", "data", "store")
    space = ROOT / "search_spaces" / "smoke.yaml"
    desk.run("tune", "store", "--space", space, "--name", "first", "--trials", 3)
    return desk


def test_the_leaderboard(desk: Desk) -> None:
    board = desk.document("trials", "first")
    assert (board["sweep"], board["metric"], board["mode"]) == ("first", "val/dice_mean", "max")
    assert len(board["trials"]) == 3
    assert board["best"] == board["trials"][0]
    for trial in board["trials"]:
        assert trial["status"] in {"completed", "stopped"}
        assert set(trial["params"]) == {
            "segmentor.lr", "critic.lr", "critic.depth", "loss.scale_weights",
        }  # fmt: skip
        assert len(trial["params"]["loss.scale_weights"]) == trial["params"]["critic.depth"] + 1
    (listed,) = desk.document("sweeps")["sweeps"]
    assert listed["sweep"] == "first"
    assert listed["best"] == board["best"]["score"]
    assert "first" in desk.here("sweeps").stdout
    assert board["best"]["trial"] in desk.here("trials", "first").stdout


def test_promotion_evaluation_and_report(desk: Desk) -> None:
    rehearsed = desk.document_here("promote", "first", "--dry-run")
    assert (rehearsed["verdict"], rehearsed["version"]) == ("promoted", None)
    refused(desk.here("evaluate", "champion", "store"), "champion")

    promoted = desk.document("promote", "first")
    assert promoted["champion"] is None
    assert promoted["difference"] is None
    assert (promoted["verdict"], promoted["version"]) == ("promoted", "1")

    again = desk.document_here("promote", "first")
    assert again["verdict"] == "kept"
    assert again["difference"]["mean"] == 0
    forced = desk.document_here("promote", "first", "--force")
    assert (forced["verdict"], forced["forced"], forced["version"]) == ("promoted", True, "1")

    scores = desk.document(
        "evaluate", "champion", "store", "--reference", "threshold", "--output", "scores.json"
    )
    assert json.loads((desk.folder / "scores.json").read_text()) == scores
    splits = json.loads((desk.folder / "store" / "manifest.json").read_text())["splits"]
    assert [case["patient"] for case in scores["cases"]] == splits["test"]
    for summary in (scores["summary"], scores["references"]["threshold"]):
        assert list(summary) == ["whole", "core", "enhancing"]
        low, high = summary["whole"]["dice"]["ci95"]
        assert low <= summary["whole"]["dice"]["mean"] <= high

    desk.run("report", "first", "report.html")
    page = (desk.folder / "report.html").read_text()
    assert "first" in page
    assert f"{scores['summary']['whole']['dice']['mean']:.3f}" in page
    assert "<h3>Best patient" in page
    assert '<th scope="row">1</th><td>champion</td>' in page


@pytest.mark.endurance
def test_a_run_of_train_can_be_evaluated_by_name(desk: Desk) -> None:
    small = ["segmentor.base_width=4", "segmentor.depth=2", "training.batch_size=4"]
    settings = [*small, "variant=unet", "training.epochs=2", "training.steps_per_epoch=3"]
    flags = [flag for setting in settings for flag in ("--set", setting)]
    run = desk.document("train", "store", "--name", "baseline", *flags)
    assert run["epochs"] == 2
    assert run["best"]["epoch"] in {1, 2}
    assert 0 <= run["best"]["val/dice_mean"] <= 1
    assert Path(run["checkpoint"]).is_dir()
    by_name = desk.document_here("evaluate", "baseline", "store")
    by_folder = desk.document_here("evaluate", run["checkpoint"], "store")
    assert by_name["cases"] == by_folder["cases"]


def test_everything_written_follows_the_umask(desk: Desk) -> None:
    """Databases, outboxes, checkpoints, models and pictures, so that a group can share them."""
    desk.run("export", "champion", "exported")
    found = {
        (path.is_dir(), f"{stat.S_IMODE(path.lstat().st_mode):o}"): path
        for path in desk.folder.rglob("*")
    }
    assert set(found) == {(True, "770"), (False, "660")}, found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["trials", "furst"], "Did you mean 'first'?"),
        (["promote", "nothing"], "No sweep is called 'nothing'"),
        (["promote", "first", "--non-inferior", "2"], "between 0 and 1"),
        (["rollback", "--alias", "nobody"], "No version of the model has the alias 'nobody'"),
        (["evaluate", "nobody", "store"], "'nobody' is no checkpoint folder"),
        (["report", "first", "none/report.html"], "none"),
        (["evaluate", "data", "store"], "no checkpoint here"),
    ],
)
def test_what_is_not_there_is_said_plainly(desk: Desk, arguments: list[str], words: str) -> None:
    refused(desk.here(*arguments), words)


@pytest.fixture
def ui(desk: Desk) -> Iterator[str]:
    """The address that ``segan-ray ui`` tells; it is ended with all it started."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [*desk.program, "ui", "--port", str(port)], cwd=desk.folder, env=desk.environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert server.stderr is not None
    try:
        told = server.stderr.readline()
        address = re.search(rf"http://127\.0\.0\.1:{port}/\?token=[\w-]+", told)
        assert address, told + server.stderr.read()
        yield address[0]
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=300)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
def test_the_ui_shows_the_sweep(desk: Desk, ui: str) -> None:
    from playwright.sync_api import sync_playwright

    best = desk.document_here("trials", "first")["best"]
    quiet = [
        "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update",
    ]  # fmt: skip
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        page = browser.new_page()
        page.goto(f"{ui}#/experiments/1/runs")
        page.get_by_text("first", exact=True).first.wait_for(timeout=300_000)
        page.goto(f"{ui}#/experiments/1/runs/{best['mlflow_run']}")
        page.get_by_text(f"first-{best['trial']}").first.wait_for(timeout=300_000)
        page.get_by_text("val/dice_mean").first.wait_for(timeout=300_000)
        page.goto((desk.folder / "report.html").as_uri())
        page.locator(".main-svg").first.wait_for(timeout=300_000)
        browser.close()
