"""What each further node costs a cluster's head, with nothing else to do: memory and processor.

Nodes are raylets of this machine, started one after another beside one head. What is counted is
all that a head runs and a worker does not: GCS, dashboard, autoscaler's monitor. What a node runs
itself (a raylet, two agents, a log monitor) is shown beside it, for the size of this machine bounds
how many there can be.
"""

from __future__ import annotations

import argparse
import os
import platform
from dataclasses import asdict, dataclass
from time import perf_counter, sleep
from typing import Any, Final

import _run
import psutil
from ray.cluster_utils import Cluster

MB: Final = 1e6
OBJECT_STORE_BYTES: Final = 100 * 2**20
TARGET: Final = 1.0
"""At a hundred nodes the head's processes are to take no more than one core."""
NODES_AT_TARGET: Final = 100


@dataclass(frozen=True)
class Load:
    """What a head and, beside it, one node take, so many nodes attached; CPU in cores."""

    nodes: int
    head_mb: float
    head_cpu: float
    node_mb: float


def measure(counts: list[int], seconds: float, settle_s: float) -> list[Load]:
    """Return the load at each of ``counts`` nodes, each looked at for so many seconds."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": True, "dashboard_port": 0}
        | {"object_store_memory": OBJECT_STORE_BYTES},
    )
    try:
        head = _processes(set())
        loads = []
        for count in counts:
            while len(cluster.worker_nodes) < count:
                cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)
            sleep(settle_s)
            others = _processes(head)
            before, start = _cpu_s(head), perf_counter()
            sleep(seconds)
            used = (_cpu_s(head) - before) / (perf_counter() - start)
            each = _mb(others) / count if count else 0.0
            loads.append(Load(count, _mb(head), used, each))
        return loads
    finally:
        cluster.shutdown()


def _processes(but: set[psutil.Process]) -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True)) - but


def _cpu_s(processes: set[psutil.Process]) -> float:
    times = [each.cpu_times() for each in processes if each.is_running()]
    return sum(time.user + time.system for time in times)


def _mb(processes: set[psutil.Process]) -> float:
    """Return what they hold, shared pages divided among those who share them."""
    return sum(each.memory_full_info().pss for each in processes if each.is_running()) / MB


def document(loads: list[Load]) -> dict[str, object]:
    """Return the benchmark's document; cores at a hundred nodes go by the line through the ends."""
    first, last = loads[0], loads[-1]
    slope = (last.head_cpu - first.head_cpu) / (last.nodes - first.nodes)
    value = first.head_cpu + slope * (NODES_AT_TARGET - first.nodes)
    name = f"head's cores at {NODES_AT_TARGET} nodes, extrapolated"
    return {
        "device": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "ratios": {name: {"value": value, "target": TARGET, "ok": value <= TARGET}},
        "detail": {"loads": [asdict(load) for load in loads], "cores a node": slope},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, nargs="+", default=[0, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--settle", type=float, default=10.0, help="seconds before a look")
    options = _run.begin(parser, nodes=[0, 1], seconds=1.0, settle=0.0)
    if len(set(options.nodes)) < 2:
        parser.error("--nodes: a line wants two points.")
    loads = measure(sorted(options.nodes), options.seconds, options.settle)
    _run.finish(options, document(loads), show)


def show(found: dict[str, Any]) -> None:
    print(f"Ray's head by the number of nodes: {found['device']}")
    print(f"{'nodes':>6}{'head MB':>10}{'head cores':>12}{'MB a node':>11}")
    for each in found["detail"]["loads"]:
        load = Load(**each)
        print(f"{load.nodes:6}{load.head_mb:10.0f}{load.head_cpu:12.3f}{load.node_mb:11.0f}")
    for name, ratio in found["ratios"].items():
        print(f"{name}: {ratio['value']:.2f}, target {ratio['target']:g}")


if __name__ == "__main__":
    main()
