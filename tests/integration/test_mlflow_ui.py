"""The MLflow UI as its users meet it, in headless Chromium, on a home that needed no Ray."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segan_ray.config import Experiment
from segan_ray.data.store.opened_store import read_manifest
from segan_ray.data.store.origin import origin_of
from segan_ray.evaluation.inference.packaged_model import load_model
from segan_ray.home import Home
from segan_ray.tracking.client.connection import connect
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.description.views import (
    EVALUATIONS,
    TRIALS,
    run_page,
    trials_page,
    view_page,
)
from segan_ray.tracking.reading.sweeps import read_sweep
from segan_ray.tracking.recording.evaluation_run import Subject, evaluation_run
from segan_ray.tracking.recording.recorder import Recorder
from segan_ray.tracking.registry.aliases import move_alias
from segan_ray.tracking.registry.model_versions import fetched, register
from segan_ray.tracking.registry.package import package_model
from tests.integration import browsing
from tests.integration.serving import PROGRAM, Served, served
from tests.unit.trained import checkpoint

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = pytest.mark.full

METRIC = "val/dice_mean"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
WIDTH, HEIGHT = 64, 48
"""Of the overlay picture, in pixels."""
PATIENCE_MS = 20_000
SPACE = """\
name: depths
parameters:
  segmentor.lr: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
  critic.depth: {type: int, low: 1, high: 3}
"""
TEST_DICE = 0.5175
SCORES = {"000": (0.31, 0.42, 0.53), "001": (0.25, 0.61, 0.64), "002": (0.11, 0.12)}


@pytest.fixture(scope="module")
def home(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with a sweep of three trials, the best of which is the champion, and is evaluated."""
    folder = tmp_path_factory.mktemp("ui")
    home = Home.at(folder / "home")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        card = StoreCard("/data/glioma-store", "f1ngerpr1nt", {"train": 8, "val": 2})
        recorder = Recorder.for_sweep(
            home, "depths", card, METRIC, "max", SPACE, home.sweeps / "depths"
        )
        for trial, scores in SCORES.items():
            train(recorder, home, trial, scores)
        recorder.close("finished")
        best = read_sweep(home, "depths").best
        assert best is not None
        tags = {
            "segan.sweep": "depths", "segan.trial": best.trial, f"segan.{METRIC}": "0.64",
            "segan.verdict": "There was no champion.",
        }  # fmt: skip
        client = connect(home)
        model = load_model(checkpoint(folder / "weights", origin_of(read_manifest(store))))
        package = package_model(client, best.mlflow_run, model)
        move_alias(client, "champion", register(client, best.mlflow_run, tags, package))
        with (
            fetched(home, "champion") as model,
            evaluation_run(client, home, Subject(model, card, None, own=True)) as run,
        ):
            run.log_summary({"whole": {"dice": {"mean": TEST_DICE}, "hd95": {"mean": 7.25}}})
        yield home


def train(recorder: Recorder, home: Home, trial: str, scores: tuple[float, ...]) -> None:
    depth = int(trial) + 1
    recorder.start_trial(trial, Experiment(), {"segmentor.lr": 0.001, "critic.depth": depth})
    for epoch, score in enumerate(scores, start=1):
        dice = {f"val/dice_{region}": score for region in ("whole", "core", "enhancing")}
        picture = io.BytesIO()
        Image.new("RGB", (WIDTH + epoch, HEIGHT), (0, 60 * epoch, 0)).save(picture, "PNG")
        scores_now = {METRIC: score, **dice}
        recorder.log_epoch(trial, epoch, scores_now, picture=picture.getvalue())
    folder = home.sweeps / "depths" / "checkpoints" / trial / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"epoch": len(scores)}))
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(picture).save(folder / "validation.png")
    recorder.end_trial(trial, "completed", None, str(folder))


@pytest.fixture(scope="module")
def server(home: Home) -> Iterator[Served]:
    with served(home) as server:
        yield server


@pytest.fixture(scope="module")
def ui(server: Served) -> str:
    """Where it is, for a browser that was let in."""
    return server.place


@pytest.fixture(scope="module")
def chromium() -> Iterator[playwright.Browser]:
    with browsing.chromium(QUIET) as browser:
        yield browser


