"""The folders that trials write their checkpoints to, below a sweep's: finding and giving up."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

from segan_ray.tracking.ledger import Ledger
from segan_ray.training.checkpoint import STATE


@dataclass(frozen=True)
class CheckpointFolders:
    """One folder a trial below ``root``; ``ledger`` knows which trials were given up.

    ``lock`` is the one that guards the ledger: a trial that starts again while its old folder is
    being given up keeps the new one.
    """

    root: Path
    ledger: Ledger
    lock: threading.RLock = field(default_factory=threading.RLock)

    def is_dropped(self, trial: str) -> bool:
        """Tell whether the checkpoint of ``trial`` is not among those to keep."""
        with self.lock:
            return trial in self.ledger.trials and self.ledger.trials[trial].dropped

    def delete(self, trial: str) -> None:
        """Delete the folder of a dropped trial; one that started again since keeps its own."""
        aside = self.root / f".dropped-{trial}"
        shutil.rmtree(aside, ignore_errors=True)
        with self.lock, contextlib.suppress(FileNotFoundError):
            if self.is_dropped(trial):
                (self.root / trial).rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def best_checkpoint(root: Path, trial: str, epoch: int) -> Path | None:
    """Return the checkpoint that ``trial`` wrote after ``epoch``, if it is there."""
    for path in sorted((root / trial).glob(f"**/{STATE}")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if json.loads(path.read_text(encoding="utf-8"))["epoch"] == epoch:
                return path.parent
    return None
