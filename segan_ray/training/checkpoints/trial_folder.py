"""The checkpoints of one trial: a folder an epoch, of which the best and the last are kept.

::

    epoch-0007/       a whole checkpoint, with origin.json (the network's store and scans) and
                      report.json (the record of the epoch)
    .epoch-0008.123   a checkpoint that is being written, or was when its process died
    taken-0008/       a source trial's checkpoint, from which this trial goes on after epoch 8

An epoch's folder gets its name when all of it is on disk, so a folder of that name is whole.
The report is kept with it because the driver may die before it has recorded an epoch: a trial
that starts again reports its last epoch once more.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from PIL.Image import Image
from pydantic import TypeAdapter

from segan_ray.config import Experiment
from segan_ray.data.store.origin import Origin, write_origin
from segan_ray.documents import LIST_BYTES, parse_json, read_bytes
from segan_ray.errors import CheckpointError, many, said
from segan_ray.filesystem.atomic_files import sync_path
from segan_ray.training.checkpoints.checkpoint import check_whole, restore, save_checkpoint
from segan_ray.training.epoch_record import EpochRecord
from segan_ray.training.state import TrainingState

REPORT: Final = "report.json"
OVERLAY: Final = "validation.png"
TRIES: Final = 3
EPOCH: Final = re.compile(r"epoch-(\d{4,})")
TAKEN: Final = re.compile(r"taken-(\d{4,})")


_REPORT: Final = TypeAdapter(EpochRecord)


@dataclass(frozen=True)
class TrialFolder:
    """The folder of one trial's checkpoints; it need not exist yet."""

    path: Path

    def of_epoch(self, epoch: int) -> Path:
        """Return the folder of the checkpoint of an epoch, kept or not."""
        return self.path / epoch_name(epoch)

    def last(self) -> Path | None:
        """Return the checkpoint of the last epoch that can be read, or None.

        Folders with missing or changed files are passed over for the epoch before.
        """
        return next((folder for folder in self.newest_first() if is_sound(folder)), None)

    def newest_first(self) -> Iterator[Path]:
        """Yield the checkpoint of every epoch that was kept, sound or not."""
        return map(self.of_epoch, reversed(self._epochs()))

    def save(
        self,
        state: TrainingState,
        experiment: Experiment,
        origin: Origin,
        report: EpochRecord,
        overlay: Image | None,
    ) -> None:
        """Write the checkpoint of an epoch, then remove all but the best and the last."""
        whole = self.of_epoch(report.epoch)
        partial = whole.with_name(f".{whole.name}.{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            write_epoch(partial, state, experiment, origin, report, overlay)
            for file in partial.iterdir():
                sync_path(file)
            shutil.rmtree(whole, ignore_errors=True)
            os.replace(partial, whole)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_path(self.path)
        self._keep(report.to_keep)

    def last_report(self) -> EpochRecord | None:
        """Return the record of the last epoch whose checkpoint can be read, or None."""
        last = self.last()
        return None if last is None else read_report(last)

    def kept(self, epoch: int) -> str | None:
        """Return the path of the checkpoint of an epoch, or None if it was not kept."""
        folder = self.of_epoch(epoch)
        return str(folder) if folder.is_dir() else None

    def take(self, source: TrialFolder, epoch: int) -> str | None:
        """Link the last sound checkpoint of a source trial, to go on from after ``epoch``.

        Return None if it has none. The links stay if the source trial removes its checkpoint.
        """
        taken = self.path / f"taken-{epoch:04d}"
        for _ in range(TRIES):
            last = source.last()
            if taken.is_dir() or last is None:
                break
            partial = self.path / f".{taken.name}.{os.getpid()}"
            try:
                shutil.copytree(last, partial, copy_function=_link)
                os.replace(partial, taken)
            except OSError:
                # The source trial has just replaced this checkpoint by the next.
                shutil.rmtree(partial, ignore_errors=True)
        return str(taken) if taken.is_dir() else None

    def _keep(self, epochs: set[int]) -> None:
        for epoch in self._epochs():
            if epoch not in epochs:
                shutil.rmtree(self.of_epoch(epoch), ignore_errors=True)
        # Leftovers of killed processes, and checkpoints taken before this epoch.
        for leftover in (*self.path.glob(".epoch-*"), *self.path.glob("taken-*")):
            shutil.rmtree(leftover, ignore_errors=True)

    def _epochs(self) -> list[int]:
        if not self.path.is_dir():
            return []
        matches = (EPOCH.fullmatch(entry.name) for entry in self.path.iterdir())
        return sorted(int(match[1]) for match in matches if match)


def is_sound(folder: Path) -> bool:
    """Tell whether a checkpoint is whole and as it was written."""
    try:
        check_whole(folder)
        read_report(folder)
    except CheckpointError:
        return False
    return True


def go_back(newest_first: Iterable[Path], state: TrainingState) -> tuple[Path | None, str | None]:
    """Restore the newest sound checkpoint; return it, and in words which were passed over.

    If none can be restored, ``state`` stays as it is.
    """
    problems = []
    for folder in newest_first:
        try:
            check_whole(folder)
            read_report(folder)
            restore(folder, state)
        except CheckpointError as error:
            problems.append(error)
        else:
            return folder, _passed_over(problems, f"the checkpoint of epoch {state.epoch}")
    return None, _passed_over(problems, "the beginning")


def _passed_over(problems: Sequence[CheckpointError], instead: str) -> str | None:
    if not problems:
        return None
    more = f" ({many(len(problems) - 1, 'more')} cannot be used)" if problems[1:] else ""
    return f"goes on from {instead}: {said(problems[0])}{more}"


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def epoch_name(epoch: int) -> str:
    """Return the name of the checkpoint of an epoch."""
    return f"epoch-{epoch:04d}"


def write_epoch(
    folder: Path,
    state: TrainingState,
    experiment: Experiment,
    origin: Origin,
    report: EpochRecord,
    overlay: Image | None,
) -> None:
    """Write all files of an epoch's checkpoint into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_origin(folder, origin)
    if overlay is not None:
        overlay.save(folder / OVERLAY, optimize=True)
    (folder / REPORT).write_text(json.dumps(asdict(report)), encoding="utf-8")
    # Last, since it writes the checksums of the files before it.
    save_checkpoint(folder, state, experiment)


def read_report(folder: Path) -> EpochRecord:
    """Return the record of the epoch of a checkpoint.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    try:
        return parse_report(read_bytes(folder / REPORT, LIST_BYTES))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder / REPORT}: cannot be read ({said(error)}).") from None


def parse_report(text: bytes) -> EpochRecord:
    """Return the report that ``text`` holds.

    Raises:
        ValueError: if it holds none.
    """
    return _REPORT.validate_python(parse_json(text))
