"""Ending a sweep from outside the process that runs it, and deleting one.

A process that holds the sweep's lock is asked to end the sweep. If none does, its process was
killed, and the trials that it left running are ended here. A process of another home is asked
through the study, which both homes see, and shows there that it lives. Nothing here starts Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segan_ray.errors import SweepError, many, nearest
from segan_ray.filesystem.locations import is_url
from segan_ray.home import OPTUNA_STORAGE, TRACKING_URI, Home, check_name
from segan_ray.orchestration.tune.sweep_lock import LOCK, STOP, held, is_held, request_stop
from segan_ray.orchestration.tune.trial_lifecycle import STOPPED
from segan_ray.search.results.ranking import SweepStatus
from segan_ray.search.space.estimate import said_size
from segan_ray.search.storage.lease import (
    HeldLease,
    LeaseWatch,
    ask_to_stop,
    dead_lease,
    holder_of,
    lease_of,
    leased,
)
from segan_ray.search.storage.owned_storage import OwnedStorage
from segan_ray.search.storage.recorded_locations import check_records
from segan_ray.search.storage.study_record import (
    delete_study,
    is_half_made,
    is_ours,
    records_of_study,
    study_exists,
)
from segan_ray.search.storage.study_storage import open_storage, studies_location
from segan_ray.search.study.sweep_study import Ended, SweepStudy
from segan_ray.tracking.client.connection import always
from segan_ray.tracking.reading.sweeps import name_is_taken
from segan_ray.tracking.recording.close_dead_sweep import (
    Recorded,
    close_dead_sweep,
    recorded,
    recorded_names,
)
from segan_ray.tracking.recording.deletion import Deleted, delete_sweep
from segan_ray.training.checkpoints.remote_folder import bytes_at

WAIT_S: Final = 120.0
"""How long to wait for the process that was asked to end a sweep."""
POLL_S: Final = 0.5
NOTE_S: Final = 15.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Stopped:
    """The status of an ended sweep; ``already`` if it had ended before."""

    sweep: str
    status: SweepStatus
    already: bool


@dataclass(frozen=True)
class DeletionPlan:
    """What a deletion would delete of a sweep or run, and what not; sizes in bytes.

    ``dead`` is the lease in its study of a process that was found dead.
    """

    sweep: str
    trials: int
    checkpoint_bytes: int
    study: bool
    out_of_reach: tuple[str, ...] = ()
    dead: str | None = None

    def sentence(self) -> str:
        """Say what would be deleted, for people."""
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
        _wait(lambda: is_held(folder), name, say, wait_s)
    dead = None
    if not asked:
        asked, dead = _stop_elsewhere(home, name, say, wait_s)
    found = _known(home, name)
    if found.ended:
        return Stopped(name, found.status, already=not asked)
    if _is_elsewhere(home, name):
        raise SweepError(
            f"'{name}' was started in another home, where it may be running: {folder} holds "
            "nothing of it. Stop it there, with that --home."
        )
    before = _recorded_location(home, name)
    check_records(name, before, home, lambda: name_is_taken(home, name))
    say(f"No process runs '{name}': ending what is left open in its records.")
    with held(folder, name), _study_held(home, name, say, dead) as holding:
        ends = {} if holding is None else _end_study(home, name, holding)
        told = {
            f"{number:03d}": (end.outcome, end.reason, end.infeasible)
            for number, end in ends.items()
        }
        check = always if holding is None else holding.check
        close_dead_sweep(home, name, folder, told, check)
    return Stopped(name, "stopped", already=False)


def plan_deletion(home: Home, name: str, say: Say = print) -> DeletionPlan:
    """Return what ``delete`` would delete, waiting for a process that may have died.

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
    if found is not None and found.status == "running" and _is_elsewhere(home, name):
        raise SweepError(
            f"'{name}' was started in another home, where it may be running: {folder} holds "
            "nothing of it. End it there first, with that --home; if that is lost, its runs can be "
            "deleted with MLflow's own tools."
        )
    dead = dead_lease(name, open_storage(home), holder_of(home), say) if study else None
    trials = 0 if found is None else found.trials
    left = tuple(_out_of_reach(home, name, found, study))
    return DeletionPlan(name, trials, size_of(home.checkpoints(name)), study, left, dead)


def delete(home: Home, name: str, say: Say = print, goes: DeletionPlan | None = None) -> Deleted:
    """Delete the runs, artifacts, study and folder of a sweep or run that no process runs.

    ``goes`` is the plan that ``plan_deletion`` has just returned.

    Raises:
        SweepError: if it is running, or nothing has that name.
        TrackingError: if MLflow cannot be reached, or the folder cannot be deleted.
    """
    goes = goes or plan_deletion(home, name, say)
    storage, by = open_storage(home), holder_of(home)
    mine = leased(name, storage, by, say, dead=goes.dead) if goes.study else nullcontext()
    with held(home.sweeps / name, name), mine:
        if goes.study:
            delete_study(name, storage)
        return delete_sweep(home, name)


