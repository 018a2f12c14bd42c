"""What looking at 3000 recorded trials takes: `sweeps`, `trials` and `report` as whole processes.

Two homes on SQLite: one with a sweep of all the trials, one with sixty sweeps that share them, with
learning curves of up to twenty epochs and eleven metrics. In turns with the commands, a
process that imports MLflow and does nothing else: what that takes, no program can do without that
uses MLflow for anything. The first round, while programs still come from disk, is not counted.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from time import perf_counter
from typing import Any, Final

import _run
from _many_trials import write_many

from segan_ray.home import Home

SWEEPS: Final = 60
TARGETS_S: Final = {"sweeps": 3.0, "trials": 3.0, "report": 8.0}
TARGET_BYTES: Final = 10e6
IMPORT: Final = "import mlflow"


def commands(folder: Path, trials: int, sweeps: int) -> dict[str, list[str]]:
    """Record the trials and return what is timed, by name."""
    one, several = Home(folder / "one"), Home(folder / "several")
    (name,) = write_many(one, 1, trials)
    write_many(several, sweeps, max(1, trials // sweeps))
    segan = [sys.executable, "-m", "segan_ray"]
    return {
        IMPORT: [sys.executable, "-c", IMPORT],
        "sweeps": [*segan, "sweeps", "--home", str(several.folder)],
        "trials": [*segan, "trials", name, "--home", str(one.folder)],
        "report": [*segan, "report", name, str(folder / "page.html"), "--home", str(one.folder)],
    }


def measure(timed: dict[str, list[str]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return (seconds, seconds of a processor) of each command in every round; they take turns."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in timed}
    for number in range(rounds + 1):
        for name, command in timed.items():
            start, before = perf_counter(), _processor_s()
            subprocess.run(command, check=True, capture_output=True)
            if number:
                taken[name].append((perf_counter() - start, _processor_s() - before))
    return taken


def _processor_s() -> float:
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.set_defaults(sweeps=SWEEPS)
    options = _run.begin(parser, trials=3, rounds=0, sweeps=2)
    with tempfile.TemporaryDirectory() as folder:
        timed = commands(Path(folder), options.trials, options.sweeps)
        taken = measure(timed, options.rounds)
        size = (Path(folder) / "page.html").stat().st_size
    device = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    seconds = {name: [wall for wall, _ in each] for name, each in taken.items()}
    processor = {name: [used for _, used in each] for name, each in taken.items()}
    detail = {
        "seconds": seconds, "processor": processor, "bytes": size, "trials": options.trials,
    }  # fmt: skip
    _run.finish(
        options, {"device": device, "ratios": _ratios(seconds, size), "detail": detail}, show
    )


def _ratios(seconds: dict[str, list[float]], size: int) -> dict[str, Any]:
    """Return every median and the page's size as shares of their targets."""
    values = {
        name: median(seconds[name]) / target for name, target in TARGETS_S.items() if seconds[name]
    }
    values["bytes"] = size / TARGET_BYTES
    return {name: {"value": v, "target": 1.0, "ok": v <= 1.0} for name, v in values.items()}


def show(document: dict[str, Any]) -> None:
    detail = document["detail"]
    base = detail["seconds"][IMPORT]
    print(f"{detail['trials']} trials: {document['device']}")
    print(f"{'':14}{'seconds':>9}{'range':>14}{'target':>8}{'to the import':>15}{'processor':>11}")
    for name, taken in detail["seconds"].items():
        # Of a round, not of medians: others may slow a whole round.
        ratio = median(one / other for one, other in zip(taken, base, strict=True))
        span = f"{min(taken):.1f} to {max(taken):.1f}"
        used = median(detail["processor"][name])
        target = f"{TARGETS_S[name]:g}" if name in TARGETS_S else ""
        print(f"{name:14}{median(taken):9.2f}{span:>14}{target:>8}{ratio:15.2f}{used:11.2f}")
    print(f"page: {detail['bytes'] / 1e6:.1f} MB, target {TARGET_BYTES / 1e6:g} MB")


if __name__ == "__main__":
    main()
