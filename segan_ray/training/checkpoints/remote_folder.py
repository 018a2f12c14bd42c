"""The checkpoints of one trial at a URL, as ``trial_folder`` keeps them in a folder.

An object store cannot rename. An epoch is whole when its report exists, which is written last and
removed first. Only earlier epochs are ever removed: a process that was taken for lost, and still
writes, removes nothing of the process that replaced it.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol, TypeVar

from PIL.Image import Image

from segan_ray.config import Experiment
from segan_ray.data.store.origin import Origin
from segan_ray.data.store.remote_manifest import open_location
from segan_ray.errors import CheckpointError, named
from segan_ray.filesystem.locations import is_url
from segan_ray.training.checkpoints.trial_folder import (
    EPOCH,
    REPORT,
    TAKEN,
    TRIES,
    TrialFolder,
    epoch_name,
    is_sound,
    parse_report,
    read_report,
    write_epoch,
)
from segan_ray.training.epoch_record import EpochRecord
from segan_ray.training.state import TrainingState

PATIENCE_S: Final = 120.0
"""How long a request is repeated if the store does not answer; training waits meanwhile."""
MOST_WAIT_S: Final = 15.0
Done = TypeVar("Done")


class TrialCheckpoints(Protocol):
    """The methods that checkpoints in a folder and at a URL share."""

    def last(self) -> Path | None: ...
    def newest_first(self) -> Iterator[Path]: ...
    def last_report(self) -> EpochRecord | None: ...
    def kept(self, epoch: int) -> str | None: ...
    def save(
        self,
        state: TrainingState,
        experiment: Experiment,
        origin: Origin,
        report: EpochRecord,
        overlay: Image | None,
    ) -> None: ...
    def take(self, source: Any, epoch: int) -> str | None: ...


def trial_checkpoints(location: str, near: Path) -> TrialCheckpoints:
    """Return the checkpoints of the trial at ``location``; copies from a URL go below ``near``."""
    return RemoteFolder(location, near) if is_url(location) else TrialFolder(Path(location))


def best_kept(checkpoints: TrialCheckpoints) -> str | None:
    """Return the checkpoint of a trial's best epoch, or of its last where the best was lost."""
    last = checkpoints.last_report()
    if last is None:
        return None
    return checkpoints.kept(last.best.epoch) or checkpoints.kept(last.epoch)


def copied_near(location: str, near: Path) -> Path:
    """Return the checkpoint at ``location`` as a folder; for a URL, a copy below ``near``.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        CheckpointError: if it cannot be read, though tried for minutes.
    """
    if not is_url(location):
        return Path(location)
    parent, _, name = location.rpartition("/")
    # A name such as .. would lead out of ``near``, to a folder that would be emptied first.
    copy = RemoteFolder(parent, near).fetch(name) if _is_checkpoint(name) else None
    if copy is None:
        raise FileNotFoundError(f"{location}: no checkpoint here.")
    return copy


def _is_checkpoint(name: str) -> bool:
    return bool(EPOCH.fullmatch(name) or TAKEN.fullmatch(name))


def bytes_at(url: str) -> int:
    """Return the bytes of all files below ``url``, 0 if there are none.

    Raises:
        CheckpointError: if it cannot be read.
    """
    system, path = open_location(url)
    files: dict[str, Any] = _patiently(url, "read", lambda: _find(system, path))
    return sum(int(entry["size"] or 0) for entry in files.values())


def anything_at(url: str) -> bool:
    """Tell whether there are files below ``url``.

    Raises:
        CheckpointError: if it cannot be read.
    """
    system, path = open_location(url)
    return bool(_patiently(url, "read", lambda: _find(system, path)))


def remove_all(url: str) -> None:
    """Remove all files below ``url``, if there are any.

    Raises:
        CheckpointError: if they cannot be removed.
    """
    system, path = open_location(url)
    try:
        _remove(system, path)
    except Exception as error:  # every file system has errors of its own
        raise CheckpointError(f"{url}: cannot be removed ({named(error)}).") from None


