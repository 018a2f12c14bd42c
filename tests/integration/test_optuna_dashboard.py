"""Sweeps in Optuna's own dashboard, in a browser: one that has ended, and one that runs."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from segan_ray.home import Home
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.search.study.sweep_study import SweepStudy
from tests.integration.killing import eventually
from tests.integration.serving import free_port
from tests.integration.test_report_in_a_browser import browser
from tests.unit.search.study.test_study import space

__all__ = ["browser"]

pytestmark = pytest.mark.full

DASHBOARD = [sys.executable, "-c", "from optuna_dashboard._cli import main; main()"]


@contextmanager
def dashboard(database: Path) -> Iterator[str]:
    """Optuna's dashboard of a file, by its address."""
    port = free_port()
    arguments = [f"sqlite:///{database}", "--host", "127.0.0.1", "--port", str(port)]
    # A server of its own in Python, not the gunicorn that MLflow happens to bring.
    server = subprocess.Popen(
        [*DASHBOARD, *arguments, "--server", "wsgiref"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}/dashboard"

    def answers() -> bool:
        assert server.poll() is None
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        assert eventually(answers, within_s=60)
        yield address
    finally:
        server.terminate()
        server.wait()


def test_a_finished_and_a_running_sweep_are_shown(browser, tmp_path: Path) -> None:
    home = Home(tmp_path)
    storage = open_storage(home)
    ended = SweepStudy.create("ended", space(), storage, store="f")
    for score, outcome in ((0.4, "completed"), (0.7, "completed"), (0.2, "stopped")):
        number = ended.ask().number
        ended.report(number, 1, score)
        ended.tell(number, outcome)
    running = SweepStudy.create("running", space(), storage, store="f")
    running.report(running.ask().number, 1, 0.3)
    running.suspend()
    running.reopen()
    page = browser.new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    with dashboard(tmp_path / "optuna.db") as address:
        page.goto(address)
        page.get_by_text("ended", exact=False).first.wait_for()
        page.get_by_text("running", exact=False).first.wait_for()
        page.goto(f"{address}/studies/{ended.study._study_id}")
        page.get_by_text("val/dice_mean").first.wait_for()
        page.goto(f"{address}/studies/{ended.study._study_id}/trials")
        page.get_by_text("Best Trial").wait_for()
        assert page.get_by_text("Pruned").count() >= 1
        page.goto(f"{address}/studies/{running.study._study_id}/trials")
        page.get_by_text("Running").first.wait_for()
        page.get_by_text("critic.depth", exact=False).first.wait_for()
    assert problems == []
    page.close()