@pytest.fixture
def page(chromium: playwright.Browser, server: Served) -> Iterator[playwright.Page]:
    """A page of a browser that opened the address it was told; no request of it may fail."""
    page = chromium.new_page(viewport={"width": 1600, "height": 1000})
    page.set_default_timeout(PATIENCE_MS)
    failed: list[tuple[int, str]] = []
    page.context.on(
        "response",
        lambda got: failed.append((got.status, got.url)) if got.status >= 400 else None,
    )
    page.goto(server.address)
    assert server.token not in page.url
    yield page
    page.close()
    # Whether MLflow's login is installed; without it there is none to ask.
    login = f"{server.place}ajax-api/2.0/mlflow/users/current"
    assert [pair for pair in failed if pair != (404, login)] == []


def see(page: playwright.Page, *texts: str) -> None:
    for text in texts:
        page.get_by_text(text).locator("visible=true").first.wait_for()


def columns(page: playwright.Page) -> list[str]:
    page.locator(".ag-header-cell", has_text=METRIC).wait_for()
    return page.locator(".ag-header-cell[col-id]").evaluate_all(
        "cells => cells.map(cell => [cell.getBoundingClientRect().x, cell])"
        ".sort((a, b) => a[0] - b[0]).map(([x, cell]) => cell.getAttribute('col-id'))"
    )


def test_it_opens_on_the_sweeps_with_the_columns_that_matter(
    page: playwright.Page, ui: str, home: Home
) -> None:
    page.goto(ui)
    see(page, "depths")
    shown = columns(page)
    first = ["metrics.`val/dice_mean`", "metrics.`val/dice_whole`", "metrics.`val/dice_core`"]
    at = shown.index(first[0])
    assert shown[at : at + 3] == first
    assert shown.index("params.`critic.depth`") > at
    see(page, "0.64")
    assert page.get_by_text("depths-001").count() == 0
    page.locator(".ag-row", has_text="depths").first.locator("button, [role=button]").first.click()
    see(page, "depths-000", "depths-001", "depths-002", "0.53")


def test_evaluations_show_their_test_scores(page: playwright.Page, ui: str) -> None:
    page.goto(ui)
    see(page, "evaluation-champion", f"{TEST_DICE:.3f}")
    page.goto(ui + view_page("1", EVALUATIONS))
    see(page, "evaluation-champion", "Evaluations on test patients", f"{TEST_DICE:.3f}", "7.25")


def test_trials_can_be_seen_best_first(page: playwright.Page, ui: str) -> None:
    page.goto(ui + view_page("1", TRIALS))
    see(page, "depths-000", "All trials, best first")
    rows = page.locator(".ag-center-cols-container .ag-row, .ag-pinned-left-cols-container .ag-row")
    rows.filter(has_text="depths-002").first.wait_for()
    named = page.locator(".ag-row", has_text="depths-0")
    ordered = sorted(named.all(), key=lambda row: int(row.get_attribute("row-index") or -1))
    names = [row.inner_text() for row in ordered]
    assert [next(trial for trial in SCORES if f"depths-{trial}" in name) for name in names] == [
        "001", "000", "002"
    ]  # fmt: skip


def test_a_sweep_says_what_it_asks_and_what_came_of_it(
    page: playwright.Page, ui: str, home: Home
) -> None:
    client = connect(home)
    (parent,) = client.search_runs(["1"], "tags.`segan.kind` = 'sweep'")
    page.goto(ui + run_page("1", parent.info.run_id))
    see(page, "Result:", "Which values of")
    page.get_by_text("Show more").click()
    see(page, "segan-ray promote depths")
    with page.expect_popup() as opened:
        page.get_by_text("Their learning curves").click()
    opened.value.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for()
    see(opened.value, "depths-001")
    opened.value.close()


def test_a_run_shows_numbers_settings_dataset_and_what_was_drawn(
    page: playwright.Page, ui: str, home: Home
) -> None:
    page.goto(ui + run_page("1", best_run(home)))
    see(page, "depths-001", METRIC, "0.64", "training.epochs", "glioma-store", "A trial of")


def test_runs_can_be_compared(page: playwright.Page, ui: str, home: Home) -> None:
    runs = json.dumps([trial.mlflow_run for trial in read_sweep(home, "depths").trials])
    page.goto(f'{ui}#/compare-runs?runs={runs}&experiments=["1"]')
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    see(page, "depths-000", "depths-001", "depths-002")


