"""What a sweep will take, told before it starts: trials, epochs, disk.

Torch is not imported until a network's size is asked for.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from random import Random
from typing import TYPE_CHECKING, Any, Final

from segan_ray.config import UNET, Experiment, nest
from segan_ray.errors import many
from segan_ray.search.space.scheduler_settings import (
    AshaScheduler,
    HyperbandScheduler,
    rung_epochs,
)

if TYPE_CHECKING:
    from torch import nn

    from segan_ray.search.space.search_space import SearchSpace

SIZES: Final = (
    "variant",
    "segmentor.network",
    "segmentor.authors",
    "segmentor.base_width",
    "segmentor.depth",
    "segmentor.skip",
    "segmentor.full_resolution",
    "segmentor.optimizer",
    "critic.kind",
    "critic.input",
    "critic.norm",
    "critic.base_width",
    "critic.depth",
    "critic.spectral_norm",
    "critic.optimizer",
    "training.ema",
    "data.neighbours",
)
"""The settings that decide how large a checkpoint is."""
MEMORY_SIZES: Final = (*SIZES, "training.batch_size", "training.crop")
"""Those that decide how much memory training takes."""

LARGEST: Final = {
    "optimizer": ("adamw", "adam", "rmsprop"),
    "skip": ("concat", "add"),
    "full_resolution": (True, False),
    "norm": ("batch", "instance", "none"),
}
"""Choices, largest checkpoint first. The order of others depends on the other settings."""

WHILE_RUNNING: Final = 3
"""Checkpoints of a running trial: its best, its last, and the one being written."""
KEPT_LOCALLY: Final = 2
"""Checkpoints that stay in the sweep's folder of each trial whose checkpoints are kept."""
HEADER_BYTES: Final = 100
"""What safetensors writes about one tensor: its name, type, shape and offset."""
REST_BYTES: Final = 7500
"""State of the generators, and the JSON half of a checkpoint."""
SIMULATED: Final = 20_000
"""How many random trials are simulated to estimate what a scheduler saves."""


@dataclass(frozen=True)
class Estimate:
    """What a sweep will take. Sizes are in bytes.

    ``epochs_expected`` is None where the scheduler's savings cannot be known beforehand.
    """

    trials: int
    concurrent: int
    most_epochs: int
    epochs_at_most: int
    epochs_expected: int | None
    checkpoint_bytes: int
    disk_bytes: int


