"""A node's own copy of stores on shared storage, filled once for all its processes.

::

    CACHE/
      <fingerprint>/           a whole store, copied and checked
      .<fingerprint>.filling/  a store that is being copied; readers ignore it
      <fingerprint>.lock       shared by readers, exclusive to fill or remove the store
      room.lock                held while room is made

``SEGAN_RAY_CACHE`` is the folder (default ``~/.cache/segan-ray/stores``), ``SEGAN_RAY_CACHE_BYTES``
its limit (default half of its disk). The least recently used stores go first; a store that a
process uses is never removed. A store in a plain local folder is read where it is: to have a
store on a network mount copied, give it as ``file:///mnt/…``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from segan_ray.data.store.manifest import MANIFEST, Manifest, read_manifest
from segan_ray.data.store.prepare_case import sha256
from segan_ray.data.store.remote_manifest import fetch_manifest, open_location
from segan_ray.errors import StoreError, named
from segan_ray.filesystem.atomic_files import sync_path, writing
from segan_ray.filesystem.locations import is_url
from segan_ray.filesystem.locks import POLL_S, acquire, release

CHUNK: Final = 1 << 22
STREAMS: Final = 8
FOREVER_S: Final = float("inf")
AGAIN: Final = "Make room or set SEGAN_RAY_CACHE to another disk, then start again."
HEADROOM_BYTES: Final = 1 << 20

_in_use: dict[Path, int] = {}
"""Locks on the copies this process uses, held until it ends."""


def local_store(where: str) -> Path:
    """Return a folder that holds the store at ``where``, copying the store from a URL.

    A plain folder is returned as it is. For a URL the manifest is read every time, since its
    fingerprint names the copy. The first process of a node fills the copy, checking every array
    against the manifest, while the others wait. No process removes it before this process ends.

    Raises:
        StoreError: if there is no store, it is damaged, it cannot be reached, or there is no
            room for it.
    """
    if not is_url(where):
        return Path(where)
    manifest, text = fetch_manifest(where)
    root = cache_root()
    with writing(root, AGAIN):
        root.mkdir(parents=True, exist_ok=True)
    copy = root / manifest.fingerprint
    if copy in _in_use and _is_whole(copy):
        return copy
    lock = _lock_of(copy)
    while True:
        with writing(lock, AGAIN):
            shared_lock = acquire(lock, shared=True)
        if shared_lock is not None and _is_whole(copy):
            _in_use[copy] = shared_lock
            os.utime(lock)  # the time of last use
            return copy
        if shared_lock is not None:
            release(shared_lock)
        exclusive_lock = acquire(lock)
        if exclusive_lock is None:
            time.sleep(POLL_S)
            continue
        try:
            if not _is_whole(copy):
                _fill(where, manifest, text, copy)
        finally:
            release(exclusive_lock)


def cache_root() -> Path:
    """Return where this node keeps its copies of stores."""
    chosen = os.environ.get("SEGAN_RAY_CACHE")
    return (Path(chosen) if chosen else Path.home() / ".cache/segan-ray/stores").absolute()


def _is_whole(copy: Path) -> bool:
    """Tell whether ``copy`` is filled: it takes its name only then."""
    return (copy / MANIFEST).is_file()


def _fill(url: str, manifest: Manifest, text: bytes, copy: Path) -> None:
    """Copy a store, keeping the arrays that a killed process had copied and checked."""
    filling = copy.with_name(f".{copy.name}.filling")
    _make_room(manifest, text, filling)
    system, path = open_location(url)
    with ThreadPoolExecutor(STREAMS, thread_name_prefix="fill") as pool:
        waiting = [
            pool.submit(
                _copy_array, system, f"{path}/{name}", filling / name, checksum, f"{url}/{name}"
            )
            for name, checksum in _arrays(manifest)
        ]
        try:
            for future in waiting:
                future.result()
        finally:
            for future in waiting:
                future.cancel()
    with writing(copy, AGAIN):
        shutil.rmtree(copy, ignore_errors=True)
        sync_path(filling)
        os.replace(filling, copy)
        sync_path(copy.parent)


def _arrays(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield the name of every array of a store, and its checksum."""
    for record in manifest.cases:
        for name, checksum in record.checksums.items():
            yield f"cases/{record.case}/{name}", checksum


