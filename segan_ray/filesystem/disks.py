"""The kind of disk that a path is on: SQLite corrupts if several machines write to one file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NETWORK: Final = frozenset(
    {
        "9p", "afs", "beegfs", "ceph", "cifs", "fuse.ceph", "fuse.gcsfuse", "fuse.glusterfs",
        "fuse.juicefs", "fuse.s3fs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs",
        "nfs4", "orangefs", "panfs", "smb3", "smbfs", "weka", "wekafs",
    }
)  # fmt: skip
"""Names of file systems that other machines write to as well, as Linux names them."""
MOUNTS: Final = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Mount:
    """A file system and where it is mounted."""

    point: str
    kind: str


def network_disk(path: Path) -> str | None:
    """Return the kind of the network disk that ``path`` is on, or would be; None for a local one.

    On systems without ``/proc`` the kind is unknown, and None is returned.
    """
    if not MOUNTS.exists():
        return None
    return network_kind(path, parse_mounts(MOUNTS.read_text(encoding="utf-8").splitlines()))


def network_kind(path: Path, mounts: Iterable[Mount]) -> str | None:
    """Return the kind of the mount that ``path`` is on if it is a network's, or None."""
    real_path = os.path.realpath(path)
    below = [mount for mount in mounts if _is_below(real_path, mount.point)]
    if not below:
        return None
    # Of several mounts at one point, the last hides the others.
    longest = max(len(mount.point) for mount in below)
    kind = [mount for mount in below if len(mount.point) == longest][-1].kind
    return kind if kind in NETWORK else None


def parse_mounts(lines: Iterable[str]) -> list[Mount]:
    """Return the mounts in lines of ``mountinfo``; octal escapes stand for spaces and the like."""
    mounts = []
    for line in lines:
        before, separator, after = line.partition(" - ")
        fields = before.split()
        if separator and len(fields) > 4:
            mounts.append(Mount(_unescaped(fields[4]), after.split()[0]))
    return mounts


def _unescaped(text: str) -> str:
    return text.encode().decode("unicode_escape").encode("latin-1").decode(errors="replace")


def _is_below(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")
