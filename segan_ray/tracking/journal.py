"""Records on disk before anybody else has them: one JSON line each, never rewritten.

``append`` returns when the line is in the kernel's hands, so that it survives the death of the
process; ``sync`` makes it survive a power cut as well. Beside the file ``NAME.acknowledged`` says
up to which byte the tracking store has it.
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

JOURNAL: Final = "tracking.jsonl"
Kind = Literal["open", "known", "start", "epoch", "end", "drop", "park", "close"]


@dataclass(frozen=True)
class Record:
    """One thing that happened at ``at`` (ms since 1970), to ``trial`` or to the sweep (None)."""

    kind: Kind
    trial: str | None
    at: int
    facts: Mapping[str, Any]

    def line(self) -> bytes:
        """Return the record as a line of the journal."""
        content = {"kind": self.kind, "trial": self.trial, "at": self.at, "facts": self.facts}
        return json.dumps(content).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> Record:
        """Read back what ``line`` wrote; one of ``NONE`` if it is none."""
        content = json.loads(line)
        trial = content["trial"]
        # It names a folder, which may be given up.
        if trial is not None and not NAME.fullmatch(trial):
            raise ValueError(f"'{trial}' names no trial")
        return cls(content["kind"], trial, int(content["at"]), dict(content["facts"]))


def record(kind: Kind, trial: str | None = None, **facts: Any) -> Record:
    """Return a record of what happens now."""
    return Record(kind, trial, int(time.time() * 1000), facts)


NONE: Final = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class JournalEntry:
    """A record and the byte of the journal it ends before."""

    record: Record
    end: int


class Journal:
    """The file of one sweep's records; one process at a time appends to it."""

    def __init__(self, path: Path) -> None:
        """Open ``path``, made if need be, and cut off the line that a power cut left torn.

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
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            content = _content(path)
            self._size = content.rfind(b"\n") + 1
            os.ftruncate(self._handle, self._size)
            if not 0 <= self._read_acknowledged() <= self._size:
                # Of a longer file, before a power cut: it would hide what is appended now.
                self._acknowledgement.unlink()
        self.entries = tuple(_entries(content[: self._size], path))
        """What the file held when it was opened."""

    def append(self, new: Record) -> JournalEntry:
        """Write ``new`` behind all others.

        Raises:
            StoreError: if it cannot be written; then no part of it is in the file.
        """
        line = new.line()
        with writing(self.path, "Make room there; what was recorded before is kept."):
            # A try that failed may have left a part that it could not take back.
            if os.fstat(self._handle).st_size != self._size:
                os.ftruncate(self._handle, self._size)
            try:
                _write_all(self._handle, line)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._handle, self._size)
                raise
        self._size += len(line)
        return JournalEntry(new, self._size)

    def sync(self) -> None:
        """Wait until the disk has what was appended."""
        os.fsync(self._handle)

    def release(self) -> None:
        """Let other processes write the file from now on."""
        if self._lock is not None:
            locks.release(self._lock)
            self._lock = None

    def acknowledged(self) -> int:
        """Return up to which byte the tracking store has the records, 0 if nobody knows."""
        return self._read_acknowledged()

    def acknowledge(self, end: int) -> None:
        """Remember that the tracking store has everything before byte ``end``.

        Raises:
            DataError: if that cannot be written down; replaying does no harm.
        """
        write_text(self._acknowledgement, str(end))

    def _read_acknowledged(self) -> int:
        try:
            return int(self._acknowledgement.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return 0

    @property
    def _acknowledgement(self) -> Path:
        return self.path.with_name(f"{self.path.name}.acknowledged")


def tokens_of(records: Iterable[Record]) -> set[str]:
    """Return what a journal calls itself wherever it was opened; an older one has no name."""
    return {str(one.facts.get("journal")) for one in records if one.kind == "open"}


def is_stale(path: Path, token: str | None) -> bool:
    """Tell whether another home has recorded the sweep of a journal since this one did.

    ``token`` names the journal that the sweep was recorded from last, as MLflow knows it.

    Raises:
        StoreError: if the journal cannot be read.
    """
    if token is None:
        return False
    tokens = tokens_of(read_journal(path))
    return bool(tokens) and token not in tokens


def put_aside(path: Path) -> None:
    """Put a journal whose sweep is another home's by now where nothing reads it.

    Raises:
        StoreError: if it cannot be renamed.
    """
    with writing(path):
        path.replace(path.with_name(f"{path.name}.taken-over"))


def lock_of(path: Path) -> Path:
    """Return the file that whoever appends to ``path`` holds locked."""
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


def read_journal(path: Path) -> tuple[Record, ...]:
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


def _entries(content: bytes, path: Path) -> Iterator[JournalEntry]:
    end = 0
    for line in content.splitlines(keepends=True):
        end += len(line)
        try:
            yield JournalEntry(Record.of_line(line), end)
        except NONE:
            log.warning("%s: the line that ends at byte %d is damaged; left out.", path, end)


def _write_all(handle: int, content: bytes) -> None:
    """Write all of ``content``: a disk that fills up takes a part and says so only then."""
    while content:
        content = content[os.write(handle, content) :]
