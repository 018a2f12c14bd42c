"""Ending a sweep or single run from outside the process that runs it, and deleting one.

A process that holds it is asked to end it. Where none does, its process was killed, and what it
left running in the records is ended here. Nothing in this module starts Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segan_ray.errors import SweepError, many, nearest
from segan_ray.home import OPTUNA_STORAGE, TRACKING_URI, Home, check_name
from segan_ray.orchestration.hold import held, is_held, request_stop
from segan_ray.orchestration.logbook import STOPPED
from segan_ray.orchestration.run_file import recorded_place
from segan_ray.places import is_url
from segan_ray.search.estimate import said_size
from segan_ray.search.opening import delete_study, is_ours, records_of_study, study_exists
from segan_ray.search.ranking import SweepStatus
from segan_ray.search.storage import open_storage, studies_place
from segan_ray.search.study import Ended, SweepStudy
from segan_ray.search.whereabouts import check_records
from segan_ray.tracking.deletion import Deleted, delete_sweep
from segan_ray.tracking.ending import Recorded, close_dead_sweep, recorded, recorded_names
from segan_ray.tracking.sweeps import name_is_taken
from segan_ray.training.remote_folder import bytes_at

WAIT_S: Final = 120.0
"""How long to wait for the process that was asked to end a sweep."""
POLL_S: Final = 0.5
NOTE_S: Final = 15.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Stopped:
    """How a sweep has ended, and whether it had before it was asked to."""

    sweep: str
    status: SweepStatus
    already: bool


@dataclass(frozen=True)
class Doomed:
    """What deleting a sweep or run would delete, and what of it not; sizes in bytes."""

    sweep: str
    trials: int
    checkpoint_bytes: int
    study: bool
    out_of_reach: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Say what goes, for people."""
        size = f"{said_size(self.checkpoint_bytes)} of checkpoints"
        runs = many(self.trials, "trial")
        rest = "their MLflow runs and artifacts" + (", and its Optuna study" if self.study else "")
        left = f" Out of reach: {'; '.join(self.out_of_reach)}." if self.out_of_reach else ""
        return f"'{self.sweep}' has {runs} and {size}; {rest}, go with it.{left}"


def stop(home: Home, name: str, say: Say, *, wait_s: float = WAIT_S) -> Stopped:
    """End a sweep or run: its running trials end as stopped where they are.

    Raises:
        SweepError: if nothing has that name, or its process does not end it in time, or it may
            be running elsewhere, or its records are.
        TrackingError: if MLflow cannot be reached.
    """
    folder = home.sweeps / check_name(name)
    asked = is_held(folder)
    if asked:
        request_stop(folder)
        say(f"Asked the process that runs '{name}' to end it: its running trials end as stopped.")
        _wait(folder, name, say, wait_s)
    found = _known(home, name)
    if found.ended:
        return Stopped(name, found.status, already=not asked)
    if not folder.exists() and not home.tracks_itself:
        raise SweepError(
            f"'{name}' was started in another home, where it may be running: {folder} is not "
            "there. Stop it there, with that --home."
        )
    before = _recorded_place(home, name)
    check_records(name, before, home, lambda: name_is_taken(home, name))
    say(f"No process runs '{name}': ending what is left open in its records.")
    with held(folder, name):
        ends = _end_study(home, name) if found.kind == "sweep" else {}
        told = {f"{number:03d}": (end.outcome, end.reason) for number, end in ends.items()}
        close_dead_sweep(home, name, folder, told)
    return Stopped(name, "stopped", already=False)


def doomed(home: Home, name: str) -> Doomed:
    """Return what ``delete`` would delete.

    Raises:
        SweepError: if it is running, or nothing has that name.
        TrackingError: if MLflow cannot be reached.
    """
    folder = home.sweeps / check_name(name)
    check_not_running(home, name)
    found = recorded(home, name)
    study = _has_study(home, name, found)
    if found is None and not study and not folder.exists():
        raise _unknown(home, name)
    trials = 0 if found is None else found.trials
    left = tuple(_out_of_reach(home, name, found, study))
    return Doomed(name, trials, size_of(home.checkpoints(name)), study, left)