@dataclass(frozen=True)
class RemoteFolder:
    """The checkpoints of one trial below ``url``; copies of them go below ``near``."""

    url: str
    near: Path

    def last(self) -> Path | None:
        """Return a copy of the last epoch's checkpoint that can be read, or None.

        Raises:
            CheckpointError: if the URL cannot be read now; the trial must not begin anew then.
        """
        return next((copy for copy in self.newest_first() if is_sound(copy)), None)

    def newest_first(self) -> Iterator[Path]:
        """Yield a copy of the checkpoint of every epoch that was kept, sound or not.

        Raises:
            CheckpointError: as ``last``.
        """
        for epoch in reversed(self._epochs()):
            copy = self.fetch(epoch_name(epoch))
            if copy is not None:
                yield copy

    def last_report(self) -> EpochRecord | None:
        """Return the record of the last epoch with a whole checkpoint, or None."""
        for epoch in reversed(self._epochs()):
            report = self._report(epoch_name(epoch))
            if report is not None:
                return report
        return None

    def last_sound(self) -> int | None:
        """Return the last epoch whose checkpoint can be read; a temporary copy is made to check.

        Raises:
            CheckpointError: as ``last``.
        """
        with TemporaryDirectory(prefix="segan-ray-") as near:
            copy = RemoteFolder(self.url, Path(near)).last()
            return None if copy is None else read_report(copy).epoch

    def kept(self, epoch: int) -> str | None:
        """Return the URL of the checkpoint of an epoch, or None if it was not kept."""
        return f"{self.url}/{epoch_name(epoch)}" if self._report(epoch_name(epoch)) else None

    def save(
        self,
        state: TrainingState,
        experiment: Experiment,
        origin: Origin,
        report: EpochRecord,
        overlay: Image | None,
    ) -> None:
        """Write the checkpoint of an epoch, then remove earlier ones that are not the best.

        Raises:
            CheckpointError: if it cannot be written, though tried for minutes.
        """
        name = epoch_name(report.epoch)
        local = self.near / f"{name}.saving"
        shutil.rmtree(local, ignore_errors=True)
        try:
            write_epoch(local, state, experiment, origin, report, overlay)
            self._upload(local, name)
        finally:
            shutil.rmtree(local, ignore_errors=True)
        self._keep(report.epoch, report.to_keep)

    def take(self, source: RemoteFolder, epoch: int) -> str | None:
        """Copy the last sound checkpoint of a source trial, to go on from after ``epoch``.

        Return None if it has none. The store makes a copy: the source trial may remove its own.
        """
        name = f"taken-{epoch:04d}"
        for _ in range(TRIES):
            if self._report(name) is not None:
                return f"{self.url}/{name}"
            # The source trial may just have replaced this checkpoint by the next.
            with suppress(FileNotFoundError):
                last = source.last_sound()
                if last is None:
                    return None
                _patiently(self.url, "written", partial(self._copy, source, last, name))
        return f"{self.url}/{name}" if self._report(name) is not None else None

    def fetch(self, name: str) -> Path | None:
        """Return a copy of a whole checkpoint, or None if it is not whole."""
        system, path = open_location(f"{self.url}/{name}")
        local = self.near / name
        shutil.rmtree(local, ignore_errors=True)
        local.mkdir(parents=True)
        if self._report(name) is None:
            return None

        def copy() -> None:
            listing = _find(system, path)
            # A disk may hold links, which are no files of a checkpoint.
            files = sorted(file for file in listing if not listing[file].get("islink"))
            system.get(files, [str(local / file.rpartition("/")[2]) for file in files])

        try:
            _patiently(f"{self.url}/{name}", "read", copy)
        except FileNotFoundError:
            return None
        return local

    def _upload(self, local: Path, name: str) -> None:
        system, path = open_location(f"{self.url}/{name}")
        files = sorted(file for file in local.iterdir() if file.name != REPORT)

        def put() -> None:
            with suppress(FileNotFoundError):
                system.rm_file(f"{path}/{REPORT}")
            system.makedirs(path, exist_ok=True)
            system.put([str(file) for file in files], [f"{path}/{file.name}" for file in files])
            system.put_file(str(local / REPORT), f"{path}/{REPORT}")

        _patiently(f"{self.url}/{name}", "written", put)

    def _copy(self, source: RemoteFolder, epoch: int, name: str) -> None:
        system, origin = open_location(f"{source.url}/{epoch_name(epoch)}")
        target = f"{open_location(self.url)[1]}/{name}"
        files = [file.rpartition("/")[2] for file in _find(system, origin)]
        if REPORT not in files:
            raise FileNotFoundError(origin)
        system.makedirs(target, exist_ok=True)
        for file in sorted(files, key=lambda file: file == REPORT):
            system.cp_file(f"{origin}/{file}", f"{target}/{file}")

    def _keep(self, last: int, needed: set[int]) -> None:
        """Remove earlier epochs but those needed, and checkpoints taken before the last epoch."""
        system, path = open_location(self.url)
        kept = {epoch_name(epoch) for epoch in needed}
        for name in self._names():
            epoch = EPOCH.fullmatch(name) or TAKEN.fullmatch(name)
            if epoch and int(epoch[1]) < last and name not in kept:
                # A checkpoint that stays for now is removed after the next epoch.
                with suppress(Exception):
                    _remove(system, f"{path}/{name}")

    def _report(self, name: str) -> EpochRecord | None:
        location = f"{self.url}/{name}/{REPORT}"
        system, path = open_location(location)
        try:
            text: bytes = _patiently(location, "read", lambda: system.cat_file(path))
            return parse_report(text)
        except (FileNotFoundError, ValueError):
            return None

    def _epochs(self) -> list[int]:
        matches = (EPOCH.fullmatch(name) for name in self._names())
        return sorted(int(match[1]) for match in matches if match)

    def _names(self) -> list[str]:
        system, path = open_location(self.url)

        def names() -> list[str]:
            system.invalidate_cache()
            try:
                listed = system.ls(path, detail=False)
            except FileNotFoundError:
                return []
            return [entry.rstrip("/").rpartition("/")[2] for entry in listed]

        return _patiently(self.url, "read", names)


