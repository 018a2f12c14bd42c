"""What the process that runs a sweep takes when trials are many: a simulated sweep.

Everything is the product's own: `run_sweep` on Ray, the study on SQLite, the scheduler, the
outbox, MLflow on SQLite. Only what trains is not: a trial reads out the recorded curve of the
nearest point of a grid, see `replayed_trials.py`. So nothing waits for anything but the sweep's own
process, and the rate is the most that one driver manages. Before it, each by itself and at sizes
of their own: suggestions, records into MLflow, a manifest of many cases, room on many nodes.

The whole of it takes the better part of an hour; `--trials 500 --known 1000` a few minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any, Final
from unittest.mock import patch

import _run
import optuna
import psutil
from driver_parts import (
    MB,
    manifest_mb_and_s,
    message_bytes,
    recorded_epochs_a_second,
    room_s,
    slice_index_mb,
    suggestion_s,
)
from phantom_store import make_store
from recorded import SPACE
from replayed_trials import ReplayedTrainable

from segan_ray.data.store.manifest import read_manifest
from segan_ray.home import Home
from segan_ray.orchestration.train.worker_group_spec import WorkerGroupSpec
from segan_ray.orchestration.tune import run_trials
from segan_ray.orchestration.tune import sweep as sweeps
from segan_ray.orchestration.tune.sweep_plan import Sweep
from segan_ray.search.results.trial_state import TrialState
from segan_ray.search.space.space_file import load_space
from segan_ray.search.study.study_budget import Limits
from segan_ray.search.study.sweep_study import Point, SweepStudy
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.recording.recorder import Recorder

TENTHS: Final = 10
ENDS: Final = ("completed", "stopped", "failed")
TARGETS: Final = {
    "trials/s, last tenth to first": 0.5,
    "driver's memory, end to first tenth": 1.5,
    "records not in MLflow at the end, share": 0.01,
}
"""The first must not fall below its target, the others not rise above theirs."""


@dataclass(frozen=True)
class Moment:
    """What the sweep has come to, and what it took so far: CPU in seconds, memory in MB.

    ``head`` is all of Ray's processes that a head node has however many trials there are.
    """

    trials: int
    epochs: int
    seconds: float
    suggestion_s: float
    driver_mb: float
    driver_cpu_s: float
    head_mb: float
    head_cpu_s: float
    records_waiting: int


@dataclass
class Watch:
    """Looks at the processes whenever another tenth of the trials has ended."""

    every: int
    moments: list[Moment] = field(default_factory=list)
    suggestions_s: list[float] = field(default_factory=list)
    recorder: Recorder | None = None
    epochs: int = 0
    ended: int = 0
    _began: float = field(default_factory=perf_counter)
    _asked: int = 0

    def event(self, event: TrialState) -> None:
        """Count epochs and ends."""
        self.epochs += event.status == "running" and event.epoch > 0
        if event.status in ENDS:
            self.ended += 1
            if self.ended % self.every == 0:
                self.look()

    def look(self) -> None:
        """Add a moment."""
        driver = psutil.Process()
        head = [each for each in driver.children(recursive=True) if _of_head(each)]
        asked, self._asked = self.suggestions_s[self._asked :], len(self.suggestions_s)
        waiting = 0 if self.recorder is None else self.recorder.uploader.waiting
        self.moments.append(
            Moment(
                self.ended,
                self.epochs,
                perf_counter() - self._began,
                median(asked) if asked else 0.0,
                driver.memory_info().rss / MB,
                _cpu_s(driver),
                sum(each.memory_info().rss for each in head) / MB,
                sum(map(_cpu_s, head)),
                waiting,
            )
        )
        print(_line(self.moments[-1]), file=sys.stderr, flush=True)


def _of_head(process: psutil.Process) -> bool:
    """Tell Ray's own processes from workers and from those that wait to become one."""
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return not words.startswith("ray::") and "default_worker.py" not in words


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _line(moment: Moment) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in asdict(moment).items())


@dataclass(frozen=True)
class Fixed:
    """Room for so many trials, whatever the machine has: they compute nothing."""

    count: int

    @property
    def spec(self) -> WorkerGroupSpec:
        """What a trial's workers would get."""
        return WorkerGroupSpec(1, 1, 0)

    def now(self, wanted: int) -> int:
        """Return how many of ``wanted`` trials may run at once."""
        return min(self.count, wanted)


@contextmanager
def replayed(watch: Watch, at_once: int) -> Iterator[None]:
    """Let sweeps read curves out instead of training, and ``watch`` see them."""
    ask, for_sweep = SweepStudy.ask, Recorder.for_sweep

    def timed(study: SweepStudy) -> Point:
        start = perf_counter()
        point = ask(study)
        watch.suggestions_s.append(perf_counter() - start)
        return point

    def seen(*words: Any, **more: Any) -> Recorder:
        watch.recorder = for_sweep(*words, **more)
        return watch.recorder

    with (
        patch.object(run_trials, "ReusableTrainable", ReplayedTrainable),
        patch.object(sweeps, "concurrency_limit", lambda *_: Fixed(at_once)),
        patch.object(SweepStudy, "ask", timed),
        patch.object(Recorder, "for_sweep", seen),
    ):
        yield


