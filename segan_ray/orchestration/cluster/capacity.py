"""How many trials a cluster holds at once, node by node.

A sum over the cluster says too much: a worker runs on one node, and a share of a GPU is a share
of one GPU. The workers of a trial ask for equal resources and may run on several nodes. The
trial's driver and controller ask for memory alone, on one node. So workers and memory do not
compete, and adding up each node's workers is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from segan_ray.errors import SweepError

UNIT: Final = 10_000
"""Ray counts resources in ten-thousandths, so that three times 0.1 is 0.3."""


@dataclass(frozen=True)
class Node:
    """What one machine of a cluster offers to trials."""

    name: str
    cpus: float
    gpus: float
    memory_bytes: float


def gpus_for_each(
    nodes: Iterable[Node], workers: int, cpus_per_worker: float
) -> tuple[float, str | None]:
    """Return how many GPUs each worker gets where that is left open, and a line about the choice.

    It is one if the cluster has a GPU for each worker of a trial, else none. On a cluster without
    GPUs there is nothing to say.
    """
    nodes = list(nodes)
    there = math.floor(sum(node.gpus for node in nodes))
    if not there:
        return 0, None
    gpus = f"{there} GPU{'s' * (there > 1)}"
    if sum(_workers_on(node, cpus_per_worker, 1) for node in nodes) >= workers:
        return 1, (
            f"Training on GPUs, one for each worker: the cluster has {gpus}. "
            "To train on CPUs: --set resources.gpus_per_worker=0"
        )
    return 0, (
        f"Training on CPUs: the cluster has {gpus}, but no room for {workers} workers of "
        f"{cpus_per_worker:g} CPU with one GPU each. Lower resources.workers or "
        "resources.cpus_per_worker to train on GPUs."
    )


def idle_gpus(nodes: Iterable[Node]) -> str | None:
    """Return a line about the GPUs that trials are told not to use, if there are any."""
    there = math.floor(sum(node.gpus for node in nodes))
    if not there:
        return None
    return (
        f"Training on CPUs, as resources.gpus_per_worker is 0; the cluster has {there} "
        f"GPU{'s' * (there > 1)}. To train on them: --set resources.gpus_per_worker=1"
    )


def how_many_fit(
    nodes: Iterable[Node],
    workers: int,
    cpus_per_worker: float,
    gpus_per_worker: float,
    trial_memory_bytes: float,
) -> int:
    """Return how many trials fit into the cluster at once, each of ``workers`` equal workers.

    ``trial_memory_bytes`` is the memory of a trial's driver and controller, on one node.
    """
    nodes = list(nodes)
    workers_in_all = sum(_workers_on(node, cpus_per_worker, gpus_per_worker) for node in nodes)
    trials = workers_in_all // workers
    if trial_memory_bytes <= 0:
        return trials
    return min(trials, sum(_drivers_on(node, trial_memory_bytes) for node in nodes))


def check_fits(
    nodes: Iterable[Node],
    workers: int,
    cpus_per_worker: float,
    gpus_per_worker: float,
    trial_memory_bytes: float,
) -> None:
    """Make sure that the cluster holds at least one trial.

    Raises:
        SweepError: if not, with the trial's request, the cluster's offer, and what to lower.
    """
    nodes = list(nodes)
    if _units(gpus_per_worker) > UNIT and _units(gpus_per_worker) % UNIT:
        raise SweepError(
            f"resources.gpus_per_worker is {gpus_per_worker:g}. Ray shares out a single GPU in "
            "parts and several only whole: give at most 1, or a whole number."
        )
    if how_many_fit(nodes, workers, cpus_per_worker, gpus_per_worker, trial_memory_bytes):
        return
    requested = {"CPU": cpus_per_worker, "GPU": gpus_per_worker}
    offered = {"CPU": [node.cpus for node in nodes], "GPU": [node.gpus for node in nodes]}
    for kind, each in requested.items():
        _check_total(kind, workers, each, offered[kind])
    for kind, each in requested.items():
        _check_largest(kind, each, offered[kind])
    workers_in_all = sum(_workers_on(node, cpus_per_worker, gpus_per_worker) for node in nodes)
    if workers_in_all < workers:
        raise SweepError(
            _too_few_workers(workers, cpus_per_worker, gpus_per_worker, workers_in_all, len(nodes))
        )
    largest = max((node.memory_bytes for node in nodes), default=0)
    raise SweepError(
        f"One trial asks for {_mib(trial_memory_bytes)} of memory on one node for its driver, the "
        f"largest node offers {_mib(largest)}. Use machines with more memory, or start Ray with "
        "a larger --memory."
    )


def _workers_on(node: Node, cpus_each: float, gpus_each: float) -> int:
    by_cpu = _units(node.cpus) // max(1, _units(cpus_each))
    if gpus_each <= 0:
        return by_cpu
    # Ray gives no worker the fraction of a GPU that a node may offer beside whole GPUs.
    whole = _units(node.gpus) // UNIT
    share = max(1, _units(gpus_each))
    by_gpu = whole * (UNIT // share) if share <= UNIT else whole // math.ceil(share / UNIT)
    return min(by_cpu, by_gpu)


def _drivers_on(node: Node, trial_memory_bytes: float) -> int:
    return int(node.memory_bytes // trial_memory_bytes)


def _check_total(kind: str, workers: int, each: float, offered: Sequence[float]) -> None:
    need, have = workers * _units(each), sum(map(_units, offered))
    if need > have:
        shares = f"{workers} workers of {each:g}" if workers > 1 else "1 worker"
        raise SweepError(
            f"One trial asks for {need / UNIT:g} {kind} ({shares}), the cluster has "
            f"{have / UNIT:g}{_largest(offered)}. Lower "
            f"{'resources.workers or ' if workers > 1 else ''}resources.{kind.lower()}s_per_worker."
        )


def _check_largest(kind: str, each: float, offered: Sequence[float]) -> None:
    largest = max(offered, default=0)
    if _units(each) > _units(largest):
        raise SweepError(
            f"One worker asks for {each:g} {kind}, the largest node has {largest:g} (the cluster "
            f"{sum(offered):g} on {len(offered)} nodes). Lower "
            f"resources.{kind.lower()}s_per_worker."
        )


def _too_few_workers(workers: int, cpus: float, gpus: float, fitting: int, nodes: int) -> str:
    worker = f"{cpus:g} CPU" + (f" and {gpus:g} GPU" if gpus else "")
    several = f"{workers} workers of {worker} each" if workers > 1 else f"a worker of {worker}"
    on = f"{nodes} nodes have" if nodes > 1 else "node has"
    room = f"room for {fitting}" if fitting else "room for none"
    lower = [
        *(["resources.workers"] if fitting else []),
        "resources.cpus_per_worker",
        *(["resources.gpus_per_worker"] if gpus else []),
    ]
    return (
        f"One trial asks for {several}, and a worker cannot be split between nodes"
        f"{' or GPUs' if gpus else ''}: the {on} {room}. Lower {' or '.join(lower)}."
    )


def _largest(offered: Sequence[float]) -> str:
    return f" (the largest node {max(offered):g})" if len(offered) > 1 and max(offered) else ""


def _units(amount: float) -> int:
    return round(amount * UNIT)


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"
