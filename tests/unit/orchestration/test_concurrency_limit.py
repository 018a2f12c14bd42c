"""How many trials a sweep runs at once, while nodes come and go."""

from __future__ import annotations

import pytest

from segan_ray.errors import SweepError
from segan_ray.orchestration.cluster.capacity import Node
from segan_ray.orchestration.tune import concurrency_limit as limits_module
from segan_ray.orchestration.tune.concurrency_limit import LOOK_S, concurrency_limit
from segan_ray.search.space.search_space import SearchSpace

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


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[Node]:
    there = [NODE]
    monkeypatch.setattr(limits_module, "alive_nodes", lambda: list(there))
    return there


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(limits_module, "time", clock)
    return clock


@pytest.mark.parametrize(("at_once", "seen"), [("auto", [1, 1, 3, 1, 1]), (2, [1, 1, 2, 1, 1])])
def test_the_limit_follows_the_nodes(nodes, clock, at_once: int | str, seen: list[int]) -> None:
    limit = concurrency_limit(space(at_once), print)
    limits = [limit.now(9)]
    nodes += [NODE, NODE]
    limits.append(limit.now(9))  # nodes were looked up a moment ago
    clock.now += LOOK_S
    limits.append(limit.now(9))
    del nodes[1:]
    clock.now += LOOK_S
    limits.append(limit.now(9))
    # At least one trial may go on, as soon as a node comes back.
    nodes.clear()
    clock.now += LOOK_S
    limits.append(limit.now(9))
    assert limits == seen


def test_a_number_is_the_limit_where_nodes_may_come(nodes, clock, monkeypatch) -> None:
    monkeypatch.setattr(limits_module.session, "joined", lambda: True)
    said: list[str] = []
    limit = concurrency_limit(space(4), said.append)
    assert said == []
    # No more trials wait than are left.
    assert [limit.now(wanted) for wanted in (9, 4, 3, 0)] == [4, 4, 3, 1]
    nodes.clear()
    assert concurrency_limit(space(4), said.append).now(9) == 4
    assert "Waiting for nodes" in said[0]


def test_a_cluster_without_nodes_says_how_to_ask_for_some(nodes, monkeypatch) -> None:
    nodes.clear()
    with pytest.raises(SweepError, match="the cluster has 0") as told:
        concurrency_limit(space(2), print)
    assert "on demand" not in str(told.value)
    monkeypatch.setattr(limits_module.session, "joined", lambda: True)
    with pytest.raises(SweepError, match=r"on demand.*max_concurrent"):
        concurrency_limit(space("auto"), print)
