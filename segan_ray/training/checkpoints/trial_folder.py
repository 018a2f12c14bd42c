"""The checkpoints of one trial: a folder an epoch, of which the best and the last are kept.

::

    epoch-0007/       one whole checkpoint; origin.json: what it was trained on; report.json:
                      what the epoch came to
    .epoch-0008.123   one that is being written, or was when its process died
    taken-0008/       another trial's checkpoint that this one goes on from after its epoch 8

An epoch's folder is renamed to its name when all of it is on disk, so what has the name is
whole. The report is kept with it because the process that learns of an epoch may die before it
has noted it: a trial that starts again says once more what its last epoch came to.
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
from segan_ray.filesystem.atomic_files import sync_folder
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
    """The folder of one trial's checkpoints; it need not be there yet."""

    path: Path

    def of_epoch(self, epoch: int) -> Path:
        """Return where the checkpoint of an epoch is, if it was kept."""
        return self.path / epoch_name(epoch)

    def last(self) -> Path | None:
        """Return the checkpoint of the last epoch that can be read, or None.

        Folders from which something was lost, or in which something changed, are passed over for
        the epoch before.
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
        """Write the checkpoint of an epoch, then remove those that are neither best nor last."""
        whole = self.of_epoch(report.epoch)
        partial = whole.with_name(f".{whole.name}.{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            write_epoch(partial, state, experiment, origin, report, overlay)
            for file in partial.iterdir():
                sync_folder(file)
            shutil.rmtree(whole, ignore_errors=True)
            os.replace(partial, whole)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(self.path)
        self._keep({report.epoch, report.best.epoch})

    def last_report(self) -> EpochRecord | None:
        """Return what the last epoch whose checkpoint can be read came to, or None."""
        last = self.last()
        return None if last is None else read_report(last)

    def kept(self, epoch: int) -> str | None:
        """Return where the checkpoint of an epoch is, or None if it was not kept."""
        folder = self.of_epoch(epoch)
        return str(folder) if folder.is_dir() else None

    def take(self, source: TrialFolder, epoch: int) -> str | None:
        """Keep the donor's last sound checkpoint, to go on from after ``epoch``; None without one.

        It is linked, not copied: the donor may train on and remove it.
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
                # The donor has just replaced it by the next one.
                shutil.rmtree(partial, ignore_errors=True)
        return str(taken) if taken.is_dir() else None

    def _keep(self, epochs: set[int]) -> None:
        for epoch in self._epochs():
            if epoch not in epochs:
                shutil.rmtree(self.of_epoch(epoch), ignore_errors=True)
        # What a process that was killed had begun to write, and what was gone on from before.
        for left in (*self.path.glob(".epoch-*"), *self.path.glob("taken-*")):
            shutil.rmtree(left, ignore_errors=True)

    def _epochs(self) -> list[int]:
        if not self.path.is_dir():
            return []
        matches = (EPOCH.fullmatch(entry.name) for entry in self.path.iterdir())
        return sorted(int(match[1]) for match in matches if match)


def is_sound(folder: Path) -> bool:
    """Tell whether all of a checkpoint is there, and as it was written."""
    try:
        check_whole(folder)
        read_report(folder)
    except CheckpointError:
        return False
    return True


def go_back(newest_first: Iterable[Path], state: TrainingState) -> tuple[Path | None, str | None]:
    """Restore the newest checkpoint that can be; return it, and in words what was passed over.

    Where none can be restored ``state`` is as it was.
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
    """Return what the checkpoint of an epoch is called."""
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
    # Last, with the checksums of what is there.
    save_checkpoint(folder, state, experiment)


def read_report(folder: Path) -> EpochRecord:
    """Return what the epoch of a checkpoint came to.

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
