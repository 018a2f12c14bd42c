"""The checkpoints of a sweep's trials, in a folder or at a URL: finding and deleting them."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from segan_ray.evaluation.inference.packaged_model import MEMBER
from segan_ray.filesystem.locations import is_url, location_name
from segan_ray.tracking.recording.ledger import Ledger
from segan_ray.training.checkpoints.remote_folder import (
    best_kept,
    copied_near,
    remove_all,
    trial_checkpoints,
)
from segan_ray.training.checkpoints.trial_folder import REPORT, epoch_name, read_report
from segan_ray.training.epoch_record import EpochRecord

CHECKPOINT: Final = "checkpoint"
"""The folder of a checkpoint among the artifacts of a trial's run."""


@dataclass(frozen=True)
class CheckpointFolders:
    """One folder per trial below the location ``root``; ``ledger`` has the dropped trials.

    ``lock`` guards the ledger, so that a trial that starts again while its old folder is deleted
    keeps the new one.
    """

    root: str
    ledger: Ledger
    lock: threading.RLock = field(default_factory=threading.RLock)

    def is_dropped(self, trial: str) -> bool:
        """Tell whether the checkpoint of ``trial`` is to be deleted."""
        with self.lock:
            return trial in self.ledger.dropped

    def last_report(self, trial: str) -> EpochRecord | None:
        """Return the last saved report of ``trial``, or None."""
        return trial_checkpoints(f"{self.root}/{trial}", Path()).last_report()

    def best(self, trial: str) -> str | None:
        """Return the checkpoint of the best epoch of ``trial``, or of its last, or None."""
        return best_kept(trial_checkpoints(f"{self.root}/{trial}", Path()))

    def here(self, trial: str, checkpoint: str) -> str:
        """Return where a checkpoint of ``trial`` is now, for its home may have been moved."""
        if is_url(checkpoint) or Path(checkpoint).exists():
            return checkpoint
        return f"{self.root}/{trial}/{location_name(checkpoint)}"

    def delete(self, trial: str) -> None:
        """Delete the folder of ``trial`` unless it has started again since it was dropped."""
        if is_url(self.root):
            # An object store renames nothing, so the lock is held during the whole deletion.
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
    """Give the checkpoint as a folder on this disk, for the time of the block.

    Raises:
        FileNotFoundError: if it no longer exists.
    """
    with TemporaryDirectory(prefix="segan-ray-") as near:
        yield copied_near(checkpoint, Path(near))


def parts_of(checkpoint: str) -> list[tuple[str, str]]:
    """Return the checkpoints that make the model of a trial, each with its folder in MLflow.

    They are the best of each of its folds, or ``checkpoint`` alone, its best.

    Raises:
        FileNotFoundError: if it no longer exists.
        CheckpointError: if it is damaged.
    """
    with near_copy(checkpoint) as folder:
        folds = read_report(folder).folds if (folder / REPORT).is_file() else ()
    if not folds:
        return [(CHECKPOINT, checkpoint)]
    trial = checkpoint.rpartition("/")[0]
    return [
        (f"{CHECKPOINT}/{MEMBER}{fold}", f"{trial}/{epoch_name(best.epoch)}")
        for fold, best in enumerate(folds)
    ]