def test_charts_draw_every_trial_by_epoch(page: playwright.Page, ui: str) -> None:
    page.goto(ui + trials_page("1", "depths", charts=True))
    page.locator(".js-plotly-plot .scatterlayer .trace").first.wait_for()
    chart = page.locator(".js-plotly-plot", has=page.locator(".scatterlayer .trace")).first
    assert chart.locator(".scatterlayer .trace").count() >= len(SCORES)


def test_an_overlay_is_shown_as_a_picture(page: playwright.Page, ui: str, home: Home) -> None:
    page.goto(f"{ui}#/experiments/1/runs/{best_run(home)}/artifacts/overlays/validation.png")
    page.wait_for_function(
        "([w, h]) => [...document.images].some(i => i.naturalWidth == w && i.naturalHeight == h)",
        arg=[WIDTH, HEIGHT],
    )


def test_pictures_of_epochs_have_a_slider(page: playwright.Page, ui: str, home: Home) -> None:
    page.goto(f"{ui}#/experiments/1/runs/{best_run(home)}/model-metrics")
    see(page, "dice_mean")
    # They are the last of all charts, which are drawn once they are in sight.
    down = "() => document.querySelectorAll('*').forEach(each => each.scrollTop = 1e6)"
    slider = page.get_by_role("slider").first
    for _ in range(20):
        page.evaluate(down)
        if slider.is_visible():
            break
        page.wait_for_timeout(500)
    slider.focus()
    seen = "w => [...document.images].some(i => i.naturalWidth && i.currentSrc.includes(w))"
    for epoch in (1, 2, 3):
        page.keyboard.press("ArrowRight")
        page.wait_for_function(seen, arg=f"step%2B{epoch}%2B")


def test_the_registry_shows_versions_and_aliases(page: playwright.Page, ui: str) -> None:
    page.goto(ui)
    page.get_by_text("Model registry").first.click()
    page.get_by_role("link", name="segan", exact=True).click()
    see(page, "Version 1", "@ champion", "val/dice_mean 0.6400")


def test_a_browser_without_the_token_is_told_what_to_open(
    chromium: playwright.Browser, server: Served
) -> None:
    stranger = chromium.new_context().new_page()
    for path in ("", "#/experiments/1/runs", f"?token={server.token[::-1]}", "health"):
        answer = stranger.goto(server.place + path)
        assert answer is None or answer.status == 403
        see(stranger, "Open the whole address that segan-ray ui printed")
    stranger.context.close()


def test_a_link_from_another_page_leads_in_and_its_scripts_do_not(
    chromium: playwright.Browser, server: Served
) -> None:
    """A notebook is a page of another port, and so is what another user serves."""
    page = chromium.new_context().new_page()
    page.set_default_timeout(PATIENCE_MS)
    with other_pages(server) as address:
        for link in ("first", "again"):
            page.goto(address.format(host="localhost"))
            page.get_by_text(link, exact=True).click()
            see(page, "depths")
            assert page.url.startswith(f"{server.place}#")
        page.goto(address.format(host="127.0.0.1"))
        assert page.evaluate(READ, server.place + EXPERIMENT) == "TypeError: Failed to fetch"
    page.goto(server.place)
    assert page.evaluate(READ, server.place + EXPERIMENT) == 200
    page.context.close()


EXPERIMENT = "ajax-api/2.0/mlflow/experiments/get?experiment_id=1"
READ = """url => fetch(url, {credentials: "include"}).then(answer => answer.status, String)"""


@contextmanager
def other_pages(server: Served) -> Iterator[str]:
    """Serve a page with links to the UI on another port."""
    links = f'<a href="{server.address}">first</a> <a href="{server.place}">again</a>'

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(links.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        yield f"http://{{host}}:{other.server_port}/"
        other.shutdown()
        thread.join()


def test_ctrl_c_ends_it_without_a_word(home: Home) -> None:
    with served(home) as server:
        server.process.send_signal(signal.SIGINT)
        out, err = server.process.communicate(timeout=300)
    assert (server.process.returncode, out, err) == (0, "", "")


def test_a_port_that_is_taken_is_said_plainly(home: Home) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        result = subprocess.run(
            [*PROGRAM, "ui", "--home", str(home.folder), "--port", str(port)],
            capture_output=True, text=True, check=False, cwd=home.folder,
        )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.startswith(f"Error: Port {port} on 127.0.0.1 is taken")
    assert f"--port {port + 1}" in result.stderr


def best_run(home: Home) -> str:
    best = read_sweep(home, "depths").best
    assert best is not None
    return best.mlflow_run