def simulate(
    folder: Path, store: Path, trials: int, at_once: int
) -> tuple[Watch, dict[str, float]]:
    """Run a sweep of so many trials, so many at once; return what was seen and its files' MB."""
    home, space = Home(folder / "home"), load_space(SPACE)
    card = StoreCard(store, read_manifest(store).fingerprint, {})
    sweep = Sweep("simulated", space, SPACE.read_text(), store, card, home, "…", Limits(trials))
    watch = Watch(max(1, trials // TENTHS))
    with replayed(watch, at_once):
        status = sweeps.run_sweep(sweep, watch.event, say=lambda *_: None)
    assert (status, watch.ended) == ("finished", trials)
    files = {
        "study": home.studies,
        "MLflow": home.folder / "mlflow.db",
        "outbox": home.sweeps / "simulated" / "tracking.jsonl",
    }
    return watch, {name: path.stat().st_size / MB for name, path in files.items()}


def parts(folder: Path, store: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure each part by itself."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = load_space(SPACE)
    return {
        "suggestion alone, s": {
            known: _spread(suggestion_s(folder, space, known, options.times))
            for known in options.known
        },
        "MLflow alone, epochs/s": recorded_epochs_a_second(folder, store, options.recorded),
        "manifest, MB and s": {cases: manifest_mb_and_s(store, cases) for cases in options.cases},
        "slice index, MB": {cases: slice_index_mb(store, cases) for cases in options.cases},
        "room, s": {nodes: room_s(nodes) for nodes in options.nodes},
        "message, bytes": message_bytes(space),
    }


def _spread(seconds: Sequence[float]) -> dict[str, float]:
    low, middle, high = quantiles(seconds, n=4)
    return {"median": middle, "25%": low, "75%": high, "most": max(seconds)}


def document(watch: Watch, files: dict[str, float], alone: dict[str, Any]) -> dict[str, Any]:
    """Return the benchmark's document."""
    first, last = watch.moments[0], watch.moments[-1]
    second, before = watch.moments[1], watch.moments[-2]
    # From the first tenth's end to the second's, for the first pays for Ray's start.
    rates = [
        (later.trials - earlier.trials) / (later.seconds - earlier.seconds)
        for earlier, later in ((first, second), (before, last))
    ]
    values = (
        rates[1] / rates[0],
        last.driver_mb / first.driver_mb,
        last.records_waiting / (last.epochs + 2 * last.trials),
    )
    ratios = {
        name: {
            "value": value,
            "target": target,
            "ok": value >= target if floor else value <= target,
        }
        for (name, target), value, floor in zip(
            TARGETS.items(), values, (True, False, False), strict=True
        )
    }
    return {
        "device": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "ratios": ratios,
        "detail": {
            "trials": last.trials,
            "epochs": last.epochs,
            "trials/s": last.trials / last.seconds,
            "epochs/s": last.epochs / last.seconds,
            "trials/s, first and last tenth": rates,
            "suggestion, s": _spread(watch.suggestions_s),
            "files, MB": files,
            "moments": [asdict(moment) for moment in watch.moments],
            **alone,
        },
    }


def show(found: dict[str, Any]) -> None:
    """Print the document for people."""
    detail = found["detail"]
    print(f"A sweep of {detail['trials']} simulated trials: {found['device']}")
    for name, value in detail.items():
        if name != "moments":
            print(f"{name:32} {value}")
    for name, ratio in found["ratios"].items():
        verdict = "met" if ratio["ok"] else "missed"
        print(f"{name}: {ratio['value']:.2f}, target {ratio['target']:g}, {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--at-once", type=int, default=4, help="how many trials at once")
    parser.add_argument("--known", type=int, nargs="*", default=[1000, 2500, 5000, 10000])
    parser.add_argument("--times", type=int, default=20, help="suggestions timed for each --known")
    parser.add_argument("--recorded", type=int, default=200, help="trials recorded by themselves")
    parser.add_argument("--cases", type=int, nargs="*", default=[1000, 10000])
    parser.add_argument("--nodes", type=int, nargs="*", default=[10, 1000])
    smoke = {"trials": 20, "known": [12], "times": 2, "recorded": 2, "cases": [10], "nodes": [2]}
    options = _run.begin(parser, **smoke)
    if options.trials < 2 * TENTHS:
        parser.error(f"--trials: a first and a last tenth want at least {2 * TENTHS}.")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = make_store(folder, cases=8, spacing_mm=4.0)
        # In a process of their own: what they leave is not the sweep's memory.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            alone = pool.submit(parts, folder, store, options).result()
        print(json.dumps(alone, indent=2), file=sys.stderr, flush=True)
        watch, files = simulate(folder, store, options.trials, options.at_once)
    _run.finish(options, document(watch, files, alone), show)


if __name__ == "__main__":
    main()
