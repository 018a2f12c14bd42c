"""Bringing a journal into the tracking store, in order, on a thread of its own.

Whoever appends waits for a line on the local disk and for nothing else. While the store is away
the thread tries again with growing pauses; a record that the store refuses for good is logged and
left out. What was applied and not yet acknowledged when the process died is applied again, so
applying must be idempotent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Final

from segan_ray.errors import DataError, TakenOver, TrackingError
from segan_ray.tracking.client.retries import is_refusal, reason_of
from segan_ray.tracking.journal import Journal, JournalEntry, Record

log = logging.getLogger(__name__)

Apply = Callable[[Sequence[Record]], None]
PAUSES_S: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0)
"""Pauses between tries, in seconds; the last for as long as it takes."""
REPLAY_TRIES: Final = 4
MOST_TOGETHER: Final = 200
"""Records applied together, and acknowledged together, at most."""


class Uploader:
    """A journal and the thread that drains it into ``apply``."""

    def __init__(
        self, journal: Journal, apply: Apply, pauses_s: Sequence[float] = PAUSES_S
    ) -> None:
        self._journal = journal
        self._apply = apply
        self._pauses_s = pauses_s
        done = journal.acknowledged()
        self._waiting = deque(entry for entry in journal.entries if entry.end > done)
        self._changed = threading.Condition()
        self._stopped = False
        self._failing = False
        self._heard_s = time.monotonic()
        self._thread = threading.Thread(target=self._drain, name="tracking", daemon=True)

    @property
    def path(self) -> Path:
        return self._journal.path

    @property
    def waiting(self) -> int:
        """How many records the tracking store does not have yet."""
        with self._changed:
            return len(self._waiting)

    def append(self, new: Record) -> None:
        """Put ``new`` on disk and return.

        Raises:
            StoreError: if it cannot be written, naming the disk when it is full.
        """
        with self._changed:
            self._waiting.append(self._journal.append(new))
            self._changed.notify_all()

    def replay(self) -> None:
        """Apply everything that waits, here and now, before the thread is started.

        Raises:
            TrackingError: if the tracking store is away.
        TakenOver: if the records are another process's by now.
        """
        for pause_s in (*self._pauses_s[:REPLAY_TRIES], None):
            error: Exception | None = None
            while self._waiting and error is None:
                error = self._step(tries=len(self._pauses_s))
            if error is None:
                return
            if isinstance(error, TakenOver):
                raise error
            if pause_s is None:
                raise TrackingError(
                    f"MLflow cannot be written: {reason_of(error)}\n{len(self._waiting)} records "
                    f"wait in {self.path}."
                )
            time.sleep(pause_s)

    def start(self) -> None:
        """Begin to drain."""
        self._thread.start()

    def finish(self, patience_s: float) -> int:
        """Drain until nothing waits and stop; return how many records are left.

        Some are left only if nothing could be written for ``patience_s`` seconds.
        """
        with self._changed:
            self._heard_s = time.monotonic()
            while self._waiting and self._thread.is_alive() and not self._gave_up(patience_s):
                self._changed.wait(0.2)
        return self.stop()

    def stop(self) -> int:
        """Stop after what is under way, if it ends at all; return how many records are left."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=None if not self._failing else 1.0)
        if not self._thread.is_alive():
            self._journal.release()
        return self.waiting

    def _gave_up(self, patience_s: float) -> bool:
        """Tell whether the store failed, and for how long; a long upload is no failure."""
        return self._failing and time.monotonic() - self._heard_s >= patience_s

    def _drain(self) -> None:
        tries = 0
        while self._wait_for_records():
            error = self._step(tries)
            if isinstance(error, TakenOver):
                return
            if error is None:
                if self._failing:
                    log.warning("MLflow answers again.")
                self._failing, tries = False, 0
                continue
            pause_s = self._pauses_s[min(tries, len(self._pauses_s) - 1)]
            if not self._failing:
                log.warning(
                    "MLflow does not answer (%s); records wait in %s.", reason_of(error), self.path
                )
            tries += 1
            with self._changed:
                self._failing = True
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._stopped, timeout=pause_s)

    def _wait_for_records(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopped)
            return not self._stopped

    def _step(self, tries: int) -> Exception | None:
        """Apply what comes next and acknowledge it, or return what kept the store from it."""
        with self._changed:
            batch = next_together(self._waiting)
        try:
            # On the disk before it is anywhere else: what MLflow has, a resumed sweep must know.
            self._journal.sync()
            self._apply_or_skip([entry.record for entry in batch], tries)
        except Exception as error:  # every store has errors of its own
            return error
        with self._changed:
            for _ in batch:
                self._waiting.popleft()
            self._heard_s = time.monotonic()
            self._changed.notify_all()
        try:
            self._journal.acknowledge(batch[-1].end)
        except DataError as error:
            log.warning("%s", error)
        return None

    def _apply_or_skip(self, records: Sequence[Record], tries: int) -> None:
        """Apply ``records``; if the store refuses one of them for good, all but that one."""
        try:
            self._apply(records)
        except TakenOver:
            raise
        except Exception as error:  # every store has errors of its own
            if not is_refusal(error, tries):
                raise
            if len(records) > 1:
                for one in records:
                    self._apply_or_skip([one], tries)
                return
            log.warning(
                "MLflow refused a record (%s of trial %s) and it is left out: %s",
                records[0].kind, records[0].trial or "none", reason_of(error),
            )  # fmt: skip


def next_together(waiting: deque[JournalEntry]) -> list[JournalEntry]:
    """Return the first of ``waiting``, with the epochs behind it if it is one.

    Epochs of several trials may be written in any order between other records, so that those of
    one trial meet in one request.
    """
    epochs = takewhile(lambda entry: entry.record.kind == "epoch", waiting)
    together = [entry for entry, _ in zip(epochs, range(MOST_TOGETHER), strict=False)]
    return together or [waiting[0]]
