"""How many trials the cluster of this session has room for."""

from __future__ import annotations

import time
from typing import Final

# The session's settings must be in the environment before Ray is imported.
from segan_ray.orchestration import session  # noqa: F401

import ray  # isort: skip

from segan_ray.config import ResourceSettings
from segan_ray.orchestration.capacity import Node, check_fits, how_many_fit
from segan_ray.orchestration.tuning import DRIVER_BYTES, Room
from segan_ray.search.space import SearchSpace

LOOK_S: Final = 5.0
"""How soon a node that came is used."""


def room_for(space: SearchSpace) -> Room:
    """Return how to learn how many of a sweep's trials can train at once: nodes come and go.

    Raises:
        SweepError: if not even one can now, with the numbers.
    """
    resources = space.base_experiment().resources
    asked = space.budget.max_concurrent
    looked, fit = time.monotonic(), check_room(resources)

    def room() -> int:
        nonlocal looked, fit
        if time.monotonic() - looked >= LOOK_S:
            # Where the last node was lost, its trials wait for another.
            looked, fit = time.monotonic(), max(1, how_many_fit(alive_nodes(), *_ask(resources)))
        return fit if asked == "auto" else min(fit, asked)

    return room


def check_room(resources: ResourceSettings) -> int:
    """Return how many trials of these resources the cluster holds, at least one.

    Raises:
        SweepError: if it cannot hold one, with the numbers.
    """
    nodes, ask = alive_nodes(), _ask(resources)
    check_fits(nodes, *ask)
    return how_many_fit(nodes, *ask)


def alive_nodes() -> list[Node]:
    """Return what each node of the cluster offers, whether or not it is taken."""
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


def _ask(resources: ResourceSettings) -> tuple[int, float, float, float]:
    return (
        resources.workers,
        resources.cpus_per_worker,
        resources.gpus_per_worker,
        float(DRIVER_BYTES),
    )
