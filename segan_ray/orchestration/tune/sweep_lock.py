"""The lock of a sweep: one process at a time runs the sweep, and may be asked to end.

The lock and the request to stop are files in the sweep's folder, so that any process that sees
the home can ask.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

from segan_ray.errors import Interrupted, SweepError
from segan_ray.filesystem import locks
from segan_ray.filesystem.atomic_files import writing
from segan_ray.filesystem.locks import acquire, holder, release
from segan_ray.home import OTHER_HOME
from segan_ray.redaction import mask

LOCK: Final = "lock"
STOP: Final = "stop-requested"
STDERR: Final = 2
ENDING: Final = "\nEnding '{}'. A second Ctrl-C ends it at once. Either way go on: {}\n"


@dataclass
class EndRequest:
    """Which signal asked this process to end, if any."""

    signal: int | None = None
    _later: bool = False

    @contextmanager
    def later(self) -> Iterator[None]:
        """Let the block come to its end first; ``now`` then answers a signal that came before."""
        self._later = True
        try:
            yield
        finally:
            self._later = False

    def now(self) -> None:
        """Raise KeyboardInterrupt if a signal came."""
        if self.signal is not None and not self._later:
            raise KeyboardInterrupt


@contextmanager
def held(folder: Path, name: str) -> Iterator[None]:
    """Hold the lock of the sweep ``name`` while the context lasts.

    Raises:
        SweepError: if another process runs it.
        StoreError: if the folder cannot be written.
    """
    with writing(folder, OTHER_HOME):
        folder.mkdir(parents=True, exist_ok=True)
        lock = acquire(folder / LOCK)
    if lock is None:
        raise SweepError(
            f"'{name}' is running now ({holder(folder / LOCK)}). Watch it: segan-ray trials "
            f"{name}; end it: segan-ray stop {name}; or choose another --name."
        )
    try:
        (folder / STOP).unlink(missing_ok=True)
        yield
    finally:
        release(lock)


def is_held(folder: Path) -> bool:
    """Tell whether a process runs the sweep of this folder now."""
    return locks.is_held(folder / LOCK)


def request_stop(folder: Path) -> None:
    """Ask the process that runs the sweep of this folder to end it.

    Raises:
        StoreError: if the folder cannot be written.
    """
    with writing(folder, OTHER_HOME):
        (folder / STOP).touch()


def stop_requested(folder: Path) -> bool:
    """Tell whether the sweep was asked to end."""
    return (folder / STOP).exists()


@contextmanager
def interruptible(name: str, command: str) -> Iterator[EndRequest]:
    """Turn the first SIGINT or SIGTERM into Interrupted; a second one ends at once.

    In a notebook or another interactive Python a second SIGINT is a KeyboardInterrupt, since what
    the user has in memory would end with the process. The request keeps the signal's number, since
    Ray turns exceptions into plain ones. The ``command`` that goes on with ``name`` is printed at
    the first signal: a second ends at once. Signals reach the main thread alone, so on others there
    is nothing to answer.

    Raises:
        Interrupted: where nothing within answered the signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield EndRequest()
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    request = EndRequest()

    def ask(number: int, _frame: FrameType | None) -> None:
        request.signal = number
        for each in numbers:
            signal.signal(each, signal.SIG_DFL)
        if hasattr(sys, "ps1"):
            signal.signal(signal.SIGINT, signal.default_int_handler)
        # Not by print: the signal may have interrupted a print.
        os.write(STDERR, mask(ENDING.format(name, command)).encode())
        request.now()

    for number in numbers:
        signal.signal(number, ask)
    try:
        yield request
    except KeyboardInterrupt:
        raise Interrupted.of(name, command, request.signal or signal.SIGINT) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
