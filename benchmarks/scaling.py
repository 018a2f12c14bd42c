"""Slices/s of one and two Ray Train workers against a single process with all the cores.

The cores of the machine are divided between the workers; the batch of one update is the same,
shared out. All three train the same network on the same phantoms through the same epoch; they
alternate, and each round's ratio is taken within the round. Of two workers, the share of the time
that goes into averaging gradients is what overlapping that with the backward could save at most.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import _run
from phantom_store import make_store

from segan_ray.orchestration.cluster.session import ray_session

import ray.train  # isort: skip
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from torch import Tensor

from segan_ray.config import Experiment, build, load_experiment
from segan_ray.data.sampling.slices import epoch_batches, slice_source
from segan_ray.data.store.opened_store import open_for_tuning
from segan_ray.training.build_step import make_step
from segan_ray.training.distributed import average
from segan_ray.training.fit import DistributedContext, train_epoch
from segan_ray.training.state import new_state

CORES = len(os.sched_getaffinity(0))
CPU = torch.device("cpu")
CROP = 96
TARGET = 0.95


@dataclass
class Averaging:
    """Averages gradients and adds up how long that takes, waiting for others included."""

    seconds: float = 0.0

    def __call__(self, tensors: Sequence[Tensor]) -> None:
        started = perf_counter()
        average(tensors)
        self.seconds += perf_counter() - started


def slices_per_s(
    experiment: Experiment, store: Path, threads: int, context: DistributedContext, steps: int
) -> tuple[float, float]:
    """Return how fast an epoch goes, after one that warms up, and its share of averaging."""
    torch.set_num_threads(threads)
    source = slice_source(open_for_tuning(store).train)
    state = new_state(experiment, CPU, synchronised=context.workers > 1)
    step = make_step(experiment, CPU)
    taken, averaging = 0.0, Averaging()
    context = replace(context, average=averaging)
    for epoch, count in ((1, 5), (2, steps)):
        averaging.seconds = 0.0
        batches = epoch_batches(
            source,
            steps=count,
            batch_size=experiment.training.batch_size,
            crop=CROP,
            tumour_fraction=0.8,
            flip=True,
            seed=0,
            epoch=epoch,
            rank=context.rank,
            workers=context.workers,
        )
        started = perf_counter()
        train_epoch(state, experiment, batches, context, step)
        taken = perf_counter() - started
    return steps * experiment.training.batch_size / taken, averaging.seconds / taken


def worker(config: dict[str, Any]) -> None:
    here = ray.train.get_context()
    context = DistributedContext(CPU, here.get_world_rank(), here.get_world_size(), average)
    experiment = build(config["experiment"], "benchmark")
    told = slices_per_s(
        experiment, Path(config["store"]), config["threads"], context, config["steps"]
    )
    if context.rank == 0:
        Path(config["answer"]).write_text(json.dumps(told), encoding="utf-8")


def with_ray_train(
    experiment: Experiment, store: Path, workers: int, folder: Path, steps: int
) -> tuple[float, float]:
    threads, answer = CORES // workers, folder / "slices_per_s"
    TorchTrainer(
        worker,
        train_loop_config={
            "experiment": experiment.model_dump(mode="json"),
            "store": str(store),
            "threads": threads,
            "answer": str(answer),
            "steps": steps,
        },
        scaling_config=ScalingConfig(
            num_workers=workers, resources_per_worker={"CPU": threads}, use_gpu=False
        ),
        run_config=RunConfig(storage_path=str(folder)),
    ).fit()
    speed, share = json.loads(answer.read_text(encoding="utf-8"))
    return speed, share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--steps", type=int, default=150)
    parser.set_defaults(spacing_mm=2.0, workers={"1 worker": 1, "2 workers": 2})
    smallest = {"width": 4, "steps": 2, "spacing_mm": 4.0, "workers": {"2 workers": 2}}
    options = _run.begin(parser, rounds=1, **smallest)
    if CORES < 2:
        raise SystemExit("Two workers need two cores; this machine lends one.")
    experiment = load_experiment(
        None,
        [
            "segmentor.network=segan",
            f"segmentor.base_width={options.width}",
            f"critic.base_width={options.width}",
        ],
    )
    with tempfile.TemporaryDirectory() as temporary, ray_session():
        folder = Path(temporary)
        store = make_store(folder, cases=8, spacing_mm=options.spacing_mm)
        steps = options.steps
        rounds = [
            {
                "single process": slices_per_s(
                    experiment, store, CORES, DistributedContext(CPU), steps
                ),
                **{
                    name: with_ray_train(experiment, store, count, folder, steps)
                    for name, count in options.workers.items()
                },
            }
            for _ in range(options.rounds)
        ]
    ratios = {}
    for name in options.workers:
        value = median(each[name][0] / each["single process"][0] for each in rounds)
        ratios[name] = {"value": value, "target": TARGET, "ok": value >= TARGET}
    device = f"CPU {platform.machine()}, {CORES} cores"
    detail = {"rounds": rounds, "width": options.width, "batch": experiment.training.batch_size}
    _run.finish(options, {"device": device, "ratios": ratios, "detail": detail}, show)


def show(document: dict[str, Any]) -> None:
    ratios, detail = document["ratios"], document["detail"]
    rounds = detail["rounds"]
    print(
        f"Slices/s, width {detail['width']}, crop {CROP}, batch {detail['batch']}, {CORES} cores; "
        f"medians of {len(rounds)} rounds"
    )
    for name in ("single process", *ratios):
        speed, share = (median(each[name][part] for each in rounds) for part in (0, 1))
        ratio = ratios.get(name)
        verdict = "" if ratio is None else f"{ratio['value']:8.2f}  target {TARGET:.2f}"
        print(f"{name:16}{speed:10.1f}{verdict}  averaging {share:.1%}")


if __name__ == "__main__":
    main()
