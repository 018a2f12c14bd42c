"""Uploading an outbox to MLflow: in order, on a thread of its own (outbox pattern).

A caller that appends waits for one line on the local disk and for nothing else. While MLflow is
away the thread tries again with growing pauses. A record that MLflow refuses for good is logged and
left out. A process killed between applying and acknowledging applies those records again, so
applying must be idempotent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Final

from segan_ray.errors import DataError, TakenOver, TrackingError
from segan_ray.tracking.client.retries import is_refusal, reason_of
from segan_ray.tracking.outbox import Outbox, OutboxEntry, Record

log = logging.getLogger(__name__)

Apply = Callable[[Sequence[Record]], None]
PAUSES_S: Final = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0)
"""Pauses between tries, in seconds; the last one repeats."""
REPLAY_TRIES: Final = 4
LARGEST_BATCH: Final = 200
"""Records that are applied and acknowledged together, at most."""


class Uploader:
    """An outbox and the thread that hands its records to ``apply``."""

    def __init__(self, outbox: Outbox, apply: Apply, pauses_s: Sequence[float] = PAUSES_S) -> None:
        self._outbox = outbox
        self._apply = apply
        self._pauses_s = pauses_s
        done = outbox.acknowledged()
        self._waiting = deque(entry for entry in outbox.entries if entry.end > done)
        self._changed = threading.Condition()
        self._stopped = False
        self._failing = False
        self._last_success_s = time.monotonic()
        self._thread = threading.Thread(target=self._upload, name="tracking", daemon=True)

    @property
    def path(self) -> Path:
        return self._outbox.path

    @property
    def waiting(self) -> int:
        """How many records MLflow does not have yet."""
        with self._changed:
            return len(self._waiting)

    def append(self, new: Record) -> None:
        """Put ``new`` on disk and return.

        Raises:
            StoreError: if it cannot be written, naming the disk when it is full.
        """
        with self._changed:
            self._waiting.append(self._outbox.append(new))
            self._changed.notify_all()

    def replay(self) -> None:
        """Apply all waiting records in the calling thread, before the uploader's own is started.

        Raises:
            TrackingError: if MLflow is away.
            TakenOver: if another process has taken over the sweep.
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
        """Start the thread."""
        self._thread.start()

    def finish(self, patience_s: float) -> int:
        """Upload until no record waits, stop, and return how many records are left.

        Records are left only if MLflow took none for ``patience_s`` seconds.
        """
        with self._changed:
            self._last_success_s = time.monotonic()
            while self._waiting and self._thread.is_alive() and not self._gave_up(patience_s):
                self._changed.wait(0.2)
        return self.stop()

    def stop(self) -> int:
        """Stop after the batch under way and return how many records are left.

        While MLflow fails, that batch gets one more second.
        """
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=None if not self._failing else 1.0)
        if not self._thread.is_alive():
            self._outbox.release()
        return self.waiting

    def _gave_up(self, patience_s: float) -> bool:
        """Tell whether MLflow has failed for that long; a long upload is no failure."""
        return self._failing and time.monotonic() - self._last_success_s >= patience_s

    def _upload(self) -> None:
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
        """Apply the next batch and acknowledge it, or return the error that prevented it."""
        with self._changed:
            batch = next_batch(self._waiting)
        try:
            # A resumed sweep must know all that MLflow has, also after a power cut.
            self._outbox.sync()
            self._apply_or_skip([entry.record for entry in batch], tries)
        except Exception as error:  # every store has errors of its own
            return error
        with self._changed:
            for _ in batch:
                self._waiting.popleft()
            self._last_success_s = time.monotonic()
            self._changed.notify_all()
        try:
            self._outbox.acknowledge(batch[-1].end)
        except DataError as error:
            log.warning("%s", error)
        return None

    def _apply_or_skip(self, records: Sequence[Record], tries: int) -> None:
        """Apply ``records``, but for those that MLflow refuses for good."""
        try:
            self._apply(records)
        except TakenOver:
            raise
        except Exception as error:  # every store has errors of its own
            if not is_refusal(error, tries):
                raise
            if len(records) > 1:
                for each in records:
                    self._apply_or_skip([each], tries)
                return
            log.warning(
                "MLflow refused a record (%s of trial %s) and it is left out: %s",
                records[0].kind, records[0].trial or "none", reason_of(error),
            )  # fmt: skip


def next_batch(waiting: deque[OutboxEntry]) -> list[OutboxEntry]:
    """Return the first of ``waiting``; if it is an epoch, with the epochs that follow it.

    Between two other records the order of epochs of different trials does not matter, so the epochs
    of one trial go into one request.
    """
    epochs = takewhile(lambda entry: entry.record.kind == "epoch", waiting)
    return list(islice(epochs, LARGEST_BATCH)) or [waiting[0]]
