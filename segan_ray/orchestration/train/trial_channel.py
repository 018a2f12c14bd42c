"""Where a lane and the workers it trains with leave each other word: one actor a sweep.

A lane (``lane.py``) puts a task up and waits for results; its workers wait for a task, report
each epoch, and wait to hear whether to go on. No epoch begins before the one before it has been
judged, so a trial that is to stop wastes none, and nothing can be reported that nobody noted.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any, Final

# The session's settings must be in the environment before Ray is imported.
from segan_ray.orchestration.cluster import session  # noqa: F401

import ray  # isort: skip

from segan_ray.errors import TrialError
from segan_ray.orchestration.train.epoch_result import EpochResult

NAMESPACE: Final = "segan-ray"
IDLE_S: Final = 15.0
"""How long workers that have trained a trial wait for the next."""


@dataclass(frozen=True)
class Task:
    """One trial for a lane's workers, and the how-manieth of this lane it is."""

    number: int
    config: dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What becomes of a trial after an epoch; ``exploit`` says whose weights it goes on from."""

    go_on: bool
    exploit: dict[str, Any] | None = None


STOP: Final = Verdict(False)


@dataclass
class _Lane:
    task: Task | None = None
    given: int = 0
    closed: bool = False
    results: list[EpochResult] = field(default_factory=list)
    judged: int = 0
    orders: dict[int, dict[str, Any]] = field(default_factory=dict)


class TrialChannel:
    """The messages of every lane of a sweep; lanes are known by an id of their own."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._heard: dict[int, float] = {}
        self._news = asyncio.Condition()

    async def assign(self, lane: str, config: dict[str, Any]) -> bool:
        """Put up a task; whatever the lane's workers did before is over.

        False if they have gone home.
        """
        async with self._news:
            slot = self._lanes.setdefault(lane, _Lane())
            if slot.closed:
                return False
            slot.given += 1
            slot.task = Task(slot.given, config)
            slot.results.clear()
            slot.orders.clear()
            slot.judged = 0
            self._news.notify_all()
            return True

    async def beat(self, mark: int) -> None:
        """Take a sign of life of the crew with that mark."""
        self._heard[mark] = time.monotonic()

    async def heard(self) -> dict[int, float]:
        """Return how many seconds ago each mark was last heard of."""
        now = time.monotonic()
        return {mark: now - last for mark, last in self._heard.items()}

    async def close(self, lane: str) -> None:
        """Let the lane's workers go home."""
        async with self._news:
            slot = self._lanes.setdefault(lane, _Lane())
            slot.closed, slot.task = True, None
            self._news.notify_all()

    async def result(self, lane: str, judged: int, timeout_s: float) -> EpochResult | None:
        """Say that the epochs up to ``judged`` may be left behind; return the next, or None yet."""
        async with self._news:
            slot = self._slot(lane)
            if judged > slot.judged:
                slot.judged = judged
                self._news.notify_all()
            try:
                await asyncio.wait_for(self._news.wait_for(lambda: slot.results), timeout_s)
            except TimeoutError:
                return None
            return slot.results.pop(0)

    async def order(self, lane: str, epoch: int, exploit: dict[str, Any]) -> None:
        """Have the lane's trial go on from another's weights after ``epoch``."""
        async with self._news:
            self._slot(lane).orders[epoch] = exploit

    async def task(self, lane: str, after: int) -> Task | None:
        """Wait for a task later than the ``after``-th; None when there will be none.

        Workers that have nothing to do go home soon: where a node was lost, a trial that begins
        again may wait for their place.
        """

        def news() -> bool:
            return slot.closed or (slot.task is not None and slot.task.number > after)

        async with self._news:
            slot = self._lanes.setdefault(lane, _Lane())
            try:
                await asyncio.wait_for(self._news.wait_for(news), IDLE_S if after else None)
            except TimeoutError:
                # All of the lane's workers at once, and before anybody gives them a task.
                slot.closed, slot.task = True, None
                self._news.notify_all()
            return slot.task

    async def report(self, lane: str, task: int, result: EpochResult) -> None:
        """Take an epoch's result of a task, unless that is over."""
        async with self._news:
            slot = self._slot(lane)
            if slot.task is not None and slot.task.number == task:
                slot.results.append(result)
                self._news.notify_all()

    async def verdict(self, lane: str, task: int, epoch: int) -> Verdict:
        """Wait until ``epoch`` of a task has been judged."""
        async with self._news:
            slot = self._slot(lane)

            def over() -> bool:
                return slot.closed or slot.task is None or slot.task.number != task

            await self._news.wait_for(lambda: over() or slot.judged >= epoch)
            return STOP if over() else Verdict(True, slot.orders.get(epoch))

    def _slot(self, lane: str) -> _Lane:
        if lane not in self._lanes:
            raise TrialError("the sweep's mailbox was lost and came back empty.")
        return self._lanes[lane]


class TrialChannelClient:
    """The mailbox as other processes use it: plain calls that return when they are answered."""

    def __init__(self, name: str) -> None:
        self._actor = ray.get_actor(name, namespace=NAMESPACE)

    def __getattr__(self, method: str) -> Any:
        remote = getattr(self._actor, method)
        return lambda *arguments: ray.get(remote.remote(*arguments))


def open_channel(name: str) -> Any:
    """Start the mailbox of a sweep in this cluster; it ends with this process.

    It stays on this node: it must not go when a node of workers does.
    """
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    actor = ray.remote(TrialChannel).options(
        name=name,
        namespace=NAMESPACE,
        num_cpus=0,
        # Every worker and lane may have a call waiting.
        max_concurrency=10_000,
        max_restarts=-1,
        scheduling_strategy=here,
    )
    return actor.remote()