def _find(system: Any, path: str) -> dict[str, Any]:
    """Return the files below ``path`` with their sizes, as they are now."""
    system.invalidate_cache()
    try:
        return dict(system.find(path, detail=True))
    except FileNotFoundError:
        return {}


def _remove(system: Any, path: str) -> None:
    """Remove a folder, the report of an epoch first.

    Raises:
        OSError: if it is a link, whose target is not the trial's.
    """
    if getattr(system, "islink", None) and system.islink(path):
        raise OSError("it is a link, remove it by hand")
    files = sorted(_find(system, path), key=lambda file: not file.endswith(f"/{REPORT}"))
    for file in files:
        with suppress(FileNotFoundError):
            system.rm_file(file)
    # An object store has no folders; a file system still has the empty ones.
    with suppress(Exception):
        system.rm(path, recursive=True)


def _patiently(url: str, verb: str, action: Callable[[], Done]) -> Done:
    """Return the result of ``action``, repeated while the store does not answer.

    Raises:
        FileNotFoundError: if ``action`` finds a file missing.
        CheckpointError: if permission is denied, or ``action`` fails for ``PATIENCE_S``.
    """
    end, wait_s = time.monotonic() + PATIENCE_S, 0.5
    while True:
        try:
            return action()
        except FileNotFoundError:
            raise
        except Exception as error:  # every file system has errors of its own
            if isinstance(error, PermissionError) or time.monotonic() + wait_s > end:
                raise CheckpointError(
                    f"{url}: cannot be {verb} ({named(error)}). Is SEGAN_RAY_STORAGE right, "
                    "and may this node use it?"
                ) from None
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, MOST_WAIT_S)
