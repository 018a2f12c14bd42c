"""Figures, not judgements: what a step, its launches and an epoch with its loader take."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from segan_ray.config import load_experiment
from segan_ray.data.sampling.slices import slice_source
from segan_ray.training.backend_flags import training_flags
from segan_ray.training.build_step import make_step
from segan_ray.training.compiling import PAYS_AFTER_STEPS, compiled_passes, compiler_flags
from segan_ray.training.fit import DistributedContext, fit
from segan_ray.training.memory import training_bytes
from segan_ray.training.state import new_state
from segan_ray.training.step import EAGER, MicroBatch, keep
from segan_ray.training.validation_scores import VALIDATION, Validation
from tests.gpu.cases import MadeUpCase
from tests.gpu.conftest import Row

CROP = 160
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def batch(device: torch.device, slices: int) -> MicroBatch:
    layout = torch.channels_last
    image = torch.randn(slices, 4, CROP, CROP, device=device).contiguous(memory_format=layout)
    truth = (torch.rand(slices, 3, CROP, CROP, device=device) > 0.9).float()
    brain = torch.ones(slices, 1, CROP, CROP, device=device)
    return MicroBatch(image, truth.contiguous(memory_format=layout), brain)


def test_launches_of_a_step_and_when_compiling_pays(row: Row, cuda: torch.device) -> None:
    experiment = load_experiment(None, [])
    part, took = batch(cuda, 8), {}
    for name, passes in (("eager", EAGER), ("compiled", compiled_passes())):
        state, step = new_state(experiment, cuda), make_step(experiment, cuda, passes)
        with training_flags(experiment.training, cuda), compiler_flags(experiment.training):
            started = perf_counter()
            step(state, [part], keep)
            torch.cuda.synchronize()
            first = perf_counter() - started
            for _ in range(5):
                step(state, [part], keep)
            torch.cuda.synchronize()
            with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
                step(state, [part], keep)
                torch.cuda.synchronize()
            launches = sum(each.count for each in seen.key_averages() if "LaunchKernel" in each.key)
            times = []
            for _ in range(50):
                started = perf_counter()
                step(state, [part], keep)
                torch.cuda.synchronize()
                times.append(perf_counter() - started)
        took[name] = (first, median(times))
        row(
            f"batch 8, width 16, {name}",
            f"{launches} launches, {1e3 * median(times):.1f} ms a step, first step {first:.1f} s",
        )
    gain = took["eager"][1] - took["compiled"][1]
    pays = (took["compiled"][0] - took["eager"][0]) / gain if gain > 0 else float("inf")
    row("compiling pays after", f"{pays:.0f} steps here; the rule says {PAYS_AFTER_STEPS}")


def test_cuda_graphs_would_gain(row: Row, cuda: torch.device) -> None:
    """What ``reduce-overhead`` would make of the segmentor's pass, which is not used yet."""
    experiment, part, took = load_experiment(None, []), batch(cuda, 8), {}
    for mode in ("default", "reduce-overhead"):
        torch.compiler.reset()
        network = new_state(experiment, cuda).segmentor
        run = torch.compile(EAGER.segment, mode=mode)

        def once(run: Callable[..., torch.Tensor] = run, network: nn.Module = network) -> None:
            torch.compiler.cudagraph_mark_step_begin()
            run(network, part).sum().backward()
            torch.cuda.synchronize()

        for _ in range(5):
            once()
        times = []
        for _ in range(30):
            started = perf_counter()
            once()
            times.append(perf_counter() - started)
        took[mode] = median(times)
    torch.compiler.reset()
    row(
        "segmentor's pass, ms", ", ".join(f"{name} {1e3 * each:.2f}" for name, each in took.items())
    )


def test_memory_against_its_estimate(row: Row, cuda: torch.device) -> None:
    settings = [f"training.{each}" for each in ("batch_size=64", "precision=bfloat16")]
    widths = ["segmentor.base_width=64", "critic.base_width=64"]
    experiment = load_experiment(None, [*settings, *widths])
    torch.cuda.reset_peak_memory_stats()
    state, step = new_state(experiment, cuda), make_step(experiment, cuda)
    for _ in range(3):
        step(state, [batch(cuda, 64)], keep)
    peak = torch.cuda.max_memory_allocated()
    estimated = training_bytes(experiment, CROP, torch.bfloat16)
    row("GB at batch 64, width 64", f"peak {peak / 1e9:.2f}, estimated {estimated / 1e9:.2f}")
    assert 0.5 < estimated / peak < 1.5


def test_an_epoch_with_its_loader(row: Row, cuda: torch.device) -> None:
    cases = [MadeUpCase(number) for number in range(12)]
    experiment = load_experiment(
        None,
        ["training.batch_size=64", "training.epochs=3", "training.steps_per_epoch=60",
         "training.compile=true"],
    )  # fmt: skip
    speeds: list[float] = []
    fit(
        new_state(experiment, cuda), experiment, slice_source(cases), crop=CROP,
        context=DistributedContext(cuda),
        validate=lambda _: Validation(dict.fromkeys(VALIDATION, 0.5), {}),
        report=lambda epoch: speeds.append(epoch.metrics["time/slices_per_s"]),
    )  # fmt: skip
    row("an epoch with its loader, batch 64, width 16", f"{speeds[-1]:.0f} slices/s")


def test_the_step_against_the_textbook(row: Row, cuda: torch.device) -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "train_step.py"), "--loaded", "--json"],
        check=True, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    for name, ratio in islice(json.loads(done.stdout)["ratios"].items(), 8):
        verdict = "met" if ratio["ok"] else "missed"
        row(f"step, {name}", f"{ratio['value']:.2f}, target {ratio['target']:.2f}, {verdict}")
