"""How many trials a sweep runs at once, while nodes come and go."""

from __future__ import annotations

import pytest

from segan_ray.errors import SweepError
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


class Wished:
    """Counts what is asked for."""

    asked = 0

    def want(self, trials: int) -> None:
        self.asked = trials


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    there = [NODE]
    monkeypatch.setattr(rooms, "alive_nodes", lambda: list(there))
    return there


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rooms, "time", clock)
    return clock


@pytest.mark.parametrize(("at_once", "seen"), [("auto", [1, 1, 3, 1, 1]), (2, [1, 1, 2, 1, 1])])
def test_room_follows_the_nodes(nodes, clock, at_once: int | str, seen: list[int]) -> None:
    with room_for(space(at_once), print) as room:
        found = [room.now(9)]
        nodes += [NODE, NODE]
        found.append(room.now(9))  # looked at a moment ago
        clock.now += LOOK_S
        found.append(room.now(9))
        del nodes[1:]
        clock.now += LOOK_S
        found.append(room.now(9))
        # Of what was begun something always goes on, as soon as a node comes back.
        nodes.clear()
        clock.now += LOOK_S
        found.append(room.now(9))
    assert found == seen


@pytest.mark.parametrize(("at_once", "asked"), [(4, [3, 1, 0, 0]), ("auto", [0, 0, 0, 0])])
def test_what_is_missing_is_asked_for_where_nodes_may_come(
    nodes, clock, monkeypatch, at_once: int | str, asked: list[int]
) -> None:
    wished = Wished()
    monkeypatch.setattr(rooms.session, "joined", lambda: True)
    monkeypatch.setattr(rooms, "Wishes", lambda _: wished)
    found = []
    with room_for(space(at_once), print) as room:
        # Of the last two trials no more is wanted than they need.
        for wanted, more in ((9, [NODE]), (3, []), (2, []), (2, [])):
            room.now(wanted)
            found.append(wished.asked)
            nodes += more
            clock.now += LOOK_S
        wished.asked = 7 if at_once == 4 else 0
    assert found == asked
    assert wished.asked == 0


def test_a_first_node_is_waited_for_where_one_may_come(nodes, clock, monkeypatch) -> None:
    nodes.clear()
    said: list[str] = []

    def sleep(seconds: float) -> None:
        clock.now += seconds
        if clock.now > 60:
            nodes.append(NODE)

    clock.sleep = sleep
    monkeypatch.setattr(rooms.session, "joined", lambda: True)
    monkeypatch.setattr(rooms, "Wishes", lambda _: Wished())
    with room_for(space(2), said.append) as room:
        assert room.now(9) == 1
    assert "No node has room for a trial yet" in said[0]
    nodes.clear()
    monkeypatch.setattr(rooms, "PATIENCE_S", 10.0)
    clock.now = -1e6
    with pytest.raises(SweepError, match="the cluster has 0"), room_for(space(2), said.append):
        raise AssertionError("there is no room")


def test_a_cluster_without_room_says_how_to_ask_for_some(nodes, monkeypatch) -> None:
    nodes.clear()
    with pytest.raises(SweepError, match="the cluster has 0") as told, room_for(space(2), print):
        raise AssertionError("there is no room")
    assert "on demand" not in str(told.value)
    monkeypatch.setattr(rooms.session, "joined", lambda: True)
    with (
        pytest.raises(SweepError, match=r"on demand.*max_concurrent"),
        room_for(space("auto"), print),
    ):
        raise AssertionError("there is no room")