def estimate(space: SearchSpace, trials: int, concurrent: int, keep_checkpoints: int) -> Estimate:
    """Return what ``trials`` trials of ``space`` take, ``concurrent`` at once.

    ``keep_checkpoints`` is the number of trials whose checkpoints are kept, in the sweep's folder
    and in MLflow.
    """
    concurrent, kept = min(concurrent, trials), min(keep_checkpoints, trials)
    most = space.most_epochs() * space.runs
    size = checkpoint_bytes(space)
    # Of each fold that is done, its best checkpoint stays.
    more = space.runs - 1
    held = concurrent * (WHILE_RUNNING + more) + kept * (KEPT_LOCALLY + more) + kept * (1 + more)
    scheduler = space.scheduler
    if isinstance(scheduler, AshaScheduler) and scheduler.promote:
        # The trials that wait at a rung and may still go on.
        rungs = len(rung_epochs(scheduler.grace_period, scheduler.reduction_factor, most))
        held += KEPT_LOCALLY * min(trials, rungs * (trials // scheduler.reduction_factor))
    return Estimate(
        trials=trials,
        concurrent=concurrent,
        most_epochs=most,
        epochs_at_most=trials * most,
        epochs_expected=expected_epochs(space.scheduler, trials, most),
        checkpoint_bytes=size,
        disk_bytes=held * size,
    )


def sentence(estimate: Estimate, free_bytes: float) -> str:
    """Return one or two lines for people, with a warning where the disk has less."""
    each = many(estimate.trials, "trial")
    epochs = f"{each} of up to {many(estimate.most_epochs, 'epoch')}"
    at_once = f", {estimate.concurrent} at once" if estimate.trials > 1 else ""
    expected, most = estimate.epochs_expected, estimate.epochs_at_most
    if expected is None or expected >= most:
        total = f"at most {many(most, 'epoch')}"
    else:
        total = f"about {_rounded(expected)} epochs with early stopping (at most {most})"
    need, free = said_size(estimate.disk_bytes), said_size(free_bytes)
    told = f"{epochs}{at_once}: {total}. Checkpoints take up to {need}; the disk has {free} free."
    if estimate.disk_bytes <= free_bytes:
        return told
    return (
        f"{told}\nThat may not be enough: free some space, choose another --home, or lower "
        "budget.keep_checkpoints or budget.max_concurrent."
    )


def expected_epochs(scheduler: Any, trials: int, most: int) -> int | None:
    """Return how many epochs ``trials`` trials run in all, or None for median and pbt.

    The scheduler's rule is simulated on trials of random worth, ranked alike at every rung. To
    count 1/``reduction_factor`` of the trials at each rung would say too little: the first trials
    at a rung always pass, and later trials had to be better to come so far.
    """
    if scheduler.type == "none":
        return trials * most
    if not isinstance(scheduler, AshaScheduler | HyperbandScheduler):
        return None
    factor = scheduler.reduction_factor
    rungs = rung_epochs(scheduler.grace_period, factor, most)
    if isinstance(scheduler, AshaScheduler) and scheduler.promote:
        return _promoted_epochs(rungs, factor, most, trials)
    brackets = _brackets(scheduler.grace_period, factor, most)
    weights = brackets if scheduler.type == "hyperband" else [1]
    rounds = max(1, SIMULATED // trials)
    random = Random(0)
    return round(
        sum(_simulate(rungs, factor, most, trials, weights, random) for _ in range(rounds)) / rounds
    )


def checkpoint_bytes(space: SearchSpace) -> int:
    """Return the size of the largest checkpoint that a trial of ``space`` can write."""
    return max(experiment_bytes(experiment) for experiment in largest(space))


def experiment_bytes(experiment: Experiment) -> int:
    """Return the size of a checkpoint of ``experiment``; its networks are not made in memory."""
    import torch

    from segan_ray.models.build import build_critic, build_segmentor

    with torch.device("meta"):
        segmentor, critic = build_segmentor(experiment), build_critic(experiment)
    size = REST_BYTES + _network_bytes(segmentor, experiment.segmentor.optimizer)
    if critic is not None:
        size += _network_bytes(critic, experiment.critic.optimizer)
    if experiment.training.ema is not None:
        size += sum(_stored(tensor) for tensor in segmentor.state_dict().values())
    return size


def _network_bytes(network: nn.Module, optimizer: str) -> int:
    """Return the bytes of weights, buffers and the optimizer's moments and step counts."""
    weights = sum(_stored(tensor) for tensor in network.state_dict().values())
    moments = 1 if optimizer == "rmsprop" else 2
    optimized = sum(
        moments * (4 * parameter.numel() + HEADER_BYTES) + 4 + HEADER_BYTES
        for parameter in network.parameters()
    )
    return weights + optimized


def _stored(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size()) + HEADER_BYTES


def memory_bytes(space: SearchSpace) -> int:
    """Return about how much GPU memory a worker of the largest trial needs."""
    import torch

    from segan_ray.training.memory import training_bytes

    def needed(experiment: Experiment) -> int:
        # Nearly every GPU that is in use multiplies bfloat16.
        whole = experiment.training.precision == "float32"
        precision = torch.float32 if whole else torch.bfloat16
        return training_bytes(experiment, experiment.training.crop, precision)

    return max(needed(experiment) for experiment in largest(space, MEMORY_SIZES))


def memory_sentence(size: float) -> str:
    """Return a line for people about GPU memory."""
    return f"The largest trial takes about {said_size(size)} of GPU memory in each worker."


def largest(space: SearchSpace, sizes: Sequence[str] = SIZES) -> Iterator[Experiment]:
    """Yield experiments one of which is the largest by ``sizes``.

    Every network grows with each number, so numbers are at their upper ends, even if no trial
    draws these together. A choice in ``LARGEST`` is at its largest; other choices are all tried.
    """
    base = space.base_experiment()
    ends = {path: _ends(path, space) for path in sizes if path in space.parameters}
    for values in product(*ends.values()):
        experiment = _changed(base, nest(dict(zip(ends, values, strict=True))))
        yield _changed(experiment, UNET) if experiment.variant == "unet" else experiment


def _ends(path: str, space: SearchSpace) -> tuple[Any, ...]:
    ends = space.parameters[path].ends()
    if all(isinstance(value, int | float) for value in ends):
        return (max(ends),)
    ranked = [value for value in LARGEST.get(path.rpartition(".")[2], ()) if value in ends]
    return tuple(ranked[:1] or ends)


def _changed(base: Experiment, tree: Mapping[str, Any]) -> Experiment:
    """Return ``base`` with other sizes, unchecked: they need not be possible together."""
    groups = {
        name: getattr(base, name).model_copy(update=value) if isinstance(value, dict) else value
        for name, value in tree.items()
    }
    return base.model_copy(update=groups)


def _brackets(first: int, factor: int, most: int) -> list[float]:
    """Return the weights by which Optuna's hyperband puts trials into the bracket of each rung."""
    count = max(1, math.floor(math.log(most / first, factor)) + 1)
    return [math.ceil(count * factor**left / (left + 1)) for left in reversed(range(count))]


def _simulate(
    rungs: Sequence[int],
    factor: int,
    most: int,
    trials: int,
    weights: Sequence[float],
    random: Random,
) -> int:
    """Return the epochs of ``trials`` random trials, each in a bracket that begins at a rung."""
    seen: dict[tuple[int, int], list[float]] = {}
    total = 0
    for start in random.choices(range(len(weights)), weights, k=trials):
        worth = random.random()
        stopped_at = (
            rung
            for rung in rungs[start:]
            if not _passes(worth, seen.setdefault((start, rung), []), factor)
        )
        total += next(stopped_at, most)
    return total


def _promoted_epochs(rungs: Sequence[int], factor: int, most: int, trials: int) -> int:
    """Return the epochs of trials that wait at rungs until they are among the best.

    Ranked alike at every rung, just the best go on, whatever the order in which trials came; of
    few trials at least one goes all the way.
    """
    total, here, before = 0, trials, 0
    for rung in (*rungs, most):
        total += max(1, here) * (rung - before)
        here, before = here // factor, rung
    return total


def _passes(worth: float, before: list[float], factor: int) -> bool:
    """Tell whether a trial passes a rung, and insert it into the sorted trials ``before`` it.

    It passes if it is among the best 1/``factor`` of these, itself included; the best one always
    passes.
    """
    insort(before, worth)
    return worth >= before[-max(1, len(before) // factor)]


def _rounded(epochs: int) -> int:
    """Return ``epochs`` rounded to two digits: an expectation is no more precise."""
    digits = max(0, len(str(epochs)) - 2)
    return int(round(epochs, -digits))


def said_size(size: float) -> str:
    """Return a count of bytes for people."""
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.5:
            return f"{size:.1f} {unit}" if size < 9.95 else f"{size:.0f} {unit}"
    return f"{size / 1000:.1f} TB"
