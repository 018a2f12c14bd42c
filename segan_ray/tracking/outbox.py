"""The outbox of a sweep: its records on this disk before MLflow has them, one JSON line each.

``append`` returns when the line is in the kernel's hands, so the line survives the death of the
process; ``sync`` makes it survive a power cut as well. Lines are never rewritten. The file
``NAME.acknowledged`` beside it holds the byte up to which MLflow has the records.

Why the outbox is no SQLite file is in docs/architecture.md.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from segan_ray.documents import DocumentError, open_regular
from segan_ray.errors import StoreError, TrackingError
from segan_ray.filesystem import locks
from segan_ray.filesystem.atomic_files import write_text, writing
from segan_ray.home import NAME

log = logging.getLogger(__name__)

OUTBOX: Final = "tracking.jsonl"
FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
Kind = Literal["open", "known", "start", "epoch", "end", "drop", "suspend", "pause", "close"]
FACTS: Final[Mapping[str, frozenset[str]]] = {
    "open": frozenset({"sweep", "keep_checkpoints", "outbox"}),
    "known": frozenset({"status", "epochs", "score", "best_epoch", "repeat_of", "objectives"}),
    "start": frozenset({"params", "settings", "repeat_of"}),
    "epoch": frozenset({"epoch", "metrics", "tags"}),
    "end": frozenset({"status", "reason", "checkpoint"}),
    "drop": frozenset(),
    "suspend": frozenset(),
    "pause": frozenset(),
    "close": frozenset({"status", "best"}),
}
"""The facts that a record of each kind has."""


@dataclass(frozen=True)
class Record:
    """One event at ``at`` (ms since 1970) of ``trial``, or of the sweep (None)."""

    kind: Kind
    trial: str | None
    at: int
    facts: Mapping[str, Any]

    def line(self) -> bytes:
        """Return the record as a line of the outbox."""
        content = {"kind": self.kind, "trial": self.trial, "at": self.at, "facts": self.facts}
        return json.dumps(content).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> Record:
        """Return the record that ``line`` holds; raise one of ``DAMAGED`` if it holds none."""
        content = json.loads(line)
        kind, trial, facts = content["kind"], content["trial"], dict(content["facts"])
        # A trial names a folder, which may be deleted.
        if trial is not None and not NAME.fullmatch(trial):
            raise ValueError(f"'{trial}' names no trial")
        if not facts.keys() >= FACTS[kind]:
            raise ValueError(f"a record of kind '{kind}' lacks facts")
        return cls(kind, trial, int(content["at"]), facts)


def record(kind: Kind, trial: str | None = None, **facts: Any) -> Record:
    """Return a record of an event that happens now."""
    return Record(kind, trial, int(time.time() * 1000), facts)


DAMAGED: Final = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
"""What reading a damaged line raises."""


@dataclass(frozen=True)
class OutboxEntry:
    """A record and the byte of the outbox at which its line ends."""

    record: Record
    end: int


class Outbox:
    """The file of one sweep's records; one process at a time appends to it."""

    def __init__(self, path: Path) -> None:
        """Open ``path``, made if need be, and cut off a last line that a power cut left torn.

        Raises:
            TrackingError: if another process writes it.
            StoreError: if it cannot be opened or made.
        """
        self.path = path
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = locks.acquire(lock_of(path))
            if self._lock is None:
                refuse_if_recording(path)
            # Through a link a line of another file would be cut off.
            self._handle = os.open(path, FLAGS, 0o666)
            content = _content(path)
            self._size = content.rfind(b"\n") + 1
            os.ftruncate(self._handle, self._size)
            if not 0 <= self.acknowledged() <= self._size:
                # A power cut shortened the file. The old number would hide new records.
                self._acknowledgement.unlink()
        self.entries = tuple(_entries(content[: self._size], path))
        """The content of the file when it was opened."""

    def append(self, new: Record) -> OutboxEntry:
        """Write ``new`` behind all others.

        Raises:
            StoreError: if it cannot be written; then no part of it is in the file.
        """
        line = new.line()
        with writing(self.path, "Make room there; what was recorded before is kept."):
            # An append that failed may have left a part that it could not remove.
            if os.fstat(self._handle).st_size != self._size:
                os.ftruncate(self._handle, self._size)
            try:
                _write_all(self._handle, line)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._handle, self._size)
                raise
        self._size += len(line)
        return OutboxEntry(new, self._size)

    def sync(self) -> None:
        """Wait until the disk has all that was appended."""
        os.fsync(self._handle)

    def release(self) -> None:
        """Let other processes write the file from now on."""
        if self._lock is not None:
            locks.release(self._lock)
            self._lock = None

    def acknowledged(self) -> int:
        """Return the byte up to which MLflow has the records, 0 if that is not known."""
        try:
            return int(self._acknowledgement.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return 0

    def acknowledge(self, end: int) -> None:
        """Write down that MLflow has all records before byte ``end``.

        Raises:
            DataError: if that cannot be written; replaying does no harm.
        """
        write_text(self._acknowledgement, str(end))

    @property
    def _acknowledgement(self) -> Path:
        return self.path.with_name(f"{self.path.name}.acknowledged")


def tokens_of(records: Iterable[Record]) -> set[str]:
    """Return the names that an outbox has had; each opening records its name."""
    return {str(each.facts["outbox"]) for each in records if each.kind == "open"}


def is_stale(path: Path, token: str | None) -> bool:
    """Tell whether another home has recorded the sweep of an outbox since this home did.

    ``token`` names the outbox that the sweep was recorded from last, as MLflow has it.

    Raises:
        StoreError: if the outbox cannot be read.
    """
    if token is None:
        return False
    tokens = tokens_of(read_outbox(path))
    return bool(tokens) and token not in tokens


def put_aside(path: Path) -> None:
    """Rename an outbox whose sweep another home has taken over, so that nothing reads it.

    Raises:
        StoreError: if it cannot be renamed.
    """
    with writing(path):
        path.replace(path.with_name(f"{path.name}.taken-over"))


def lock_of(path: Path) -> Path:
    """Return the file that the process that appends to ``path`` holds locked."""
    return path.with_name(f"{path.name}.lock")


def refuse_if_recording(path: Path) -> None:
    """Make sure that no other process records into ``path``.

    Raises:
        TrackingError: naming the process.
    """
    lock = lock_of(path)
    if locks.is_held_elsewhere(lock):
        raise TrackingError(
            f"{path.parent}: {locks.holder(lock)} is recording this sweep. Wait until it has "
            "ended, or end it."
        )


def read_outbox(path: Path) -> tuple[Record, ...]:
    """Return every whole record of ``path``, or none if there is no such file.

    Raises:
        StoreError: if it cannot be read.
    """
    try:
        content = _content(path)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}).") from None
    whole = content[: content.rfind(b"\n") + 1]
    return tuple(entry.record for entry in _entries(whole, path))


def _content(path: Path) -> bytes:
    try:
        with open_regular(path) as stream:
            return stream.read()
    except DocumentError as error:
        raise StoreError(f"{path}: cannot be read ({error}).") from None


def _entries(content: bytes, path: Path) -> Iterator[OutboxEntry]:
    end = 0
    for line in content.splitlines(keepends=True):
        end += len(line)
        try:
            yield OutboxEntry(Record.of_line(line), end)
        except DAMAGED:
            log.warning("%s: the line that ends at byte %d is damaged; left out.", path, end)


def _write_all(handle: int, content: bytes) -> None:
    """Write all of ``content``: a disk that fills up takes a part and fails at the next write."""
    while content:
        content = content[os.write(handle, content) :]
