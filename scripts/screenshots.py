"""Take the pictures of docs/tracking-ui.md from a home: python scripts/screenshots.py HOME.

The home has a sweep and a promoted model, as `make demo` leaves it. Chromium is Debian's.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from segan_ray.home import Home
from segan_ray.search.results.ranking import SweepRecord
from segan_ray.tracking.description.views import TRIALS, run_page, trials_page, view_page
from segan_ray.tracking.reading.sweeps import list_sweeps

EXPERIMENT = "1"
IMAGES = Path(__file__).parents[1] / "docs" / "images"
SIZE = {"width": 1280, "height": 800}
COLOURS = 255
"""Enough for tables and lines, and a third of the bytes."""
CHART = ".js-plotly-plot .main-svg"


def main() -> None:
    """Serve the home, go through its pages, and save a picture of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("home", type=Path)
    parser.add_argument("--out", type=Path, default=IMAGES)
    arguments = parser.parse_args()
    home = Home.at(arguments.home)
    sweep = list_sweeps(home)[-1]
    with served(home) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport=SIZE)
        for name in shots(page, address, sweep):
            save(page, arguments.out / f"ui-{name}.png")
        browser.close()


def shots(page: Page, address: str, sweep: SweepRecord) -> Iterator[str]:
    """Go from page to page; the name of each comes when it is all there."""
    page.goto(address)
    row = page.locator(".ag-row", has_text=sweep.sweep).first
    row.locator("button, [role=button]").first.click()
    page.get_by_text(f"{sweep.sweep}-{sweep.trials[0].trial}").first.wait_for()
    yield "runs"
    page.goto(address + view_page(EXPERIMENT, TRIALS))
    page.get_by_text(TRIALS.name).wait_for()
    page.get_by_text(f"{sweep.sweep}-{sweep.trials[0].trial}").first.wait_for()
    yield "trials"
    page.goto(address + trials_page(EXPERIMENT, sweep.sweep, charts=True))
    page.get_by_placeholder("Search metric charts").fill("val/dice")
    page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for()
    yield "charts"
    runs = json.dumps([trial.mlflow_run for trial in sweep.trials])
    page.goto(f'{address}#/compare-runs?runs={runs}&experiments=["{EXPERIMENT}"]')
    page.locator(CHART).first.wait_for()
    yield "compare"
    best = sweep.best
    if best is not None:
        page.goto(address + run_page(EXPERIMENT, best.mlflow_run))
        page.get_by_text("val/dice_mean").first.wait_for()
        yield "run"
    page.goto(f"{address}#/models/segan")
    page.get_by_text("@ champion").first.wait_for()
    yield "registry"


def save(page: Page, path: Path) -> None:
    """Save the page as a picture of few colours, after what moves has come to rest."""
    page.wait_for_timeout(3000)
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1000} kB")


@contextmanager
def served(home: Home) -> Iterator[str]:
    """``segan-ray ui`` on a free port; gives the address once it answers, token and all."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "segan_ray", "ui", "--home", str(home.folder)]
    server = subprocess.Popen([*command, "--port", str(port)], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        said = server.stderr.readline()
        address = re.search(r"http://\S+", said)
        if address is None:
            sys.exit(said + server.stderr.read())
        yield address[0]
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
