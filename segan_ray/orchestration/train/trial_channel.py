"""The channel between the driver of a sweep and the workers of its trials: one actor a sweep.

A trainable assigns a task to its worker group and waits for results. The workers wait for a task,
report each epoch, and wait for the driver's decision on it. No epoch begins before the decision on
the one before: a trial that is to stop trains no epoch for nothing, and no epoch goes unrecorded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Any, Final

import ray
from ray.exceptions import RayError

from segan_ray.errors import TrialError
from segan_ray.orchestration.train.messages import STOP, Decision, EpochResult, Task

log = logging.getLogger(__name__)

NAMESPACE: Final = "segan-ray"
IDLE_S: Final = 15.0
"""How long workers that have trained a trial wait for the next."""


@dataclass
class _Exchange:
    """What a worker group and the driver have told each other of the current task."""

    task: Task | None = None
    given: int = 0
    closed: bool = False
    results: list[EpochResult] = field(default_factory=list)
    decisions: dict[int, Decision] = field(default_factory=dict)

    def is_over(self, task: int) -> bool:
        return self.closed or self.task is None or self.task.number != task


class TrialChannel:
    """The messages of every worker group of a sweep, by the group's id."""

    def __init__(self) -> None:
        self._exchanges: dict[str, _Exchange] = {}
        self._heartbeats: dict[int, float] = {}
        self._news = asyncio.Condition()

    async def assign(self, group: str, config: dict[str, Any]) -> int | None:
        """Give a worker group a task, in place of the one before; return the task's number.

        None if its workers have left.
        """
        async with self._news:
            exchange = self._exchanges.setdefault(group, _Exchange())
            if exchange.closed:
                return None
            exchange.given += 1
            exchange.task = Task(exchange.given, config)
            exchange.results.clear()
            exchange.decisions.clear()
            self._news.notify_all()
            return exchange.given

    async def close(self, group: str) -> None:
        """Let the workers of a group leave."""
        async with self._news:
            self._close(self._exchanges.setdefault(group, _Exchange()))

    async def task(self, group: str, after: int) -> Task | None:
        """Wait for a task later than the ``after``-th; None when there will be none.

        Workers without a task leave soon: where a node was lost, a trial that begins again may
        need what they hold.
        """

        def news() -> bool:
            return exchange.closed or (exchange.task is not None and exchange.task.number > after)

        async with self._news:
            exchange = self._exchanges.setdefault(group, _Exchange())
            try:
                await asyncio.wait_for(self._news.wait_for(news), IDLE_S if after else None)
            except TimeoutError:
                # For all workers of the group at once, so that none is given a task any more.
                self._close(exchange)
            return exchange.task

    async def report(self, group: str, task: int, result: EpochResult) -> None:
        """Take an epoch's result of a task, unless the task is over."""
        async with self._news:
            exchange = self._of(group)
            if not exchange.is_over(task):
                exchange.results.append(result)
                self._news.notify_all()

    async def result(self, group: str, timeout_s: float) -> EpochResult | None:
        """Return the next result of a group's task, or None if none came in time."""
        async with self._news:
            exchange = self._of(group)
            try:
                await asyncio.wait_for(self._news.wait_for(lambda: exchange.results), timeout_s)
            except TimeoutError:
                return None
            return exchange.results.pop(0)

    async def decide(self, group: str, task: int, epoch: int, decision: Decision) -> None:
        """Take the decision on an epoch of a task, unless the task is over or unknown."""
        async with self._news:
            exchange = self._exchanges.get(group)
            if exchange is not None and not exchange.is_over(task):
                exchange.decisions[epoch] = decision
                self._news.notify_all()

    async def decision(self, group: str, task: int, epoch: int) -> Decision:
        """Wait for the decision on an epoch of a task; a task that is over stops."""
        async with self._news:
            exchange = self._of(group)

            def news() -> bool:
                return exchange.is_over(task) or epoch in exchange.decisions

            await self._news.wait_for(news)
            return STOP if exchange.is_over(task) else exchange.decisions[epoch]

    async def heartbeat(self, tag: int) -> None:
        """Take a heartbeat of the worker group with that tag."""
        self._heartbeats[tag] = time.monotonic()

    async def heartbeats(self) -> dict[int, float]:
        """Return how many seconds ago the last heartbeat of each tag was."""
        now = time.monotonic()
        return {tag: now - last for tag, last in self._heartbeats.items()}

    def _close(self, exchange: _Exchange) -> None:
        exchange.closed, exchange.task = True, None
        self._news.notify_all()

    def _of(self, group: str) -> _Exchange:
        if group not in self._exchanges:
            raise TrialError("the sweep's trial channel was lost and came back empty.")
        return self._exchanges[group]


class TrialChannelClient:
    """The channel as other processes use it: each call returns when it is answered.

    Every method but ``decide`` raises ``ray.exceptions.RayError`` if the actor is lost, and
    ``TrialError`` if it came back without the group's task.
    """

    def __init__(self, name: str) -> None:
        self._actor = ray.get_actor(name, namespace=NAMESPACE)

    def assign(self, group: str, config: dict[str, Any]) -> int | None:
        """See ``TrialChannel.assign``."""
        return self._ask("assign", group, config)  # type: ignore[no-any-return]

    def close(self, group: str) -> None:
        """See ``TrialChannel.close``."""
        self._ask("close", group)

    def task(self, group: str, after: int) -> Task | None:
        """See ``TrialChannel.task``."""
        return self._ask("task", group, after)  # type: ignore[no-any-return]

    def report(self, group: str, task: int, result: EpochResult) -> None:
        """See ``TrialChannel.report``."""
        self._ask("report", group, task, result)

    def result(self, group: str, timeout_s: float) -> EpochResult | None:
        """See ``TrialChannel.result``."""
        return self._ask("result", group, timeout_s)  # type: ignore[no-any-return]

    def decide(self, group: str, task: int, epoch: int, decision: Decision) -> None:
        """See ``TrialChannel.decide``. Of a channel that is lost, the trial begins again."""
        try:
            self._ask("decide", group, task, epoch, decision)
        except RayError as error:
            # Workers who wait for the decision learn of the loss themselves.
            log.debug("decision on epoch %d of %s: %s", epoch, group, error)

    def decision(self, group: str, task: int, epoch: int) -> Decision:
        """See ``TrialChannel.decision``."""
        return self._ask("decision", group, task, epoch)  # type: ignore[no-any-return]

    def heartbeat(self, tag: int) -> None:
        """See ``TrialChannel.heartbeat``."""
        self._ask("heartbeat", tag)

    def heartbeats(self) -> dict[int, float]:
        """See ``TrialChannel.heartbeats``."""
        return self._ask("heartbeats")  # type: ignore[no-any-return]

    def _ask(self, method: str, *arguments: Any) -> Any:
        return ray.get(getattr(self._actor, method).remote(*arguments))


def open_channel(name: str) -> Any:
    """Start the channel of a sweep in this cluster; it ends with this process.

    It stays on this node: it must not be lost with a node of workers.
    """
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    actor = ray.remote(TrialChannel).options(
        name=name,
        namespace=NAMESPACE,
        num_cpus=0,
        # Every worker and trainable may have a call waiting.
        max_concurrency=10_000,
        max_restarts=-1,
        scheduling_strategy=here,
    )
    return actor.remote()
