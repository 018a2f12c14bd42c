"""What a worker gains from pages of 2 MiB: the same step in processes with and without them.

Ray's processes get `GLIBC_TUNABLES` from us (segan_ray/engine_settings.py), which the C library
reads as a process starts. So each figure is of a process of its own; both kinds take turns. A page
fault is the kernel's work for the first touch of a page; the step's tensors are freed and asked for
again at each step.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from statistics import median
from time import perf_counter
from typing import Any

import _run
import torch

from segan_ray.config import load_experiment
from segan_ray.engine_settings import RAY
from segan_ray.training.build_step import make_step
from segan_ray.training.state import new_state
from segan_ray.training.step import MicroBatch, keep

TUNABLES = "GLIBC_TUNABLES"
CROP = 96
BATCH = 8
CHILD = "--child"
START, STEP = "import torch, s", "step, s"
FIGURES = (START, STEP, "page faults a step", "peak memory, MB")


def measure(steps: int) -> None:
    """Print what training takes in this process: seconds and page faults a step, and memory."""
    device = torch.device("cpu")
    experiment = load_experiment(None, ["segmentor.network=segan", "training.precision=auto"])
    state, step = new_state(experiment, device), make_step(experiment, device)
    torch.manual_seed(1)
    image = torch.randn(BATCH, 4, CROP, CROP).contiguous(memory_format=torch.channels_last)
    truth = (torch.rand(BATCH, 3, CROP, CROP) > 0.9).float()
    part = MicroBatch(image, truth, torch.ones(BATCH, 1, CROP, CROP))
    for _ in range(3):
        step(state, [part], keep)
    seconds = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        began = perf_counter()
        step(state, [part], keep)
        seconds.append(perf_counter() - began)
    after = resource.getrusage(resource.RUSAGE_SELF)
    faults = (after.ru_minflt - before) / steps
    print(json.dumps([median(seconds), faults, after.ru_maxrss / 1024]))


def in_a_process(huge: bool, steps: int) -> list[float]:
    """Measure in a new process; the seconds that it took to start come first."""
    variables = {key: value for key, value in os.environ.items() if key != TUNABLES}
    if huge:
        variables[TUNABLES] = RAY[TUNABLES]
    starts = [sys.executable, "-c", "import torch"]
    began = perf_counter()
    subprocess.run(starts, env=variables, check=True)
    started = perf_counter() - began
    command = [sys.executable, __file__, CHILD, str(steps)]
    done = subprocess.run(command, env=variables, check=True, capture_output=True, text=True)
    return [started, *json.loads(done.stdout)]


def compare(rounds: int, steps: int) -> dict[str, Any]:
    rows: dict[bool, list[list[float]]] = {False: [], True: []}
    for _ in range(rounds):
        for huge, figures in rows.items():
            figures.append(in_a_process(huge, steps))
    small, large = (
        dict(zip(FIGURES, map(median, zip(*rows[huge], strict=True)), strict=True))
        for huge in (False, True)
    )
    return {
        "device": f"{platform.processor() or platform.machine()}, {_run.CORES} cores",
        "ratios": {name: {"value": large[name] / small[name]} for name in (STEP, START)},
        "detail": {"pages of 4 KiB": small, "pages of 2 MiB": large},
    }


def show(found: dict[str, Any]) -> None:
    print(f"{'':24}{''.join(f'{name:>16}' for name in found['detail'])}")
    for name in FIGURES:
        print(f"{name:24}{''.join(f'{each[name]:16.3f}' for each in found['detail'].values())}")
    for name, ratio in found["ratios"].items():
        print(f"{name}: {ratio['value']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="in each process")
    options = _run.begin(parser, rounds=1, steps=1)
    _run.finish(options, compare(options.rounds, options.steps), show)


if __name__ == "__main__":
    if CHILD in sys.argv:
        measure(int(sys.argv[-1]))
    else:
        main()