def _copy_array(system: Any, source: str, target: Path, checksum: str, url: str) -> None:
    if target.exists() and sha256(target) == checksum:
        return
    partial = target.with_name(f".{target.name}")
    digest = hashlib.sha256()
    with writing(target, AGAIN):
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            for chunk in _chunks(system, source, url):
                digest.update(chunk)
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
        if digest.hexdigest() != checksum:
            partial.unlink()
            raise StoreError(
                f"{url}: is not what the manifest says (its SHA-256 differs), so it is damaged or "
                "still being copied there. Copy the store there again, then start again."
            )
        os.replace(partial, target)


def _chunks(system: Any, source: str, url: str) -> Iterator[bytes]:
    try:
        with system.open(source, "rb") as stream:
            while chunk := stream.read(CHUNK):
                yield chunk
    except FileNotFoundError:
        raise StoreError(
            f"{url}: is missing, though the manifest lists it. Copy the store there again."
        ) from None
    except Exception as error:  # every file system has errors of its own
        reason = named(error)
        raise StoreError(f"{url}: cannot be read ({reason}). Start again to go on.") from None


def _make_room(manifest: Manifest, text: bytes, filling: Path) -> None:
    """Remove the least recently used copies until the store fits, then claim its room.

    Raises:
        StoreError: if it would not fit after removing every unused copy.
    """
    root = filling.parent
    with writing(root, AGAIN):
        room = acquire(root / "room.lock", wait_s=FOREVER_S)
    assert room is not None, "it was waited for"
    try:
        for leftover in root.glob(".*.gone"):
            shutil.rmtree(leftover, ignore_errors=True)
        limit = _limit(root)
        needed = manifest.array_bytes + HEADROOM_BYTES
        others = {path: _promised(path) for path in _copies(root) if path != filling}
        copied = sum(path.stat().st_size for path in filling.rglob("*.npy"))
        idle = iter(sorted(others, key=lambda path: _lock_of(path).stat().st_mtime))
        while sum(others.values()) + needed > limit or _free(root) < needed - copied:
            oldest = next((path for path in idle if _remove(path)), None)
            if oldest is None:
                raise StoreError(_cache_is_full(root, needed, limit, sum(others.values())))
            del others[oldest]
        with writing(filling, AGAIN):
            filling.mkdir(exist_ok=True)
            (filling / MANIFEST).write_bytes(text)
    finally:
        release(room)


def _cache_is_full(root: Path, needed: int, limit: int, used: int) -> str:
    return (
        f"{root}: no room for a copy of {needed / 1e9:.3g} GB. The cache may hold "
        f"{limit / 1e9:.3g} GB, {used / 1e9:.3g} GB of it in use; its disk has "
        f"{_free(root) / 1e9:.3g} GB free.\n"
        "Raise SEGAN_RAY_CACHE_BYTES, or set SEGAN_RAY_CACHE to a larger disk."
    )


def _limit(root: Path) -> int:
    given = os.environ.get("SEGAN_RAY_CACHE_BYTES")
    if not given:
        return shutil.disk_usage(root).total // 2
    try:
        return int(float(given))
    except (ValueError, OverflowError):
        raise StoreError(
            f"SEGAN_RAY_CACHE_BYTES is '{given}'; expected a number of bytes, e.g. 50e9."
        ) from None


def _free(root: Path) -> int:
    return shutil.disk_usage(root).free


def _copies(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.is_dir() and _lock_of(path).exists()]


def _lock_of(path: Path) -> Path:
    name = path.name.removeprefix(".").removesuffix(".filling")
    return path.with_name(f"{name}.lock")


def _promised(path: Path) -> int:
    """Return how many bytes a copy has, or will have once it is filled."""
    try:
        return read_manifest(path).array_bytes
    except StoreError:
        return sum(file.stat().st_size for file in path.rglob("*.npy"))


def _remove(path: Path) -> bool:
    """Remove a whole or partial copy; return False if a process uses it."""
    lock = acquire(_lock_of(path))
    if lock is None:
        return False
    try:
        gone = path.with_name(f".{path.name.lstrip('.')}.gone")
        os.replace(path, gone)  # a half-removed copy must not look whole
        shutil.rmtree(gone, ignore_errors=True)
    finally:
        release(lock)
    return True
