"""What a lane and its workers say to each other, without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from segan_ray.orchestration.train import trial_channel
from segan_ray.orchestration.train.epoch_result import EpochResult
from segan_ray.orchestration.train.trial_channel import STOP, TrialChannel, Verdict

LANE = "lane"
SOON_S = 0.0
LONG_S = 60.0


def result(epoch: int, epochs: int = 9) -> EpochResult:
    return EpochResult(epoch, epochs, {"val/dice_mean": 0.5}, epoch, {})


async def settle() -> None:
    """Let everything happen that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def talk(what: Callable[[TrialChannel], Awaitable[Any]]) -> None:
    async def run() -> None:
        await asyncio.wait_for(what(TrialChannel()), LONG_S)

    asyncio.run(run())


def test_a_task_waits_for_its_worker_and_a_worker_for_its_task() -> None:
    async def what(box: TrialChannel) -> None:
        early = asyncio.create_task(box.task(LANE, 0))
        await settle()
        assert not early.done()
        assert await box.assign(LANE, {"trial": "000"})
        assert (await early).config == {"trial": "000"}
        # Of two workers of a crew the other may come later.
        assert (await box.task(LANE, 0)).number == 1
        later = asyncio.create_task(box.task(LANE, 1))
        await settle()
        assert not later.done()
        assert await box.assign(LANE, {"trial": "001"})
        assert (await later).config == {"trial": "001"}

    talk(what)


def test_workers_without_a_next_task_go_home_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial_channel, "IDLE_S", SOON_S)

    async def what(box: TrialChannel) -> None:
        first = asyncio.create_task(box.task(LANE, 0))
        await settle()
        # One that has not begun waits for as long as it takes.
        assert not first.done()
        await box.assign(LANE, {})
        await first
        assert await asyncio.gather(box.task(LANE, 1), box.task(LANE, 1)) == [None, None]
        # Whoever has a task for them learns it, and takes others.
        assert not await box.assign(LANE, {})

    talk(what)


def test_no_epoch_is_left_behind_before_it_was_judged() -> None:
    async def what(box: TrialChannel) -> None:
        await box.assign(LANE, {})
        await box.report(LANE, 1, result(1))
        verdicts = [asyncio.create_task(box.verdict(LANE, 1, 1)) for _ in range(2)]
        assert (await box.result(LANE, 0, LONG_S)).epoch == 1
        await settle()
        assert not any(verdict.done() for verdict in verdicts)
        # The lane asks for the next result: the one before may be left behind.
        waiting = asyncio.create_task(box.result(LANE, 1, LONG_S))
        assert await asyncio.gather(*verdicts) == [Verdict(True)] * 2
        await box.report(LANE, 1, result(2))
        assert (await waiting).epoch == 2

    talk(what)


def test_a_lane_is_told_that_there_is_nothing_yet() -> None:
    async def what(box: TrialChannel) -> None:
        await box.assign(LANE, {})
        assert await box.result(LANE, 0, SOON_S) is None
        await box.report(LANE, 1, result(1))
        assert (await box.result(LANE, 0, LONG_S)).epoch == 1

    talk(what)


def test_workers_of_a_stopped_trial_hear_so_when_the_next_is_assigned() -> None:
    async def what(box: TrialChannel) -> None:
        await box.assign(LANE, {})
        await box.report(LANE, 1, result(1))
        await box.result(LANE, 0, LONG_S)
        verdicts = [asyncio.create_task(box.verdict(LANE, 1, 1)) for _ in range(2)]
        await settle()
        await box.assign(LANE, {})
        assert await asyncio.gather(*verdicts) == [STOP, STOP]
        # One that asks only now hears the same.
        assert await box.verdict(LANE, 1, 1) == STOP

    talk(what)


def test_late_reports_of_a_finished_task_are_dropped() -> None:
    async def what(box: TrialChannel) -> None:
        await box.assign(LANE, {})
        await box.report(LANE, 1, result(1))
        await box.assign(LANE, {})
        await box.report(LANE, 1, result(2))
        assert await box.result(LANE, 0, SOON_S) is None
        await box.report(LANE, 2, result(1, epochs=3))
        assert (await box.result(LANE, 0, LONG_S)).epochs == 3

    talk(what)


def test_orders_come_with_the_verdict_of_their_epoch() -> None:
    async def what(box: TrialChannel) -> None:
        await box.assign(LANE, {})
        await box.report(LANE, 1, result(2))
        await box.result(LANE, 0, LONG_S)
        await box.order(LANE, 2, {"checkpoint": "donor"})
        waiting = asyncio.create_task(box.result(LANE, 2, LONG_S))
        assert await box.verdict(LANE, 1, 2) == Verdict(True, {"checkpoint": "donor"})
        assert await box.verdict(LANE, 1, 1) == Verdict(True)
        waiting.cancel()
        # The next trial has nothing to do with it.
        await box.assign(LANE, {})
        await box.report(LANE, 2, result(2))
        waiting = asyncio.create_task(box.result(LANE, 2, LONG_S))
        assert await box.verdict(LANE, 2, 2) == Verdict(True)
        waiting.cancel()

    talk(what)


@pytest.mark.parametrize("closed_first", [False, True])
def test_workers_go_home_when_their_lane_closes(closed_first: bool) -> None:
    async def what(box: TrialChannel) -> None:
        if closed_first:
            await box.close(LANE)
            assert await box.task(LANE, 0) is None
            return
        await box.assign(LANE, {})
        verdict = asyncio.create_task(box.verdict(LANE, 1, 1))
        waiting = asyncio.create_task(box.task(LANE, 1))
        await settle()
        await box.close(LANE)
        assert await waiting is None
        assert await verdict == STOP

    talk(what)


def test_lanes_do_not_hear_each_other() -> None:
    async def what(box: TrialChannel) -> None:
        await box.assign("one", {})
        await box.assign("two", {})
        await box.report("one", 1, result(1))
        assert await box.result("two", 0, SOON_S) is None
        await box.close("one")
        assert (await box.task("two", 0)).number == 1

    talk(what)
