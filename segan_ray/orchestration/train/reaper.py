"""Giving back what a lost crew had asked for.

Ray Train's cleaner of placement groups knows a group only once its workers have started. One of a
controller that died before, because a node was lost or the sweep came to its end meanwhile, keeps
what it has been given or is given later, unused, for as long as this process lives: where room is
short, whoever asks next waits for ever. So a crew's group is marked, its lane gives a sign of life,
and the sweep's process removes the groups of lanes that stopped, and at its end those of all.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from random import SystemRandom
from typing import Any, Final

# The session's settings must be in the environment before Ray is imported.
from segan_ray.orchestration.cluster import session  # noqa: F401

import ray  # isort: skip
from ray.exceptions import RayError  # isort: skip
from ray.util.placement_group import PlacementGroup, remove_placement_group  # isort: skip

from segan_ray.orchestration.train.trial_channel import TrialChannelClient

log = logging.getLogger(__name__)

LEAST: Final = 2**20
BEAT_S: Final = 2.0
SILENCE_S: Final = 45.0
"""For how long a lane may be silent before what its crew holds is given back."""
END_S: Final = 10.0

_over: set[int] = set()
"""Marks of crews of this process that have gone home for good.

A controller on its way out may ask for its group after everything else has ended, and would hold it
for as long as this process lives: whoever tidies next gives it back.
"""


def new_mark() -> int:
    """Return bytes of memory to ask for, a megabyte or two, unlike those of other crews."""
    return LEAST + SystemRandom().randrange(LEAST)


def beat(channel: TrialChannelClient, mark: int, over: threading.Event) -> None:
    """Give signs of life for a crew's mark until it is over."""
    while True:
        try:
            channel.beat(mark)
        except RayError:
            # The mailbox is begun anew, or the sweep has ended.
            log.debug("no mailbox for mark %d", mark)
        if over.wait(BEAT_S):
            return


@contextmanager
def tidying(channel: TrialChannelClient) -> Iterator[None]:
    """Remove placement groups of silent lanes while the block runs, and of all lanes after it."""
    over = threading.Event()
    # When a mark was last heard: kept here, since a mailbox that is begun anew knows none.
    heard: dict[int, float] = {}

    def listen() -> None:
        now = time.monotonic()
        for mark, ago in channel.heard().items():
            heard[mark] = now - ago

    def tidy() -> None:
        while not over.wait(BEAT_S):
            try:
                listen()
                since = time.monotonic() - SILENCE_S
                remove_groups_of(_over | {mark for mark, last in heard.items() if last < since})
            except RayError as error:
                log.debug("tidying: %s", error)

    thread = threading.Thread(target=tidy, name="janitor", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(RayError):
            listen()
        with suppress(RayError):
            # A controller that is on its way out may ask for one more.
            until = time.monotonic() + END_S
            while remove_groups_of(set(heard)) and time.monotonic() < until:
                time.sleep(1)
        _over.update(heard)


def remove_groups_of(marks: set[int]) -> int:
    """Remove the placement groups that carry one of ``marks``; return how many there were."""
    if not marks:
        return 0
    found = 0
    groups: dict[str, dict[str, Any]] = ray.util.placement_group_table()
    for group_id, group in groups.items():
        asked = {int(bundle.get("memory", 0)) for bundle in group["bundles"].values()}
        if group["state"] != "REMOVED" and asked & marks:
            log.info("A crew was lost; what it had asked for is given back.")
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(group_id))))
            found += 1
    return found
