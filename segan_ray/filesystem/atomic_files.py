"""Writing files whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from segan_ray.errors import DataError, StoreError


def check_folder(path: Path) -> None:
    """Make sure that ``path`` can be written later, before work is spent on it.

    Raises:
        DataError: if its folder does not exist.
    """
    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist. Make it first.")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` so that no reader ever finds half of it.

    Raises:
        DataError: if the folder does not exist or cannot be written to.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that no reader ever finds half of it.

    Raises:
        DataError: if the folder does not exist or cannot be written to.
    """
    # At a predictable name, another user could place a link to one of the writer's files.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(partial, "xb", opener=_not_through_links) as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
        sync_path(path.parent)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({_reason(path, error)}).") from None
    finally:
        with suppress(OSError):
            partial.unlink()


def _not_through_links(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


@contextmanager
def writing(path: Path, then: str = "") -> Iterator[None]:
    """Say in words why the block cannot write ``path``, and ``then`` what to do.

    Raises:
        StoreError: naming the path and the reason; for a full disk, its mount point.
    """
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({_reason(path, error)}). {then}") from None


def _reason(path: Path, error: OSError) -> str:
    """Return the reason of ``error``; for a full disk, with its mount point and its size."""
    reason = error.strerror or str(error)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return reason
    mount = next(folder for folder in path.absolute().parents if folder.is_dir())
    while not mount.is_mount():
        mount = mount.parent
    usage = shutil.disk_usage(mount)
    free, total = usage.free / 1e9, usage.total / 1e9
    return f"{reason}: the disk at {mount} has {free:.2g} of {total:.2g} GB free"


def follow_umask(folder: Path) -> None:
    """Give all below ``folder`` the modes of new files, since copies keep their source's modes."""
    probe = folder / f".{secrets.token_hex(8)}"
    probe.touch()
    files = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    folders = files | (files & 0o444) >> 2  # who may read a file may look into a folder
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(folders if path.is_dir() else files)


def sync_path(path: Path) -> None:
    """Make a file's content, or the entries of a folder, last through a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
