"""The folder for the files of our own cluster: logs, sockets, spilled objects, temporary files.

Only the user can read the folder, and it is removed with the cluster. The next process removes the
folder of a killed process: the kernel has released its lock in that folder.
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

# The path of a socket may have 107 bytes, of which Ray uses 64 itself.
PREFIX: Final = "segan-"
LOCK: Final = "segan-ray.lock"


def parent_folder() -> Path:
    """Return the parent of the folders: ``RAY_TMPDIR``, or the system's temporary folder."""
    return Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()).absolute()


@contextmanager
def cluster_folder() -> Iterator[Path]:
    """Yield a new folder for a cluster that ends with the context.

    Raises:
        OSError: if the folder cannot be made.
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
    """Remove the folders in ``parent`` whose process was killed."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # of another user, or removed by another process
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
        # None: another process took the folder for abandoned before it was locked.
        if lock is not None:
            return folder, lock


def _may_be_ours(folder: Path) -> bool:
    marked = (folder / LOCK).is_file() and not folder.is_symlink()
    return marked and folder.stat().st_uid == os.getuid()


def _remove(folder: Path) -> None:
    """Remove a folder, its lock file last, which marks the folder if this is interrupted."""
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
