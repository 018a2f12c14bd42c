"""The checkpoints of a sweep's trials, in a folder or at a URL: finding and giving up."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from segan_ray.filesystem.locations import is_url, location_name
from segan_ray.tracking.recording.ledger import Ledger
from segan_ray.training.checkpoints.remote_folder import copied_near, remove_all, trial_checkpoints
from segan_ray.training.epoch_record import EpochRecord


@dataclass(frozen=True)
class CheckpointFolders:
    """One folder a trial below the place ``root``; ``ledger`` knows which trials were given up.

    ``lock`` is the one that guards the ledger: a trial that starts again while its old folder is
    being given up keeps the new one.
    """

    root: str
    ledger: Ledger
    lock: threading.RLock = field(default_factory=threading.RLock)

    def is_dropped(self, trial: str) -> bool:
        """Tell whether the checkpoint of ``trial`` is not among those to keep."""
        with self.lock:
            return trial in self.ledger.trials and self.ledger.trials[trial].dropped

    def last_report(self, trial: str) -> EpochRecord | None:
        """Return what ``trial`` saved last, if anything."""
        return trial_checkpoints(f"{self.root}/{trial}", Path()).last_report()

    def best(self, trial: str, epoch: int) -> str | None:
        """Return the checkpoint of ``epoch``, or else of what the trial itself took for its best.

        Of equal epochs it keeps the first.
        """
        folder, last = trial_checkpoints(f"{self.root}/{trial}", Path()), self.last_report(trial)
        kept = folder.kept(epoch)
        if kept is not None or last is None:
            return kept
        return folder.kept(last.best.epoch) or folder.kept(last.epoch)

    def here(self, trial: str, checkpoint: str) -> str:
        """Return where a checkpoint of ``trial`` is now: its home may have been moved since."""
        if is_url(checkpoint) or Path(checkpoint).exists():
            return checkpoint
        return f"{self.root}/{trial}/{location_name(checkpoint)}"

    def delete(self, trial: str) -> None:
        """Delete the folder of a dropped trial; one that started again since keeps its own."""
        if is_url(self.root):
            # Nothing can be renamed there, so the lock is held for as long as it takes.
            with self.lock:
                if self.is_dropped(trial):
                    remove_all(f"{self.root}/{trial}")
            return
        root = Path(self.root)
        aside = root / f".dropped-{trial}"
        shutil.rmtree(aside, ignore_errors=True)
        with self.lock, contextlib.suppress(FileNotFoundError):
            if self.is_dropped(trial):
                (root / trial).rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def near_copy(checkpoint: str) -> Iterator[Path]:
    """Give the checkpoint as a folder of this disk, for the time of the block.

    Raises:
        FileNotFoundError: if it is not there any more.
    """
    with TemporaryDirectory(prefix="segan-ray-") as near:
        yield copied_near(checkpoint, Path(near))
