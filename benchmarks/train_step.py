"""Our adversarial step against the textbook order, alternating in one process.

Textbook, written as the paper describes it and no slower than it need be: the segmentor runs
forward in each half (without a graph in the first), the critics keep gradients in both, eager,
float32 with PyTorch's defaults and, on CUDA, TF32 convolutions and cuDNN's benchmark, as people
set it. Ours: one forward, no wasted
gradients, channels last, bfloat16 where the device multiplies it faster, fused optimizers,
compiled on CUDA. Both begin from the same weights and see the same batches; ours in float32 is
shown too, so that what the order and the layout gain can be told from what the precision does.

FLOP are counted by PyTorch as executed by each side; the peak is a large matrix product measured
in the same process, in bfloat16 and float32.
"""

from __future__ import annotations

import argparse
import copy
import platform
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import _run
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim import Adam
from torch.utils.flop_counter import FlopCounterMode

from segan_ray.config import Experiment, load_experiment
from segan_ray.models.numerics import choose_precision
from segan_ray.training.backend_flags import training_flags
from segan_ray.training.build_step import make_step
from segan_ray.training.compiling import compiled_passes, compiler_flags
from segan_ray.training.state import TrainingState, new_state
from segan_ray.training.step import EAGER, MicroBatch, keep

TARGETS = {"cpu": 1.35, "cuda": 4.0}
PEAK_TARGET = 0.35
BATCH = {"cpu": 8, "cuda": 64}
WIDTHS = (16, 64)
Step = Callable[[], None]


@dataclass(frozen=True)
class Slices:
    """One batch: image, truth and brain."""

    image: Tensor
    truth: Tensor
    brain: Tensor


def slices(device: torch.device, crop: int) -> Slices:
    torch.manual_seed(1)
    count = BATCH[device.type]
    brain = (torch.rand(count, 1, crop, crop, device=device) > 0.3).float()
    image = torch.randn(count, 4, crop, crop, device=device) * brain
    truth = (torch.rand(count, 3, crop, crop, device=device) > 0.9).float() * brain
    return Slices(image, truth, brain)


def settings(width: int, crop: int, precision: str) -> Experiment:
    return load_experiment(
        None,
        [
            "segmentor.network=segan",
            f"segmentor.base_width={width}",
            f"critic.base_width={width}",
            f"training.crop={crop}",
            f"training.precision={precision}",
        ],
    )


def soft_dice(probability: Tensor, truth: Tensor) -> Tensor:
    shared = (probability * truth).sum((-2, -1))
    size = probability.sum((-2, -1)) + truth.sum((-2, -1))
    return (1 - (2 * shared + 50) / (size + 50)).mean()


def textbook(start: TrainingState, batch: Slices) -> Step:
    """Algorithm 1 with the loss as the paper prints it, on copies of the weights of ``start``."""
    segmentor = plain(start.segmentor)
    assert start.critic is not None
    critics = plain(start.critic)
    segmentor_optimizer = Adam(segmentor.parameters(), lr=1e-3, betas=(0.5, 0.999))
    critic_optimizer = Adam(critics.parameters(), lr=3e-4, betas=(0.5, 0.999))
    image, truth, brain = batch.image, batch.truth, batch.brain

    def distance(fake: Tensor) -> Tensor:
        regions = [
            torch.stack([functional.l1_loss(a, b) for a, b in zip(ours, true, strict=True)]).mean()
            for ours, true in zip(critics(image, fake), critics(image, truth), strict=True)
        ]
        return torch.stack(regions).mean()

    def step() -> None:
        # Whatever our side sets is put back after each of its steps; this is how people set it.
        torch.backends.cudnn.benchmark = True
        critic_optimizer.zero_grad()
        with torch.no_grad():
            fake = segmentor(image) * brain
        (-distance(fake)).backward()
        critic_optimizer.step()
        with torch.no_grad():
            for weights in critics.parameters():
                weights.clamp_(-0.05, 0.05)
        segmentor_optimizer.zero_grad()
        fake = segmentor(image) * brain
        maps = soft_dice(fake, truth) + functional.binary_cross_entropy(fake, truth)
        (distance(fake) + maps).backward()
        segmentor_optimizer.step()

    return step


def plain(network: torch.nn.Module) -> torch.nn.Module:
    """Return a copy in PyTorch's default memory layout."""
    clone = copy.deepcopy(network)
    for parameter in clone.parameters():
        parameter.data = parameter.data.contiguous()
    return clone


def ours(experiment: Experiment, state: TrainingState, batch: Slices) -> Step:
    """What ``fit`` does with a batch that has arrived."""
    compiled = batch.image.is_cuda and experiment.training.compile
    passes = compiled_passes() if compiled else EAGER
    update = make_step(experiment, batch.image.device, passes)
    layout = torch.channels_last
    part = MicroBatch(
        batch.image.contiguous(memory_format=layout),
        batch.truth.contiguous(memory_format=layout),
        batch.brain,
    )

    def step() -> None:
        with (
            training_flags(experiment.training, batch.image.device),
            compiler_flags(experiment.training) if compiled else nullcontext(),
        ):
            update(state, [part], keep)

    return step


def void(_: object) -> None:
    return None


