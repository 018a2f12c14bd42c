"""How many trials a sweep runs at once, while nodes come and go."""

from __future__ import annotations

import pytest

from segan_ray.orchestration import room as rooms
from segan_ray.orchestration.capacity import Node
from segan_ray.orchestration.room import LOOK_S, room_for
from segan_ray.search.space import SearchSpace

NODE = Node("a", 2, 0, 8 * 2**30)


class Clock:
    """Time that passes when it is told to."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def space(at_once: int | str) -> SearchSpace:
    return SearchSpace.model_validate(
        {
            "name": "test",
            "base": {"resources": {"workers": 2, "cpus_per_worker": 1}},
            "parameters": {"segmentor.lr": {"type": "float", "low": 0.1, "high": 1.0}},
            "budget": {"trials": 9, "max_concurrent": at_once},
        }
    )


@pytest.mark.parametrize(("at_once", "seen"), [("auto", [1, 1, 3, 1, 1]), (2, [1, 1, 2, 1, 1])])
def test_room_follows_the_nodes(monkeypatch, at_once: int | str, seen: list[int]) -> None:
    nodes, clock = [NODE], Clock()
    monkeypatch.setattr(rooms, "alive_nodes", lambda: list(nodes))
    monkeypatch.setattr(rooms, "time", clock)
    room = room_for(space(at_once))
    found = [room()]
    nodes += [NODE, NODE]
    found.append(room())  # looked at a moment ago
    clock.now += LOOK_S
    found.append(room())
    del nodes[1:]
    clock.now += LOOK_S
    found.append(room())
    # Of what was begun something always goes on, as soon as a node comes back.
    nodes.clear()
    clock.now += LOOK_S
    found.append(room())
    assert found == seen
