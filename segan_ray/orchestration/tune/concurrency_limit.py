"""How many trials train at once on the cluster of this session, looked up as nodes come and go.

``budget.max_concurrent: auto`` means as many as fit on the present nodes. On a cluster that is
joined, a number means as many even if fewer fit: an autoscaler starts nodes for pending trials.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import ray

from segan_ray.config import ResourceSettings
from segan_ray.errors import SweepError
from segan_ray.orchestration.cluster import session
from segan_ray.orchestration.cluster.capacity import (
    Node,
    check_fits,
    gpus_for_each,
    how_many_fit,
    idle_gpus,
)
from segan_ray.orchestration.train.worker_group_spec import WorkerGroupSpec
from segan_ray.orchestration.tune.run_trials import DRIVER_BYTES
from segan_ray.search.space.search_space import SearchSpace

LOOK_S: Final = 5.0
"""How soon a new node is used."""


@dataclass
class ConcurrencyLimit:
    """How many trials may train at once: ``most``, but no more than fit unless nodes may come."""

    spec: WorkerGroupSpec
    most: int | None
    nodes_come: bool
    _fit: int = 0
    _looked: float = field(default=float("-inf"))

    def now(self, wanted: int) -> int:
        """Return how many of ``wanted`` trials may train, at least one: it may wait for nodes."""
        if self.most is not None and self.nodes_come:
            return max(1, min(self.most, wanted))
        if time.monotonic() - self._looked >= LOOK_S:
            self._looked = time.monotonic()
            self._fit = how_many_fit(alive_nodes(), *_ask(self.spec))
        return max(1, self._fit if self.most is None else min(self._fit, self.most))


def concurrency_limit(space: SearchSpace, say: Callable[[str], Any]) -> ConcurrencyLimit:
    """Return the limit on a sweep's concurrent trials; what their workers get is chosen here.

    Raises:
        SweepError: if not even one trial fits, with the numbers, unless nodes are asked for.
    """
    spec = worker_group_spec(space.base_experiment().resources, say)
    number = space.budget.max_concurrent
    most = None if number == "auto" else number
    limit = ConcurrencyLimit(spec, most, session.joined())
    if most is None or not limit.nodes_come:
        check_one_fits(spec)
    elif not how_many_fit(alive_nodes(), *_ask(spec)):
        say(
            f"No node has room for a trial yet. Waiting for nodes: where no autoscaler starts some "
            f"for {most} trials, nothing trains."
        )
    return limit


def worker_group_spec(resources: ResourceSettings, say: Callable[[str], Any]) -> WorkerGroupSpec:
    """Return what the workers of a trial get; say whether they train on GPUs if there are any."""
    workers, cpus, gpus = resources.workers, resources.cpus_per_worker, resources.gpus_per_worker
    told = None
    if gpus == "auto":
        gpus, told = gpus_for_each(alive_nodes(), workers, cpus)
    elif not gpus:
        told = idle_gpus(alive_nodes())
    if told is not None:
        say(told)
    return WorkerGroupSpec(workers, cpus, gpus)


def check_one_fits(spec: WorkerGroupSpec) -> None:
    """Make sure that one trial fits.

    Raises:
        SweepError: if not, with the numbers.
    """
    try:
        check_fits(alive_nodes(), *_ask(spec))
    except SweepError as error:
        if not session.joined():
            raise
        raise SweepError(
            f"{error} If this cluster starts nodes on demand, say for how many trials: "
            "budget.max_concurrent."
        ) from None


def alive_nodes() -> list[Node]:
    """Return the resources of each node of the cluster, free or not."""
    return [
        Node(
            node["NodeManagerHostname"],
            node["Resources"].get("CPU", 0),
            node["Resources"].get("GPU", 0),
            node["Resources"].get("memory", 0),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def _ask(spec: WorkerGroupSpec) -> tuple[int, float, float, float]:
    return (spec.workers, spec.cpus_per_worker, spec.gpus_per_worker, float(DRIVER_BYTES))
