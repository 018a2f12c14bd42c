"""Removing placement groups of worker groups that were lost.

Ray Train's own cleaner knows a placement group only once its workers have started. If a controller
dies before that, because a node was lost or the sweep ended, its placement group stays, or is still
created later, and keeps resources for as long as the driver lives: where they are scarce, the next
worker group waits for ever. Each worker group therefore carries a tag and sends heartbeats; the
driver removes the placement groups of tags whose heartbeat stopped, and at the end those of all.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import SystemRandom
from typing import Any, Final

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, remove_placement_group

from segan_ray.orchestration.train.trial_channel import TrialChannelClient

log = logging.getLogger(__name__)

LEAST: Final = 2**20
HEARTBEAT_S: Final = 2.0
SILENCE_S: Final = 45.0
"""How old the last heartbeat of a worker group is before its placement group is removed."""
END_S: Final = 10.0

_ended: set[int] = set()
"""Tags of worker groups of earlier sweeps of this process.

A controller may ask for its placement group after everything else of its sweep has ended. The
next sweep of this process removes it.
"""


def new_group_tag() -> int:
    """Return bytes of memory to ask for, a megabyte or two, unlike those of other groups."""
    return LEAST + SystemRandom().randrange(LEAST)


def send_heartbeats(channel: TrialChannelClient, tag: int, over: threading.Event) -> None:
    """Send heartbeats of a worker group's tag until it is over."""
    while True:
        try:
            channel.heartbeat(tag)
        except RayError:
            # The channel starts again, or the sweep has ended.
            log.debug("no channel for tag %d", tag)
        if over.wait(HEARTBEAT_S):
            return


@contextmanager
def reaping(channel: TrialChannelClient) -> Iterator[None]:
    """Remove placement groups without a heartbeat while the block runs, and all after it."""
    over = threading.Event()
    # Kept here, since a channel that was lost comes back without them.
    last: dict[int, float] = {}

    def listen() -> None:
        now = time.monotonic()
        for tag, ago in channel.heartbeats().items():
            last[tag] = now - ago

    def reap() -> None:
        while not over.wait(HEARTBEAT_S):
            try:
                listen()
                since = time.monotonic() - SILENCE_S
                remove_groups(_ended | {tag for tag, when in last.items() if when < since})
            except RayError as error:
                log.debug("placement groups cannot be looked at: %s", error)

    thread = threading.Thread(target=reap, name="reaper", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(RayError):
            listen()
        with suppress(RayError):
            # A controller that is about to end may still ask for one.
            until = time.monotonic() + END_S
            while remove_groups(set(last)) and time.monotonic() < until:
                time.sleep(1)
        _ended.update(last)


def remove_groups(tags: set[int]) -> int:
    """Remove the placement groups that carry one of ``tags``; return how many there were."""
    if not tags:
        return 0
    found = 0
    groups: dict[str, dict[str, Any]] = ray.util.placement_group_table()
    for group_id, group in groups.items():
        asked = {int(bundle.get("memory", 0)) for bundle in group["bundles"].values()}
        if group["state"] != "REMOVED" and asked & tags:
            log.info("A worker group was lost; its placement group is removed.")
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group_id))))
            found += 1
    return found
