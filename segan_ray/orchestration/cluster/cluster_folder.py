"""The folder of what a cluster of our own writes: logs, sockets, spilled objects, temporary files.

It is the user's alone, and goes with the cluster. Of a process that was killed the next one removes
it: a lock in the folder, which the kernel lets go of, tells whether its process lives.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from segan_ray.filesystem.locks import acquire, release

# Paths of Ray's sockets may have 107 bytes, of which it takes 64 itself.
PREFIX: Final = "segan-"
LOCK: Final = "segan-ray.lock"


def parent_folder() -> Path:
    """Return where the folders of clusters are made: ``RAY_TMPDIR``, else the system's."""
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()).absolute()


@contextmanager
def cluster_folder() -> Iterator[Path]:
    """Yield a new folder for a cluster that does not outlive the context.

    Raises:
        OSError: if there is no folder that can be written.
    """
    parent = parent_folder()
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent)
    folder, lock = _make(parent)
    try:
        yield folder
    finally:
        _remove(folder)
        release(lock)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders in ``parent`` of clusters whose process was killed."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, or another process removes it too
            if not _may_be_ours(folder):
                continue
            lock = acquire(folder / LOCK)
            if lock is not None:
                _remove(folder)
                release(lock)


def _make(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        lock = acquire(folder / LOCK)
        # None: another process took it for abandoned between the two.
        if lock is not None:
            return folder, lock


def _may_be_ours(folder: Path) -> bool:
    marked = (folder / LOCK).is_file() and not folder.is_symlink()
    return marked and folder.stat().st_uid == os.getuid()


def _remove(folder: Path) -> None:
    """Remove a folder, its lock last: cut off before, it is known for what it is."""
    for path in folder.iterdir():
        if path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if all(path.name == LOCK for path in folder.iterdir()):
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()