def check_not_running(home: Home, name: str) -> None:
    """Make sure that no process runs a sweep.

    Raises:
        SweepError: if one does, saying how to end it.
    """
    if is_held(home.sweeps / check_name(name)):
        raise SweepError(f"'{name}' is running. End it first: segan-ray stop {name}")


def size_of(location: str) -> int:
    """Return the bytes of the files below ``location``; linked files count once."""
    if is_url(location):
        return bytes_at(location)
    files = {}
    for path in Path(location).rglob("*"):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            files[status.st_dev, status.st_ino] = status.st_size
    return sum(files.values())


def _is_elsewhere(home: Home, name: str) -> bool:
    """Tell whether neither this home nor a study shows if a process runs the sweep."""
    folder = home.sweeps / name
    # A folder with a lock alone is of a process that was refused here.
    left = [path for path in folder.glob("*") if path.name not in (LOCK, STOP)]
    return not left and not home.tracks_itself and not is_ours(name, open_storage(home))


def _known(home: Home, name: str) -> Recorded:
    found = recorded(home, name)
    if found is not None:
        return found
    if (home.sweeps / name).is_dir() or is_ours(name, open_storage(home)):
        # The process was killed before anything was recorded.
        raise SweepError(
            f"'{name}' was cut off before anything of it was recorded. Begin it again: segan-ray "
            f"tune, or remove what is left: segan-ray delete {name}"
        )
    raise _unknown(home, name)


def _unknown(home: Home, name: str) -> SweepError:
    known = recorded_names(home)
    listed = "segan-ray sweeps lists them." if known else "There is none yet: segan-ray tune."
    return SweepError(f"No sweep or run is called '{name}'.{nearest(name, known)} {listed}")


def _stop_elsewhere(home: Home, name: str, say: Say, wait_s: float) -> tuple[bool, str | None]:
    """Ask a process of another home to end a sweep, if one runs it.

    Returns whether that ended it, and the lease of a process that was found dead.
    """
    storage = open_storage(home)
    lease = lease_of(name, storage) if is_ours(name, storage) else None
    if lease is None or lease.by == holder_of(home):
        return False, None
    ask_to_stop(name, storage, lease)
    say(
        f"Asked {lease.by}, which runs '{name}' or did so last, to end it: its running trials end "
        "as stopped."
    )
    watch = LeaseWatch(name, storage)
    _wait(watch.may_live, name, say, wait_s)
    if watch.dead is not None:
        say(f"Nothing was heard of {lease.by}: its process is dead.")
    return watch.dead is None, watch.dead


def _study_held(
    home: Home, name: str, say: Say, dead: str | None
) -> AbstractContextManager[HeldLease | None]:
    """Hold the lease of a sweep whose process is gone, if it has a study to be ended."""
    storage, by = open_storage(home), holder_of(home)
    if not is_ours(name, storage):
        return nullcontext()
    return leased(name, storage, by, say, dead=dead)


def _end_study(home: Home, name: str, holding: HeldLease) -> dict[int, Ended]:
    storage = OwnedStorage(open_storage(home), holding.check)
    if is_half_made(name, storage):
        delete_study(name, storage)
        return {}
    return SweepStudy.reopened(name, storage).end(STOPPED)


def _has_study(home: Home, name: str, found: Recorded | None) -> bool:
    """Tell whether a sweep's study is there: in a shared storage others may use its name."""
    storage = open_storage(home)
    if found is None:
        return is_ours(name, storage)
    return study_exists(name, storage) or is_half_made(name, storage)


def _recorded_location(home: Home, name: str) -> str | None:
    """Return the recorded place of a sweep's or run's records, or None."""
    return records_of_study(name, open_storage(home))


def _out_of_reach(home: Home, name: str, found: Recorded | None, study: bool) -> Iterator[str]:
    before = _recorded_location(home, name)
    if before not in (None, home.records) and not name_is_taken(home, name):
        yield f"its runs, recorded at {before} ({TRACKING_URI} is not that)"
    if found is not None and not study:
        yield f"its study, which is not in {studies_location(home)} ({OPTUNA_STORAGE} is another's)"


def _wait(runs: Callable[[], bool], name: str, say: Say, wait_s: float) -> None:
    began = time.monotonic()
    noted = 0.0
    while runs():
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
