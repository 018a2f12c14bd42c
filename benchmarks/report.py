"""What the page of a sweep of 500 trials takes: `segan-ray report`, as a whole process.

The trials go through the recorder into MLflow on SQLite, a hundred epochs each and two of three
stopped early, as ASHA leaves them; then the command is timed. The first time, the system still
reads its programs from disk.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import _run
from phantom_store import make_store

from segan_ray.config import load_experiment
from segan_ray.data.manifest import read_manifest
from segan_ray.home import Home
from segan_ray.tracking.card import StoreCard
from segan_ray.tracking.recorder import Recorder

EPOCHS = (3, 9, 100)
METRICS = ("val/dice_mean", "val/dice_whole", "val/dice_core", "val/dice_enhancing")
TARGET_S, TARGET_BYTES = 10.0, 10e6
SPACE = Path(__file__).parents[1] / "search_spaces" / "critic.yaml"


def record(home: Home, store: Path, trials: int) -> None:
    """Record a sweep called ``many`` whose curves rise and level off."""
    chance = random.Random(0)
    card = StoreCard(store, read_manifest(store).fingerprint, {})
    recorder = Recorder.for_sweep(
        home, "many", card, METRICS[0], "max", SPACE.read_text(), home.sweeps / "many"
    )
    for number in range(trials):
        trial, epochs = f"{number:03d}", EPOCHS[number % 3]
        params = {
            "segmentor.lr": 10 ** chance.uniform(-5, -2.5),
            "critic.lr": 10 ** chance.uniform(-5, -2.5),
            "critic.depth": chance.randint(1, 5),
        }
        recorder.start_trial(trial, load_experiment(None, []), params)
        for epoch in range(1, epochs + 1):
            level = 0.8 * epoch / (epoch + 3) + chance.gauss(0, 0.02)
            recorder.log_epoch(trial, epoch, dict.fromkeys(METRICS, level))
        recorder.end_trial(trial, "completed" if epochs == 100 else "stopped", None, None)
    recorder.close("finished", patience_s=600)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    options = _run.begin(parser, trials=3, rounds=1)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder), cases=8, spacing_mm=4.0)
        home, page = Home(Path(folder) / "home"), Path(folder) / "report.html"
        record(home, store, options.trials)
        command = [sys.executable, "-m", "segan_ray", "report", "many", str(page)]
        for _ in range(options.rounds):
            start = perf_counter()
            subprocess.run([*command, "--home", str(home.folder)], check=True, capture_output=True)
            seconds.append(perf_counter() - start)
        size = page.stat().st_size
    values = {"seconds": (median(seconds), TARGET_S), "bytes": (size, TARGET_BYTES)}
    ratios = {
        name: {"value": value / target, "target": 1.0, "ok": value < target}
        for name, (value, target) in values.items()
    }
    device = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    detail = {"seconds": seconds, "bytes": size, "trials": options.trials}
    _run.finish(options, {"device": device, "ratios": ratios, "detail": detail}, show)


def show(document: dict[str, Any]) -> None:
    detail = document["detail"]
    seconds, size = detail["seconds"], detail["bytes"]
    print(f"segan-ray report of {detail['trials']} trials: {document['device']}")
    print(f"median {median(seconds):.1f} s [{min(seconds):.1f}, {max(seconds):.1f}], "
          f"{size / 1e6:.1f} MB; target {TARGET_S:g} s, {TARGET_BYTES / 1e6:g} MB")  # fmt: skip


if __name__ == "__main__":
    main()
