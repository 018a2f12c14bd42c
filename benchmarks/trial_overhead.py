"""What it takes to start a trial: ours, ``torchrun``, and a naive trial of Ray Tune and Train.

Every side trains the same empty trials (``_empty_trial.py``): a small store, tiny networks, two
steps, validation, a checkpoint; one worker of one core. Ours is a real sweep with its study and
its MLflow records, in a Ray session of its own; ``torchrun`` runs the script eight times, half of
them before the sweep and half after. A start counts from the decision to train a trial (the
study is asked for it; ``torchrun`` is called) to the moment its first step begins.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import _run
from phantom_store import make_store

from segan_ray.orchestration.cluster.session import ray_session

import _empty_trial as empty  # isort: skip
from ray import tune

from segan_ray.data.store.opened_store import read_manifest
from segan_ray.home import Home
from segan_ray.orchestration.tune import run_trials, sweep, trainable
from segan_ray.orchestration.tune.sweep_plan import Sweep
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.study.sweep_study import Point, SweepStudy
from segan_ray.tracking.description.card import StoreCard

CORES = len(os.sched_getaffinity(0))
TARGET = 1.0


@dataclass(frozen=True)
class Side:
    """When each trial was decided on and made its first step; what all of them took, in s."""

    decided: list[float]
    stepped: list[float]
    wall_s: float
    apart_s: list[float]
    session_s: float = 0.0

    @property
    def starts_s(self) -> list[float]:
        """How long each trial took from the decision to its first step."""
        return [step - decided for decided, step in zip(self.decided, self.stepped, strict=True)]


def apart(stepped: list[float]) -> list[float]:
    """Return how long each first step came after the one before it."""
    return [later - sooner for sooner, later in pairwise(sorted(stepped))]


def stamped(folder: Path, count: int) -> list[float]:
    return [float((folder / f"{number:03d}").read_text()) for number in range(count)]


def torchrun(store: Path, folder: Path, count: int, at_once: int) -> Side:
    """Start the script ``count`` times, ``at_once`` of them side by side."""
    stamps = folder / "stamps"
    stamps.mkdir(parents=True)
    script = Path(empty.__file__)

    def start(number: int) -> float:
        decided = time.time()
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1",
            str(script), str(store), str(folder / "checkpoints"), str(stamps), f"{number:03d}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"torchrun failed:\n{done.stderr[-2000:]}")
        return decided

    began = time.time()
    with ThreadPoolExecutor(at_once) as pool:
        decided = list(pool.map(start, range(count)))
    wall_s, stepped = time.time() - began, stamped(stamps, count)
    return Side(decided, stepped, wall_s, apart(stepped))


class StampedTrainable(trainable.ReusableTrainable):
    """Our trainable, whose workers leave a stamp at the first step of each trial."""

    def setup(self, config: dict[str, Any]) -> None:
        from segan_ray.orchestration.train import worker_group

        worker_group.train_worker = stamped_worker
        super().setup(config)


def stamped_worker(config: dict[str, str]) -> None:
    from segan_ray.orchestration.train import worker

    begin = worker.TrialTraining.begin

    def stamped_begin(task: Any, *arguments: Any) -> Any:
        # The folder of stamps lies beside the trial's folder of checkpoints.
        trial = Path(task.config["checkpoints"])
        empty.stamp_first_steps(trial.name, trial.parent.parent / "stamps")
        return begin(task, *arguments)

    worker.TrialTraining.begin = stamped_begin
    worker.train_worker(config)


def our_sweep(store: Path, folder: Path, trials: int, at_once: int) -> Side:
    """Run a sweep of empty trials, start and end of Ray included."""
    manifest = read_manifest(store)
    patients: dict[str, int] = {name: len(each) for name, each in manifest.splits.items()}
    space = SearchSpace.model_validate(
        {
            "name": "empty",
            "base": empty.SETTINGS,
            "parameters": {
                "segmentor.lr": {"type": "float", "low": 1e-5, "high": 1e-3, "log": True}
            },
            "sampler": {"type": "tpe", "seed": 0, "startup_trials": 2},
            "scheduler": {"type": "none"},
            "budget": {"trials": trials, "max_concurrent": at_once},
        }
    )
    asked = Sweep(
        "empty", space, "name: empty\n", store,
        StoreCard(store, manifest.fingerprint, patients), Home.at(folder), "…",
    )  # fmt: skip
    stamps = asked.folder / "stamps"
    stamps.mkdir(parents=True)
    decided: dict[int, float] = {}
    ask = SweepStudy.ask

    def stamped_ask(study: SweepStudy) -> Point:
        now = time.time()
        point = ask(study)
        decided[point.number] = now
        return point

    SweepStudy.ask, run_trials.ReusableTrainable = stamped_ask, StampedTrainable  # type: ignore[method-assign,misc]
    began = time.time()
    try:
        sweep.run_sweep(asked, lambda _: None, lambda _: None)
    finally:
        SweepStudy.ask, run_trials.ReusableTrainable = ask, trainable.ReusableTrainable  # type: ignore[method-assign,misc]
    wall_s, stepped = time.time() - began, stamped(stamps, trials)
    return Side(
        [decided[number] for number in range(trials)],
        stepped,
        wall_s,
        apart(stepped),
        min(decided.values()) - began,
    )


def naive(store: Path, folder: Path, count: int) -> Side:
    """Let Ray Tune run a function that starts a Ray Train worker group for each trial."""
    stamps = folder / "stamps"
    stamps.mkdir(parents=True)

    def train(config: dict[str, str]) -> None:
        trial = config["trial"]
        empty.stamp_first_steps(trial, stamps)
        empty.train(store, folder / "checkpoints" / trial)

    def trial(config: dict[str, str]) -> None:
        from ray.train import RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        TorchTrainer(
            train,
            train_loop_config=config,
            scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(name=config["trial"], storage_path=str(folder / "train")),
        ).fit()

    decided: list[float] = []

    class Draws(tune.search.Searcher):
        def suggest(self, _: str) -> dict[str, str]:
            decided.append(time.time())
            return {"trial": f"{len(decided) - 1:03d}"}

        def on_trial_complete(self, *_: Any, **__: Any) -> None: ...
        def save(self, checkpoint_path: str) -> None: ...
        def restore(self, checkpoint_path: str) -> None: ...

    began = time.time()
    with ray_session():
        tune.Tuner(
            tune.with_resources(trial, {"memory": run_trials.DRIVER_BYTES}),
            tune_config=tune.TuneConfig(
                num_samples=count, search_alg=Draws(), max_concurrent_trials=1
            ),
            run_config=tune.RunConfig(name="tune", storage_path=str(folder), verbose=0),
        ).fit()
    wall_s, stepped = time.time() - began, stamped(stamps, count)
    return Side(decided, stepped, wall_s, apart(stepped), decided[0] - began)


def compare(store: Path, folder: Path, trials: int, at_once: int) -> dict[str, Side]:
    """Run our sweep between two halves of ``torchrun``'s trials."""
    halves = [torchrun(store, folder / "before", trials // 2, at_once)]
    ours = our_sweep(store, folder / "ours", trials, at_once)
    halves.append(torchrun(store, folder / "after", trials // 2, at_once))
    theirs = Side(
        [each for half in halves for each in half.decided],
        [each for half in halves for each in half.stepped],
        sum(half.wall_s for half in halves),
        # Not from the last before our sweep to the first after it.
        [each for half in halves for each in half.apart_s],
    )
    return {"ours": ours, "torchrun": theirs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", action="store_true", help="also two trials side by side")
    parser.add_argument("--naive", type=int, default=3, help="trials of the naive way; 0 for none")
    parser.add_argument("--trials", type=int, default=8)
    options = _run.begin(parser, trials=2, naive=1, pairs=False)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    rows: dict[str, dict[str, Any]] = {}
    ratios: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["SEGAN_RAY_CACHE"] = str(folder / "cache")
        store = make_store(folder, cases=8, spacing_mm=4.0)
        for at_once in (1, 2) if options.pairs and CORES > 1 else (1,):
            beside = "" if at_once == 1 else ", two side by side"
            sides = compare(store, folder / str(at_once), options.trials, at_once)
            row = {name: describe(side) for name, side in sides.items()}
            rows |= {name + beside: each for name, each in row.items()}
            ratios |= against_torchrun(row, beside)
        if options.naive:
            # Tune prints a line a trial even when told to be quiet.
            with redirect_stdout(sys.stderr):
                rows["naive"] = describe(naive(store, folder / "naive", options.naive))
    device = f"CPU {platform.machine()}, {CORES} cores"
    _run.finish(options, {"device": device, "ratios": ratios, "detail": {"rows": rows}}, show)


def describe(side: Side) -> dict[str, Any]:
    """Return what is told of a side; steady is every trial but the first, if there are more."""
    steady = side.starts_s[1:] or side.starts_s
    low, _, high = quantiles(steady, n=4) if len(steady) > 1 else 3 * steady
    return {
        "session_s": side.session_s,
        "first_start_s": side.starts_s[0],
        "start_s": median(steady),
        "start_quartiles_s": [low, high],
        "apart_s": median(side.apart_s) if side.apart_s else None,
        "wall_s": side.wall_s,
        "starts_s": side.starts_s,
    }


def against_torchrun(row: dict[str, dict[str, Any]], beside: str) -> dict[str, dict[str, Any]]:
    ours, theirs = row["ours"], row["torchrun"]
    return {
        "steady_state_start" + beside: entry(ours["start_s"] / median(theirs["starts_s"])),
        "whole_sweep" + beside: entry(ours["wall_s"] / theirs["wall_s"]),
    }


def entry(value: float) -> dict[str, float | bool]:
    return {"value": value, "target": TARGET, "ok": value <= TARGET}


def show(document: dict[str, Any]) -> None:
    print(f"Starting an empty trial, in seconds; {document['device']}")
    print(f"{'':28}{'session':>9}{'first':>8}{'later':>8}{'[quartiles]':>16}{'apart':>8}{'all':>8}")
    for name, row in document["detail"]["rows"].items():
        low, high = row["start_quartiles_s"]
        apart_s = math.nan if row["apart_s"] is None else row["apart_s"]
        print(
            f"{name:28}{row['session_s']:9.2f}{row['first_start_s']:8.2f}{row['start_s']:8.2f}"
            f"{f'[{low:.2f}, {high:.2f}]':>16}{apart_s:8.2f}{row['wall_s']:8.1f}"
        )
    print("session: until the first trial is decided on; first, later: from the decision to the")
    print("first step; apart: from one first step to the next; all: all trials and the session.")
    for name, ratio in document["ratios"].items():
        verdict = "met" if ratio["ok"] else "missed"
        print(f"{name}: {ratio['value']:.2f}, target {ratio['target']:.2f}, {verdict}")


if __name__ == "__main__":
    main()
