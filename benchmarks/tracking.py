"""What tracking costs: epochs of one small run with it, without it, and with its server away.

Real runs on Ray, taking turns in one session. With tracking, an MLflow server on loopback takes
the records; away, the same server is stopped by a signal after the first epoch; without, whoever
records is handed nothing at all. An epoch counts from one report to the next, as the sweep's
process sees them, so waiting for anything in between counts too. Reports differ by what the
machine does beside; a ratio of 1 within the quartiles of the side without tracking is the target.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from threading import Timer
from time import perf_counter, sleep
from typing import Any
from unittest.mock import patch

import _run
from phantom_store import make_store

from segan_ray.config import load_experiment
from segan_ray.data.store.manifest import read_manifest
from segan_ray.home import Home
from segan_ray.orchestration.cluster.session import ray_session
from segan_ray.orchestration.tune import sweep as sweeps
from segan_ray.orchestration.tune.sweep_plan import Sweep
from segan_ray.search.results.trial_state import TrialState
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.tracking.description.card import StoreCard

SETTINGS = [
    "segmentor.base_width=4", "segmentor.depth=2", "critic.base_width=4", "critic.depth=1",
    "training.steps_per_epoch=20", "training.batch_size=4", "training.crop=48",
]  # fmt: skip
SIDES = ("without", "with", "away")


class Nothing:
    """A recorder that records nothing."""

    unfinished: tuple[str, ...] = ()

    @classmethod
    def for_sweep(cls, *_: Any, **__: Any) -> Nothing:
        return cls()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return ignore


def ignore(*_: Any, **__: Any) -> None:
    """Do nothing."""


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--workers", "1",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    with (folder / "server.log").open("w") as log:
        # As segan-ray's own server runs: without seven consumers of jobs that nobody gives it.
        quiet = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        process = subprocess.Popen(
            command, env=quiet, stdout=log, stderr=log, start_new_session=True
        )
    try:
        for _ in range(600):
            with suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=2):  # noqa: S310
                break
            sleep(0.2)
        yield uri, process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def epoch_seconds(run: Sweep, after_first: Callable[[], None]) -> list[float]:
    """Train and return the seconds between reports, the first two epochs aside."""
    heard: list[float] = []

    def hear(event: TrialState) -> None:
        if event.status == "running" and event.epoch > len(heard):
            heard.append(perf_counter())
            if len(heard) == 1:
                after_first()

    sweeps.search(run, hear, ignore)
    return [later - earlier for earlier, later in pairwise(heard[1:])]


def measure(
    folder: Path, epochs: int, rounds: int, sides: Sequence[str], warm_up: bool
) -> dict[str, list[float]]:
    store = make_store(folder, cases=8, spacing_mm=4.0)
    card = StoreCard(store, read_manifest(store).fingerprint, {})
    experiment = load_experiment(None, [*SETTINGS, f"training.epochs={epochs}"])
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    with ray_session(), server(folder) as (uri, process):
        os.environ["MLFLOW_TRACKING_URI"] = uri

        def take(side: str, number: int) -> list[float]:
            name = f"{side}-{number}"
            space, home = SearchSpace.of_experiment(name, experiment), Home(folder / "home")
            run = Sweep(name, space, "", store, card, home, "")
            if side == "without":
                with patch.object(sweeps, "Recorder", Nothing):
                    return epoch_seconds(run, ignore)
            if side == "with":
                return epoch_seconds(run, ignore)
            # A second an epoch: it comes back when the last one is long over.
            back = Timer(epochs, os.killpg, (process.pid, signal.SIGCONT))

            def leave() -> None:
                os.killpg(process.pid, signal.SIGSTOP)
                back.start()

            try:
                return epoch_seconds(run, leave)
            finally:
                back.join()

        if warm_up:  # all that starts once has started before a run counts
            take("with", -1)
        for number in range(rounds):
            turn = number % len(sides)
            for side in (*sides[turn:], *sides[:turn]):
                seconds[side] += take(side, number)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.set_defaults(sides=SIDES, warm_up=True)
    # With its server away, all that records is there.
    fewest = {"sides": ("without", "away"), "warm_up": False}
    options = _run.begin(parser, epochs=4, rounds=1, **fewest)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SEGAN_RAY_CACHE"] = f"{folder}/cache"
        seconds = measure(
            Path(folder), options.epochs, options.rounds, options.sides, options.warm_up
        )
    rows = {side: (median(s), *quantiles(s, n=4)[::2]) for side, s in seconds.items()}
    base, _, high = rows["without"]
    target = high / base
    ratios = {
        side: {"value": rows[side][0] / base, "target": target, "ok": rows[side][0] <= high}
        for side in options.sides[1:]
    }
    device = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    _run.finish(options, {"device": device, "ratios": ratios, "detail": rows}, show)


def show(document: dict[str, Any]) -> None:
    rows = document["detail"]
    base = rows["without"][0]
    print(f"An epoch of 20 small steps, seconds from report to report: {document['device']}")
    print(f"{'tracking':10}{'median':>9}{'quartiles':>18}{'ratio':>8}")
    for side, (middle, lower, upper) in rows.items():
        print(f"{side:10}{middle:9.3f}{f'{lower:.3f} to {upper:.3f}':>18}{middle / base:8.2f}")


if __name__ == "__main__":
    main()