def delete(home: Home, name: str) -> Deleted:
    """Delete the runs, artifacts, study and folder of a sweep or run that nobody runs now.

    Raises:
        SweepError: if it is running, or nothing has that name.
        TrackingError: if MLflow cannot be reached, or the folder cannot be deleted.
    """
    goes = doomed(home, name)
    with held(home.sweeps / name, name):
        if goes.study:
            delete_study(name, open_storage(home))
        return delete_sweep(home, name)


def check_not_running(home: Home, name: str) -> None:
    """Make sure that no process runs a sweep.

    Raises:
        SweepError: if one does, saying how to end it.
    """
    if is_held(home.sweeps / check_name(name)):
        raise SweepError(f"'{name}' is running. End it first: segan-ray stop {name}")


def size_of(place: str) -> int:
    """Return the bytes of the files below ``place``; of files linked together, once."""
    if is_url(place):
        return bytes_at(place)
    files = {}
    for path in Path(place).rglob("*"):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            files[status.st_dev, status.st_ino] = status.st_size
    return sum(files.values())


def _known(home: Home, name: str) -> Recorded:
    found = recorded(home, name)
    if found is not None:
        return found
    if (home.sweeps / name).is_dir() or is_ours(name, open_storage(home)):
        # Killed before anything was recorded.
        raise SweepError(
            f"'{name}' was cut off before anything of it was recorded. Begin it again: segan-ray "
            f"tune, or remove what is left: segan-ray delete {name}"
        )
    raise _unknown(home, name)


def _unknown(home: Home, name: str) -> SweepError:
    known = recorded_names(home)
    listed = "segan-ray sweeps lists them." if known else "There is none yet: segan-ray tune."
    return SweepError(f"No sweep or run is called '{name}'.{nearest(name, known)} {listed}")


def _end_study(home: Home, name: str) -> dict[int, Ended]:
    storage = open_storage(home)
    # An older segan-ray wrote nothing into its studies that they could be taken up by.
    if not is_ours(name, storage) or not study_exists(name, storage):
        return {}
    return SweepStudy.reopened(name, storage).end(STOPPED)


def _has_study(home: Home, name: str, found: Recorded | None) -> bool:
    """Tell whether a sweep's study is there: in a shared storage others may use its name."""
    storage = open_storage(home)
    if found is None:
        return is_ours(name, storage)
    return found.kind == "sweep" and study_exists(name, storage)


def _recorded_place(home: Home, name: str) -> str | None:
    """Return where a sweep or run wrote down that it is recorded, or None."""
    return records_of_study(name, open_storage(home)) or recorded_place(home, name)


def _out_of_reach(home: Home, name: str, found: Recorded | None, study: bool) -> Iterator[str]:
    before = _recorded_place(home, name)
    if before not in (None, home.records) and not name_is_taken(home, name):
        yield f"its runs, recorded at {before} ({TRACKING_URI} is not that)"
    if found is not None and found.kind == "sweep" and not study:
        yield f"its study, which is not in {studies_place(home)} ({OPTUNA_STORAGE} is another's)"


def _wait(folder: Path, name: str, say: Say, wait_s: float) -> None:
    began = time.monotonic()
    noted = 0.0
    while is_held(folder):
        waited = time.monotonic() - began
        if waited >= wait_s:
            raise SweepError(
                f"'{name}' has been asked to end and still runs after {wait_s:.0f} s. It ends as "
                f"soon as it can; look again: segan-ray stop {name}"
            )
        if waited - noted >= NOTE_S:
            noted = waited
            say(f"Waiting for '{name}' to end ({waited:.0f} s).")
        time.sleep(POLL_S)
