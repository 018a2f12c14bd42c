"""``prepare`` in the wild: killed, out of disk, started twice. Real processes."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from segan_ray.data.layouts.cases import Case, discover
from segan_ray.data.store import prepare as preparing
from segan_ray.data.store import prepare_case as writing_cases
from segan_ray.data.store.opened_store import CaseRecord, Manifest, PrepareSettings, read_manifest
from segan_ray.data.store.prepare import prepare
from segan_ray.data.store.splits import SplitSettings
from segan_ray.errors import DataError, SeganRayError, StoreError
from segan_ray.filesystem.locks import acquire, release

pytestmark = pytest.mark.slow


def make(folder: Path, store: Path, **options) -> Manifest:
    given = {"settings": PrepareSettings(), "split_settings": SplitSettings()}
    return prepare(discover(folder), store, **{**given, **options})


def start(*arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", "from segan_ray.cli.main import main; main()", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(store: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of the records of finished cases, in an unfinished store too."""
    stamps = [
        path
        for folder in (store, store.with_name(f"{store.name}.preparing"))
        for path in (folder / "cases").glob("[!.]*/record.json")
    ]
    stats = {path.parent.name: path.stat() for path in stamps}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def wait_until(holds, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


def contents(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


def killed_midway(arguments: tuple, store: Path) -> tuple[dict, list[psutil.Process]]:
    """Kill a run that has finished some cases but not all; return these cases, and its children."""
    for _ in range(10):  # on a busy machine the run may end before we kill it
        run = start(*arguments)
        wait_until(lambda: finished(store))
        children = psutil.Process(run.pid).children(recursive=True)
        run.send_signal(signal.SIGKILL)
        run.wait()
        done = finished(store)
        if len(done) < 8:
            assert not store.exists()
            assert len(children) >= 2
            return done, children
        for folder in (store, store.with_name(f"{store.name}.preparing")):
            shutil.rmtree(folder, ignore_errors=True)
    raise AssertionError("it was never killed in time")


def test_a_killed_run_is_continued(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    arguments = ("prepare", folder, store, "--workers", 2)
    done, children = killed_midway(arguments, store)
    _, orphans = psutil.wait_procs(children, timeout=20)
    assert not orphans
    done |= finished(store)  # a case may have been in its last step

    again = start(*arguments)
    output, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert "8 cases" in output
    now = finished(store)
    assert {name: now[name] for name in done} == done
    make(folder, tmp_path / "whole")
    assert contents(store) == contents(tmp_path / "whole")
    assert not store.with_name("store.preparing").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB, about three cases."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "segan-ray-test", str(disk)]
    try:
        made = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if made.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {made.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_is_continued_after_a_full_disk(
    folder: Path, tmp_path: Path, small_disk: Path, workers: int
) -> None:
    store = small_disk / "store"
    arguments = ("prepare", folder, store, "--workers", workers)
    run = start(*arguments)
    output, errors = run.communicate(timeout=120)
    assert (run.returncode, output) == (1, "")
    assert len(errors.strip().splitlines()) == 1, errors
    assert str(small_disk / "store.preparing" / "cases") in errors
    assert f"No space left on device: the disk at {small_disk} has " in errors
    assert not store.exists()
    assert not list((small_disk / "store.preparing" / "cases").glob(".*"))
    done = finished(store)
    assert 0 < len(done) < 8

    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = start(*arguments)
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    now = finished(store)
    assert {name: now[name] for name in done} == done
    assert contents(store) == contents_of_one_go(folder, tmp_path)


def contents_of_one_go(folder: Path, tmp_path: Path) -> dict[str, bytes]:
    make(folder, tmp_path / "whole")
    return contents(tmp_path / "whole")


def test_a_disk_that_fills_up_anywhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th write fails, in a case or in sealing the store; no small disk is needed."""
    real, left = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    store = tmp_path / "store"
    monkeypatch.setattr(os, "fsync", fsync)
    for left in (0, 7, 13, 26, 2):  # noqa: B007 - fsync reads it
        with pytest.raises(SeganRayError, match="No space left on device"):
            make(folder, store)
        assert not store.exists()
        with pytest.raises(StoreError, match="does not exist"):
            read_manifest(store)
    monkeypatch.undo()
    resumed = make(folder, store)
    assert resumed == make(folder, tmp_path / "whole")
    assert contents(store) == contents(tmp_path / "whole")


def test_a_second_run_of_the_same_store_is_refused(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    work = store.with_name("store.preparing")
    work.mkdir()
    lock = acquire(work / preparing.LOCK)
    assert lock is not None
    second = start("prepare", folder, store, "--workers", 1)
    output, errors = second.communicate(timeout=60)
    assert (second.returncode, output) == (1, "")
    assert f"is being prepared by process {os.getpid()} on " in errors
    assert len(errors.strip().splitlines()) == 1
    release(lock)
    manifest = make(folder, store)
    assert {path.name for path in store.iterdir()} == {"manifest.json", "cases"}
    assert make(folder, store) == manifest


def test_a_run_that_waited_takes_the_store_of_the_other(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store appears after the second run looked for it, and before it gets the lock."""
    store = tmp_path / "store"
    first = make(folder, store)
    looks = iter([False])
    real = preparing._is_made
    monkeypatch.setattr(preparing, "_is_made", lambda path: next(looks, real(path)))
    stamps = finished(store)
    assert make(folder, store) == first
    assert finished(store) == stamps
    assert not store.with_name("store.preparing").exists()


def test_a_run_waits_for_the_processes_of_a_killed_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    work = store.with_name("store.preparing")
    work.mkdir()
    orphan = acquire(work / preparing.WRITERS, shared=True)
    assert orphan is not None
    monkeypatch.setattr(preparing, "WRITERS_GONE_S", 0.2)
    with pytest.raises(StoreError, match="still write here"):
        make(folder, store)
    release(orphan)
    make(folder, store)


HEAVY = "BraTS2021_00003"


def _die_of_one(case: Case, *arguments: Any, **named: Any) -> CaseRecord:
    if case.case == HEAVY:
        os.kill(os.getpid(), signal.SIGKILL)
    return writing_cases.prepare_case(case, *arguments, **named)


def test_a_case_whose_process_is_killed_for_memory_is_named_and_the_others_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    monkeypatch.setattr(preparing, "prepare_case", _die_of_one)
    with pytest.raises(DataError, match=f"Case {HEAVY}: the process that prepared it was killed"):
        make(folder, store, workers=2)
    assert HEAVY not in finished(store)
    assert len(finished(store)) == 7
    manifest = make(folder, store, workers=2, skip_bad=True)
    assert [(case.case, "killed" in case.problem) for case in manifest.skipped] == [(HEAVY, True)]
    assert {case.case for case in manifest.cases} == {
        case.name for case in folder.iterdir() if case.name != HEAVY
    }
