"""How many trials the cluster of this session has room for, now and once nodes come.

``budget.max_concurrent: auto`` means what the nodes that are there hold. A number means as much:
where the cluster has less, it is asked for more, so that an autoscaler starts nodes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from segan_ray.orchestration import session

import ray  # isort: skip

from segan_ray.config import ResourceSettings
from segan_ray.errors import SweepError
from segan_ray.orchestration.capacity import Node, check_fits, how_many_fit
from segan_ray.orchestration.tuning import DRIVER_BYTES
from segan_ray.orchestration.wishes import Wishes
from segan_ray.search.space import SearchSpace

LOOK_S: Final = 5.0
"""How soon a node that came is used."""
PATIENCE_S: Final = 1800.0
"""How long a first node is waited for; clouds take minutes, and may be out of spot machines."""


@dataclass
class Room:
    """How many trials can train at once, looked up again as nodes come and go."""

    resources: ResourceSettings
    most: int | None
    wishes: Wishes | None
    _fit: int = 0
    _looked: float = field(default=float("-inf"))

    def now(self, wanted: int) -> int:
        """Return how many of ``wanted`` trials can train, at least one: it may wait for a node."""
        if time.monotonic() - self._looked >= LOOK_S:
            self._looked = time.monotonic()
            self._fit = how_many_fit(alive_nodes(), *_ask(self.resources))
            if self.wishes is not None and self.most is not None:
                self.wishes.want(max(0, min(self.most, wanted) - self._fit))
        return max(1, self._fit if self.most is None else min(self._fit, self.most))


@contextmanager
def room_for(space: SearchSpace, say: Callable[[str], Any]) -> Iterator[Room]:
    """Give the room for a sweep's trials, waiting for a first node where nodes may come.

    Raises:
        SweepError: if not even one trial fits, with the numbers.
    """
    resources, asked = space.base_experiment().resources, space.budget.max_concurrent
    most = None if asked == "auto" else asked
    comes_more = most is not None and session.joined()
    room = Room(resources, most, Wishes(resources) if comes_more else None)
    try:
        if comes_more:
            _wait_for_a_node(room, say)
        check_room(resources)
        yield room
    finally:
        if room.wishes is not None:
            room.wishes.want(0)


def check_room(resources: ResourceSettings) -> None:
    """Make sure that one trial fits.

    Raises:
        SweepError: if it does not, with the numbers.
    """
    try:
        check_fits(alive_nodes(), *_ask(resources))
    except SweepError as error:
        if not session.joined():
            raise
        raise SweepError(
            f"{error} If this cluster starts nodes on demand, say for how many trials: "
            "budget.max_concurrent."
        ) from None


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


def _wait_for_a_node(room: Room, say: Callable[[str], Any]) -> None:
    """Ask for nodes and wait for the first, for a while."""
    ask = _ask(room.resources)
    if how_many_fit(alive_nodes(), *ask):
        return
    say(
        f"No node has room for a trial yet. Asked the cluster for more; waiting up to "
        f"{PATIENCE_S / 60:.0f} minutes."
    )
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and not how_many_fit(alive_nodes(), *ask):
        room.now(room.most or 1)
        time.sleep(LOOK_S / 5)


def _ask(resources: ResourceSettings) -> tuple[int, float, float, float]:
    return (
        resources.workers,
        resources.cpus_per_worker,
        resources.gpus_per_worker,
        float(DRIVER_BYTES),
    )
