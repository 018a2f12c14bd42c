"""How many trials the cluster of this session has room for."""

from __future__ import annotations

# The session's settings must be in the environment before Ray is imported.
from segan_ray.orchestration import session  # noqa: F401

import ray  # isort: skip

from segan_ray.config import ResourceSettings
from segan_ray.orchestration.capacity import Node, check_fits, how_many_fit
from segan_ray.orchestration.tuning import DRIVER_BYTES
from segan_ray.search.space import SearchSpace


def room_for(space: SearchSpace) -> int:
    """Return how many of a sweep's trials can train at once.

    Raises:
        SweepError: if not even one can, with the numbers.
    """
    fit = check_room(space.base_experiment().resources)
    asked = space.budget.max_concurrent
    return fit if asked == "auto" else min(fit, asked)


def check_room(resources: ResourceSettings) -> int:
    """Return how many trials of these resources the cluster holds, at least one.

    Raises:
        SweepError: if it cannot hold one, with the numbers.
    """
    ask = (
        resources.workers,
        resources.cpus_per_worker,
        resources.gpus_per_worker,
        float(DRIVER_BYTES),
    )
    nodes = [
        Node(
            node["NodeManagerHostname"],
            node["Resources"].get("CPU", 0),
            node["Resources"].get("GPU", 0),
            node["Resources"].get("memory", 0),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    check_fits(nodes, *ask)
    return how_many_fit(nodes, *ask)
