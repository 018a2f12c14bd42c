"""Locks between processes of one machine: a file that one process holds alone, or many share.

The kernel releases a lock when its holder dies, however it dies, so there is no stale lock.
"""

from __future__ import annotations

import fcntl
import os
import platform
import time
from pathlib import Path
from typing import Final

POLL_S: Final = 0.05


def acquire(path: Path, *, shared: bool = False, wait_s: float = 0) -> int | None:
    """Lock the file ``path`` and return a handle for ``release``, or None if others hold it.

    ``wait_s`` is for how long to try. Several processes may hold it ``shared``; otherwise a single
    process holds it, and the file names that process. A lock is held by handle, not by process.
    """
    deadline = time.monotonic() + wait_s
    while True:
        # If the path were a link, another file would be emptied.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            if time.monotonic() >= deadline:
                return None
            time.sleep(POLL_S)
            continue
        except OSError:
            os.close(handle)
            raise
        if not _is_still(path, handle):
            os.close(handle)
            continue
        if not shared:
            os.truncate(handle, 0)
            os.pwrite(handle, _this_process().encode(), 0)
        return handle


def release(handle: int) -> None:
    """Let go of a lock."""
    os.close(handle)


def is_held(path: Path) -> bool:
    """Tell whether any process, this one included, holds ``path`` alone at this moment."""
    try:
        # Opened for reading, so that users without the right to write can check too.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def is_held_elsewhere(path: Path) -> bool:
    """Tell whether another process holds ``path`` alone at this moment."""
    return is_held(path) and holder(path) != _this_process()


def holder(path: Path) -> str:
    """Return the process that holds ``path`` alone, or did so last: ``process 17 on node3``."""
    try:
        return path.read_text(encoding="utf-8") or "another process"
    except OSError:
        return "another process"


def _this_process() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def _is_still(path: Path, handle: int) -> bool:
    """Tell whether ``path`` is the file of ``handle``: its folder may have been renamed."""
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False