def seconds(step: Step, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - started


def matmul_peak(device: torch.device, precision: torch.dtype) -> float:
    """Return the FLOP/s of a large matrix product, the best of ten."""
    side = 8192 if device.type == "cuda" else 2048
    one, two = (torch.randn(side, side, device=device, dtype=precision) for _ in range(2))
    product = lambda: void(one @ two)  # noqa: E731
    seconds(product, device)
    return 2 * side**3 / min(seconds(product, device) for _ in range(10))


def flop(step: Step) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def compare(device: torch.device, width: int, crop: int, rounds: int) -> dict[str, float]:
    """Return medians of paired steps, and what each side computes of them."""
    batch = slices(device, crop)
    start = new_state(settings(width, crop, "float32"), torch.device("cpu"))
    start.segmentor.to(device)
    if start.critic is not None:
        start.critic.to(device)
    sides: dict[str, Step] = {"textbook": textbook(start, batch)}
    counted = {"textbook": flop(textbook(start, batch))}
    for name, precision in (("ours", "auto"), ("ours_float32", "float32")):
        experiment = settings(width, crop, precision)
        state = new_state(experiment, device)
        sides[name] = ours(experiment, state, batch)
        uncompiled = load_experiment(
            None,
            [
                "segmentor.network=segan",
                f"segmentor.base_width={width}",
                f"critic.base_width={width}",
                "training.compile=false",
            ],
        )
        counted[name] = flop(ours(uncompiled, new_state(uncompiled, device), batch))
    for step in sides.values():
        for _ in range(5 if device.type == "cuda" else 1):
            seconds(step, device)
    taken = [{name: seconds(step, device) for name, step in sides.items()} for _ in range(rounds)]

    count = len(batch.image)
    row: dict[str, float] = {}
    for name in sides:
        middle = median(times[name] for times in taken)
        row[f"{name}_slices_per_s"] = count / middle
        row[f"{name}_flop_per_s"] = counted[name] / middle
        row[f"{name}_gflop_per_slice"] = counted[name] / count / 1e9
        if name != "textbook":
            row[f"{name}_ratio"] = median(times["textbook"] / times[name] for times in taken)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--crop", type=int, default=160)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    options = _run.begin(parser, rounds=1, crop=32, widths=[4])
    devices = [torch.device("cpu")]
    if torch.cuda.is_available():
        devices.append(torch.device("cuda"))
    reports = [report(device, options.crop, options.widths, options.rounds) for device in devices]
    ratios = {name: entry for each in reports for name, entry in each["ratios"].items()}
    detail = {each["device"]: each["detail"] for each in reports}
    names = ", ".join(each["device"] for each in reports)

    def show_all(_: dict) -> None:
        for each in reports:
            show(each, options.crop)

    _run.finish(options, {"device": names, "ratios": ratios, "detail": detail}, show_all)


def report(device: torch.device, crop: int, widths: Sequence[int], rounds: int) -> dict:
    precision = choose_precision(settings(16, crop, "auto").training, device)
    peaks = {kind: matmul_peak(device, kind) for kind in {torch.float32, precision}}
    detail: dict[str, dict[str, float]] = {}
    ratios = {}
    for width in widths:
        row = compare(device, width, crop, rounds if width < 64 else max(5, rounds // 2))
        for name in ("textbook", "ours_float32", "ours"):
            peak = peaks[precision if name == "ours" else torch.float32]
            row[f"{name}_share_of_peak"] = row[f"{name}_flop_per_s"] / peak
        detail[f"width {width}"] = row
        target = TARGETS[device.type]
        ratios[f"{device.type} width {width}"] = entry(row["ours_ratio"], target)
        if device.type == "cuda" and width == 64:
            ratios["cuda width 64, share of matmul peak"] = entry(
                row["ours_share_of_peak"], PEAK_TARGET
            )
    return {
        "device": device_name(device),
        "precision": str(precision).removeprefix("torch."),
        "peaks": {str(kind).removeprefix("torch."): peak for kind, peak in peaks.items()},
        "ratios": ratios,
        "detail": detail,
    }


def entry(value: float, target: float) -> dict[str, float | bool]:
    return {"value": value, "target": target, "ok": value >= target}


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    if hasattr(torch.cpu, "get_capabilities"):
        name = str(torch.cpu.get_capabilities().get("cpu_name", name))
    return f"{name}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


def show(each: dict, crop: int) -> None:
    peaks = ", ".join(f"{peak / 1e9:.0f} in {kind}" for kind, peak in each["peaks"].items())
    print(f"Adversarial step, crop {crop}, three critics of depth 3: {each['device']}")
    print(f"Matrix product: {peaks} (GFLOP/s). Ours computes in {each['precision']}.")
    print(f"{'':22}{'slices/s':>10}{'GFLOP/slice':>13}{'GFLOP/s':>10}{'of peak':>9}{'ratio':>8}")
    for name, row in each["detail"].items():
        for side in ("textbook", "ours_float32", "ours"):
            ratio = row.get(f"{side}_ratio", 1.0)
            print(
                f"{name + ' ' + side.replace('_', ' '):22}{row[f'{side}_slices_per_s']:10.1f}"
                f"{row[f'{side}_gflop_per_slice']:13.2f}{row[f'{side}_flop_per_s'] / 1e9:10.0f}"
                f"{row[f'{side}_share_of_peak']:9.0%}{ratio:8.2f}"
            )
    for name, ratio in each["ratios"].items():
        verdict = "met" if ratio["ok"] else "missed"
        print(f"{name}: {ratio['value']:.2f}, target {ratio['target']:.2f}, {verdict}")


if __name__ == "__main__":
    main()
