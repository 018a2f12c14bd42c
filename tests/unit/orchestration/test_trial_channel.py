"""Messages between the driver, a trainable and its worker group, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from segan_ray.errors import TrialError
from segan_ray.orchestration.train import trial_channel
from segan_ray.orchestration.train.messages import GO_ON, STOP, Decision, EpochResult
from segan_ray.orchestration.train.trial_channel import TrialChannel

GROUP = "group"
SOON_S = 0.0
LONG_S = 60.0


def result(epoch: int, epochs: int = 9) -> EpochResult:
    return EpochResult(epoch, epochs, {"val/dice_mean": 0.5}, None)


async def settle() -> None:
    """Let everything happen that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def talk(what: Callable[[TrialChannel], Awaitable[Any]]) -> None:
    async def run() -> None:
        await asyncio.wait_for(what(TrialChannel()), LONG_S)

    asyncio.run(run())


def test_a_task_waits_for_its_worker_and_a_worker_for_its_task() -> None:
    async def what(channel: TrialChannel) -> None:
        early = asyncio.create_task(channel.task(GROUP, 0))
        await settle()
        assert not early.done()
        assert await channel.assign(GROUP, {"trial": "000"})
        assert (await early).config == {"trial": "000"}
        # The second worker of a group may come later.
        assert (await channel.task(GROUP, 0)).number == 1
        later = asyncio.create_task(channel.task(GROUP, 1))
        await settle()
        assert not later.done()
        assert await channel.assign(GROUP, {"trial": "001"})
        assert (await later).config == {"trial": "001"}

    talk(what)


def test_workers_without_a_next_task_leave_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_channel, "IDLE_S", SOON_S)

    async def what(channel: TrialChannel) -> None:
        first = asyncio.create_task(channel.task(GROUP, 0))
        await settle()
        # A worker that has not begun waits without a limit.
        assert not first.done()
        await channel.assign(GROUP, {})
        await first
        assert await asyncio.gather(channel.task(GROUP, 1), channel.task(GROUP, 1)) == [None, None]
        # A trainable with a task for them learns that they left, and starts other workers.
        assert not await channel.assign(GROUP, {})

    talk(what)


def test_no_epoch_begins_before_the_decision_on_the_one_before() -> None:
    async def what(channel: TrialChannel) -> None:
        await channel.assign(GROUP, {})
        await channel.report(GROUP, 1, result(1))
        workers = [asyncio.create_task(channel.decision(GROUP, 1, 1)) for _ in range(2)]
        assert (await channel.result(GROUP, LONG_S)).epoch == 1
        await settle()
        assert not any(worker.done() for worker in workers)
        await channel.decide(GROUP, 1, 1, GO_ON)
        assert await asyncio.gather(*workers) == [GO_ON, GO_ON]
        # A repeated decision, as after a restart, is the same for a worker that asks late.
        assert await channel.decision(GROUP, 1, 1) == GO_ON

    talk(what)


def test_a_trainable_is_told_that_there_is_nothing_yet() -> None:
    async def what(channel: TrialChannel) -> None:
        await channel.assign(GROUP, {})
        assert await channel.result(GROUP, SOON_S) is None
        await channel.report(GROUP, 1, result(1))
        assert (await channel.result(GROUP, LONG_S)).epoch == 1

    talk(what)


def test_workers_of_a_stopped_trial_hear_so_when_the_next_is_assigned() -> None:
    async def what(channel: TrialChannel) -> None:
        await channel.assign(GROUP, {})
        await channel.report(GROUP, 1, result(1))
        await channel.result(GROUP, LONG_S)
        workers = [asyncio.create_task(channel.decision(GROUP, 1, 1)) for _ in range(2)]
        await settle()
        await channel.assign(GROUP, {})
        assert await asyncio.gather(*workers) == [STOP, STOP]
        # A worker that asks only now hears the same.
        assert await channel.decision(GROUP, 1, 1) == STOP

    talk(what)


def test_late_reports_of_a_finished_task_are_dropped() -> None:
    async def what(channel: TrialChannel) -> None:
        await channel.assign(GROUP, {})
        await channel.report(GROUP, 1, result(1))
        await channel.assign(GROUP, {})
        await channel.report(GROUP, 1, result(2))
        assert await channel.result(GROUP, SOON_S) is None
        await channel.report(GROUP, 2, result(1, epochs=3))
        assert (await channel.result(GROUP, LONG_S)).epochs == 3

    talk(what)


def test_a_decision_is_on_one_epoch_of_one_task() -> None:
    exploit = Decision(experiment={"seed": 1}, checkpoint="taken-0002")

    async def what(channel: TrialChannel) -> None:
        await channel.assign(GROUP, {})
        await channel.decide(GROUP, 1, 2, exploit)
        assert await channel.decision(GROUP, 1, 2) == exploit
        waiting = asyncio.create_task(channel.decision(GROUP, 1, 3))
        await settle()
        assert not waiting.done()
        # Neither this decision nor a late one applies to the next trial.
        await channel.assign(GROUP, {})
        assert await waiting == STOP
        await channel.decide(GROUP, 1, 2, exploit)
        again = asyncio.create_task(channel.decision(GROUP, 2, 2))
        await settle()
        assert not again.done()
        await channel.decide(GROUP, 2, 2, GO_ON)
        assert await again == GO_ON

    talk(what)


def test_a_channel_that_was_lost_knows_no_group() -> None:
    async def what(channel: TrialChannel) -> None:
        # The driver goes on: the workers learn of the loss, and their trial begins again.
        await channel.decide(GROUP, 1, 1, GO_ON)
        for call in (
            channel.decision(GROUP, 1, 1),
            channel.report(GROUP, 1, result(1)),
            channel.result(GROUP, SOON_S),
        ):
            with pytest.raises(TrialError, match="lost and came back empty"):
                await call

    talk(what)


@pytest.mark.parametrize("closed_first", [False, True])
def test_workers_leave_when_their_group_is_closed(closed_first: bool) -> None:
    async def what(channel: TrialChannel) -> None:
        if closed_first:
            await channel.close(GROUP)
            assert await channel.task(GROUP, 0) is None
            return
        await channel.assign(GROUP, {})
        decision = asyncio.create_task(channel.decision(GROUP, 1, 1))
        waiting = asyncio.create_task(channel.task(GROUP, 1))
        await settle()
        await channel.close(GROUP)
        assert await waiting is None
        assert await decision == STOP

    talk(what)


def test_groups_do_not_hear_each_other() -> None:
    async def what(channel: TrialChannel) -> None:
        await channel.assign("one", {})
        await channel.assign("two", {})
        await channel.report("one", 1, result(1))
        assert await channel.result("two", SOON_S) is None
        await channel.close("one")
        assert (await channel.task("two", 0)).number == 1

    talk(what)
