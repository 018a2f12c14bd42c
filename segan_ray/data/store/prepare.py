"""BRATS folder → store: read, crop to the brain, normalise, write, split, seal.

Everything is written into ``STORE.preparing`` beside the store, one case at a time and each
whole or not at all; the folder takes the store's name only when the manifest is in it. A run
that follows a killed one finds the finished cases there and goes on. Two runs never write one
store: the first holds a lock, and the next waits until the processes of a killed run are gone.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from functools import partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Final

from segan_ray.data.io.volumes import check_headers
from segan_ray.data.layouts.cases import Case, Discovery, Layout
from segan_ray.data.store.binding import bind, refuse_impossible_split
from segan_ray.data.store.manifest import (
    MANIFEST,
    CaseRecord,
    Manifest,
    PrepareSettings,
    SkippedCase,
    read_manifest,
)
from segan_ray.data.store.prepare_case import RESUME, prepare_case, signature
from segan_ray.data.store.split_file import Placement, SplitFile, assign_sides
from segan_ray.data.store.splits import SplitSettings
from segan_ray.data.store.workers import each_done
from segan_ray.errors import CaseError, DataError, StoreError
from segan_ray.filesystem.atomic_files import sync_path, write_text, writing
from segan_ray.filesystem.locks import acquire, holder, release

OnCase = Callable[[str], None]
Outcomes = Callable[
    [Layout, Sequence[Case], Path, PrepareSettings],
    Generator[tuple[Case, Callable[[], CaseRecord]]],
]
"""Prepares cases in any order, on any machine: yields each with the function of its record."""

LOCK: Final = ".lock"
WRITERS: Final = ".writers"
WRITERS_GONE_S: Final = 60.0
KILLED: Final = (
    "the process that prepared it was killed, tried again with nothing beside it: most often for "
    "lack of memory. Prepare it on a machine with more."
)


def ignore_case(case: str) -> None:
    """Do nothing: the ``OnCase`` of callers that show no progress."""


def prepare(
    discovery: Discovery,
    store: Path,
    *,
    settings: PrepareSettings,
    split_settings: SplitSettings,
    split_file: SplitFile | None = None,
    skip_bad: bool = False,
    workers: int = 1,
    outcomes: Outcomes | None = None,
    on_case: OnCase = ignore_case,
) -> Manifest:
    """Make ``store`` from the cases of ``discovery``, or check it if it exists already.

    ``split_file`` places the patients in place of the shares in ``split_settings``. Cases are
    prepared by ``outcomes`` where it is given, or else by ``workers`` processes here. ``on_case``
    is called with the name of each case as it is done.

    Raises:
        DataError: if cases are bad and ``skip_bad`` is not set, or none is good.
        StoreError: if ``store`` exists with other cases or settings, is being prepared by
            another run, or cannot be written.
        SplitError: if the patients cannot be split as asked.
    """
    header_problems = {case.case: check_headers(case) for case in discovery.cases}
    bad = {name: problems[0] for name, problems in header_problems.items() if problems}
    _refuse_bad(discovery, bad, skip_bad)
    good = tuple(case for case in discovery.cases if case.case not in bad)
    outcomes = outcomes or partial(_outcomes, workers=workers)
    placement = assign_sides(split_file, discovery.cases) if split_file else None
    refuse_impossible_split(good, split_settings, placement)

    if not _is_made(store):
        work = store.resolve().with_name(f"{store.resolve().name}.preparing")
        with _alone(work, store):
            if not _is_made(store):  # another run may have sealed it before we held the lock
                with closing(outcomes(discovery.layout, good, work, settings)) as prepared:
                    records, bad_voxels = _collect(prepared, on_case)
                bad |= bad_voxels
                _refuse_bad(discovery, bad, skip_bad)
                skipped = _skipped(discovery, bad, bad_voxels)
                manifest = bind(
                    discovery.layout.name, settings, split_settings, placement, records, skipped
                )
                _seal(work, store, manifest)
                return manifest
            shutil.rmtree(work, ignore_errors=True)
    manifest = _existing(store, discovery, good, settings, split_settings, placement)
    _refuse_bad(discovery, {case.case: case.problem for case in manifest.skipped}, skip_bad)
    for record in manifest.cases:
        on_case(record.case)
    return manifest


def _refuse_bad(discovery: Discovery, bad: dict[str, str], skip_bad: bool) -> None:
    if not bad:
        return
    if len(bad) == len(discovery.cases):
        first = next(iter(bad))
        raise DataError(f"{discovery.folder}: every case is bad. Case {first}: {bad[first]}")
    if not skip_bad:
        (first, problem), more = next(iter(bad.items())), len(bad) - 1
        others = f" ({more} more bad: segan-ray inspect lists them)" if more else ""
        raise DataError(
            f"Case {first}: {problem}\nNothing was prepared{others}. "
            "Mend it, or leave bad cases out with --skip-bad."
        )


def _skipped(
    discovery: Discovery, bad: dict[str, str], readable: dict[str, str]
) -> tuple[SkippedCase, ...]:
    return tuple(
        SkippedCase(
            case=case.case,
            problem=bad[case.case],
            sources=signature(case) if case.case in readable else {},
        )
        for case in discovery.cases
        if case.case in bad
    )


def _is_made(store: Path) -> bool:
    """Tell whether ``store`` exists; an empty folder counts as missing."""
    if store.is_dir():
        return next(store.iterdir(), None) is not None
    return store.exists()


@contextmanager
def _alone(work: Path, store: Path) -> Iterator[None]:
    """Lock ``work`` against other runs, including the remaining processes of a killed run."""
    for folder in (work, work / "cases"):
        # Leftovers are removed below, which must not follow a link.
        if folder.is_symlink():
            raise StoreError(
                f"{folder}: is a link to {folder.resolve()}; expected a folder of an earlier run. "
                "Delete the link and prepare again."
            )
    with writing(work, RESUME):
        work.mkdir(parents=True, exist_ok=True)
        lock = acquire(work / LOCK)
    if lock is None:
        raise StoreError(
            f"The store {store} is being prepared by {holder(work / LOCK)}. Wait until that run "
            "is done, or prepare into another folder."
        )
    try:
        with writing(work, RESUME):
            writers = acquire(work / WRITERS, wait_s=WRITERS_GONE_S)
        if writers is None:
            raise StoreError(
                f"{work}: processes of a run that was killed still write here. End them, or wait "
                "and start again."
            )
        release(writers)
        _drop((work / "cases").glob(".*"))
        yield
    finally:
        release(lock)


def _existing(
    store: Path,
    discovery: Discovery,
    good: Sequence[Case],
    settings: PrepareSettings,
    split_settings: SplitSettings,
    placement: Placement | None,
) -> Manifest:
    manifest = read_manifest(store)
    requested = {**settings.model_dump(), **split_settings.model_dump()}
    existing = {**manifest.settings.model_dump(), **manifest.split_settings.model_dump()}
    requested["layout"], existing["layout"] = discovery.layout.name, manifest.layout
    requested["split file"] = placement.digest if placement else None
    existing["split file"] = manifest.split_file
    shares = {"val", "gate", "test"} if placement and manifest.split_file else set()
    differences = [
        f"{key} is {existing[key]}, asked for {requested[key]}"
        for key in requested
        if requested[key] != existing[key] and key not in shares
    ]
    sources = {record.case: record.sources for record in manifest.cases}
    sources |= {case.case: case.sources for case in manifest.skipped if case.sources}
    now = {case.case: signature(case) for case in good}
    if changed := sorted(name for name in {*sources, *now} if sources.get(name) != now.get(name)):
        differences.append(f"{len(changed)} cases came, went or changed, first {changed[0]}")
    if differences:
        raise StoreError(
            f"The store {store} was made differently: {'; '.join(differences)}.\n"
            "Prepare into another folder, or delete this store first."
        )
    _refuse_holes(store, manifest)
    return manifest


def _refuse_holes(store: Path, manifest: Manifest) -> None:
    for record in manifest.cases:
        for name, size in record.array_bytes.items():
            path = store / "cases" / record.case / name
            length = path.stat().st_size if path.exists() else 0
            if length < size:
                raise StoreError(
                    f"{path}: {'is cut short' if length else 'is missing'}. The store is damaged: "
                    "delete it and prepare again."
                )


def _collect(
    prepared: Iterable[tuple[Case, Callable[[], CaseRecord]]], on_case: OnCase
) -> tuple[tuple[CaseRecord, ...], dict[str, str]]:
    """Return the records of the good cases, sorted by name, and the problems of the others."""
    records: dict[str, CaseRecord] = {}
    bad: dict[str, str] = {}
    for case, outcome in prepared:
        try:
            records[case.case] = outcome()
        except CaseError as error:
            bad[case.case] = str(error).removeprefix(f"Case {case.case}: ")
        except BrokenProcessPool:
            bad[case.case] = KILLED
        on_case(case.case)
    return tuple(records[name] for name in sorted(records)), dict(sorted(bad.items()))


def _outcomes(
    layout: Layout,
    cases: Sequence[Case],
    work: Path,
    settings: PrepareSettings,
    *,
    workers: int,
) -> Generator[tuple[Case, Callable[[], CaseRecord]]]:
    if workers == 1:
        for case in cases:
            yield case, partial(prepare_case, case, layout.name, work, settings)
        return
    work_on = partial(prepare_case, layout=layout.name, work=work, settings=settings)
    with closing(
        each_done(work_on, cases, workers=workers, begin=partial(_join_run, work))
    ) as done:
        for case, future in done:
            yield case, future.result


@contextmanager
def keep_writing(work: Path) -> Iterator[None]:
    """Hold a share of the run's lock, so that no other run begins while this process writes.

    Raises:
        StoreError: if another run is just beginning.
    """
    handle = acquire(work / WRITERS, shared=True, wait_s=WRITERS_GONE_S)
    if handle is None:
        raise StoreError(f"{work}: another run has taken it over. Start again.")
    try:
        yield
    finally:
        release(handle)


def _join_run(work: Path) -> None:
    """Tie a process of the pool to the run: it shares the run's lock and ends with the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the run answers Ctrl-C
    acquire(work / WRITERS, shared=True)
    run = parent_process()
    assert run is not None, "this is the initializer of a pool"

    def follow() -> None:
        run.join()
        os._exit(1)

    threading.Thread(target=follow, name="follow-run", daemon=True).start()


def _seal(work: Path, store: Path, manifest: Manifest) -> None:
    """Give ``work`` the store's name, once everything in it is on the disk."""
    wanted = {record.case for record in manifest.cases}
    _drop(path for path in (work / "cases").iterdir() if path.name not in wanted)
    with writing(store, RESUME):
        sync_path(work / "cases")
        write_text(work / MANIFEST, manifest.model_dump_json(indent=1))
        sync_path(work)
        os.replace(work, store)
        sync_path(store.parent)
        for name in (LOCK, WRITERS):
            (store / name).unlink(missing_ok=True)


def _drop(paths: Iterable[Path]) -> None:
    """Remove what killed or earlier runs left besides the cases of this store."""
    for path in list(paths):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
