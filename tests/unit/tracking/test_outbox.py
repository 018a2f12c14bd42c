"""No record is lost: torn files, kills at any point, full disks, an MLflow that is away."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes
from sqlalchemy.exc import OperationalError

from segan_ray.errors import StoreError, TakenOver, TrackingError
from segan_ray.tracking.client.retries import is_refusal
from segan_ray.tracking.outbox import (
    DAMAGED,
    Kind,
    Outbox,
    Record,
    lock_of,
    read_outbox,
    record,
)
from segan_ray.tracking.recording.ledger import Ledger
from segan_ray.tracking.recording.uploader import Uploader

AT_ONCE = (0.0,)
METRIC = "val/dice_mean"


class Killed(BaseException):
    """The process dies here."""


class Store:
    """What MLflow keeps, as far as records go: rows once, tags as last set. Dies when told to."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, int]] = []
        self.status: dict[str, str] = {}
        self.steps_to_live: int | None = None
        self.answers: list[Exception] = []

    def apply(self, records: Sequence[Record]) -> None:
        if self.answers:
            raise self.answers.pop(0)
        for one in records:
            if self.steps_to_live is not None:
                self.steps_to_live -= 1
                if self.steps_to_live < 0:
                    raise Killed
            if one.kind == "epoch":
                row = (str(one.trial), one.facts["epoch"], one.at)
                if row not in self.rows:
                    self.rows.append(row)
            else:
                self.status[str(one.trial)] = one.kind

    def content(self) -> tuple[list[tuple[str, int, int]], dict[str, str]]:
        return sorted(self.rows), self.status


def sample(trials: int = 3, epochs: int = 3) -> list[Record]:
    """Trials side by side, so that their epochs alternate."""
    names = [f"{n:03d}" for n in range(trials)]
    started = {"params": {}, "settings": {}, "repeat_of": None}
    ended = {"status": "completed", "reason": None, "checkpoint": None}
    made = [Record("start", name, n, started) for n, name in enumerate(names)]
    for epoch in range(1, epochs + 1):
        facts = {"epoch": epoch, "metrics": {METRIC: 0.5}, "tags": {}}
        made += [Record("epoch", name, 100 * epoch, facts) for name in names]
    return [*made, *(Record("end", name, 900, ended) for name in names)]


def one_of_each_kind() -> list[Record]:
    sweep = {"name": "s", "metric": METRIC}
    return [
        record("open", None, sweep=sweep, keep_checkpoints=10, outbox="3f"),
        record(
            "known", "000", status="pending", epochs=1, score=0.5, best_epoch=1, repeat_of=None,
            objectives={},
        ),
        *sample(trials=1, epochs=1),
        record("drop", "000"),
        record("suspend", "000"),
        record("pause", "000"),
        record("close", None, status="finished", best=0.5),
    ]  # fmt: skip


RECORDS = sample()
LINES = [one.line() for one in RECORDS]
EXPECTED = Store()
EXPECTED.apply(RECORDS)


def write(path: Path, records: Sequence[Record] = tuple(RECORDS)) -> Outbox:
    outbox = Outbox(path)
    for one in records:
        outbox.append(one)
    return outbox


def acknowledged_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.acknowledged")


@settings(deadline=None)
@given(data=st.data())
def test_whatever_kill_and_tear_a_replay_gives_the_same_content(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)  # what it is for is drawn below
        path = Path(folder) / "tracking.jsonl"
        store = Store()
        write(path).release()
        for _ in range(data.draw(st.integers(0, 2), "kills")):
            store.steps_to_live = data.draw(st.integers(0, len(RECORDS)), "steps to live")
            outbox = Outbox(path)
            uploader = Uploader(outbox, store.apply, AT_ONCE)
            with contextlib.suppress(Killed):
                uploader.replay()
            outbox.release()
        store.steps_to_live = None
        # A power cut: any end of the outbox may be lost, and of the acknowledgement.
        size = data.draw(st.integers(0, path.stat().st_size), "bytes kept")
        os.truncate(path, size)
        if acknowledged_file(path).exists():
            text = acknowledged_file(path).read_text()
            kept = data.draw(st.integers(0, len(text)), "digits kept")
            acknowledged_file(path).write_text(text[:kept])
        outbox = Outbox(path)
        left = len(outbox.entries)
        assert [entry.record for entry in outbox.entries] == RECORDS[:left]
        uploader = Uploader(outbox, store.apply, AT_ONCE)
        for one in RECORDS[left:]:
            uploader.append(one)
        uploader.replay()
        outbox.release()
        assert store.content() == EXPECTED.content()
        assert read_outbox(path) == tuple(RECORDS)


CHILD = """
import sys, threading
from pathlib import Path
from segan_ray.tracking.outbox import Outbox, Record
from segan_ray.tracking.recording.uploader import Uploader

applied = open(sys.argv[2], "a", buffering=1)

def apply(records):
    for each in records:
        applied.write(f"{each.trial} {each.facts['epoch']} {each.at}\\n")

uploader = Uploader(Outbox(Path(sys.argv[1])), apply)
uploader.replay()
uploader.start()
lock = threading.Lock()

def train(trial):
    epoch = 0
    while True:
        epoch += 1
        facts = {"epoch": epoch, "metrics": {}, "tags": {}}
        uploader.append(Record("epoch", trial, epoch, facts))
        with lock:
            print(trial, epoch, epoch, flush=True)

for trial in sys.argv[3:]:
    threading.Thread(target=train, args=(trial,)).start()
"""
"""A process that records trials on threads side by side until it is killed."""


def killed_while_recording(
    path: Path, applied: Path, lines: int, trials: Sequence[str]
) -> set[str]:
    """Kill that process once ``lines`` appends have returned; return the records of those."""
    command = [sys.executable, "-c", CHILD, str(path), str(applied), *trials]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        heard = [process.stdout.readline().strip() for _ in range(lines)]
        process.kill()
        heard += [line.strip() for line in process.stdout if line.endswith("\n")]
    return set(heard)


@pytest.mark.slow
def test_a_killed_process_loses_no_record_that_it_appended(tmp_path: Path) -> None:
    path, applied = tmp_path / "tracking.jsonl", tmp_path / "applied"
    recorded: dict[str, list[int]] = {}
    told: set[str] = set()
    for lines, trials in ((300, ("000", "001", "002")), (40, ("003", "004"))):
        told |= killed_while_recording(path, applied, lines, trials)
    for each in read_outbox(path):
        recorded.setdefault(str(each.trial), []).append(each.facts["epoch"])
    # Each thread's records are there in its order, without a gap; those of the first kill too.
    assert {trial: [*range(1, len(epochs) + 1)] for trial, epochs in recorded.items()} == recorded
    content = {f"{trial} {epoch} {epoch}" for trial, epochs in recorded.items() for epoch in epochs}
    assert len(told) >= 340
    assert told <= content
    taken = set(applied.read_text().splitlines())
    assert taken <= content

    store = Store()
    uploader = Uploader(Outbox(path), store.apply)
    waiting = uploader.waiting
    uploader.replay()
    replayed = {f"{trial} {epoch} {at}" for trial, epoch, at in store.rows}
    assert len(replayed) == waiting
    assert taken | replayed == content


def test_records_are_on_the_disk_before_mlflow_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a resumed sweep must know everything that MLflow has."""
    path = tmp_path / "tracking.jsonl"
    durable = b""
    real = os.fsync

    def sync(handle: int) -> None:
        nonlocal durable
        real(handle)
        if os.path.samestat(os.fstat(handle), path.stat()):
            durable = path.read_bytes()

    seen: list[Record] = []

    def apply(records: Sequence[Record]) -> None:
        assert all(each.line() in durable for each in records)
        seen.extend(records)

    monkeypatch.setattr(os, "fsync", sync)
    write(path, RECORDS[:5]).release()
    uploader = Uploader(Outbox(path), apply, AT_ONCE)
    uploader.replay()
    uploader.start()
    for each in RECORDS[5:]:
        uploader.append(each)
    assert uploader.finish(60) == 0
    assert seen == RECORDS


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "tracking.jsonl"
    os.mkfifo(path)
    for act in (read_outbox, Outbox):
        with pytest.raises(StoreError, match=r"jsonl: cannot be read \(is a pipe; expected a file"):
            act(path)


@pytest.mark.parametrize("ending", ["", ".lock"])
def test_no_other_file_is_changed_through_a_link(tmp_path: Path, ending: str) -> None:
    """Others may put links into a shared home; opening cuts off a torn line and empties a lock."""
    path, victim = tmp_path / "tracking.jsonl", tmp_path / "victim"
    victim.write_text("a line\nno line's end")
    path.with_name(f"{path.name}{ending}").symlink_to(victim)
    with pytest.raises(StoreError, match="cannot be written"):
        Outbox(path)
    assert victim.read_text() == "a line\nno line's end"


def test_an_acknowledgement_of_a_longer_file_hides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tracking.jsonl"
    outbox = write(path)
    uploader = Uploader(outbox, Store().apply)
    uploader.replay()
    outbox.release()
    os.truncate(path, 0)
    # Killed again before anything was applied: the records appended since must still wait.
    write(path, [*RECORDS, *RECORDS]).release()
    assert Uploader(Outbox(path), Store().apply).waiting == 2 * len(RECORDS)


def test_a_torn_last_line_is_dropped_and_nothing_is_glued_to_it(tmp_path: Path) -> None:
    path = tmp_path / "tracking.jsonl"
    write(path, RECORDS[:2]).release()
    with path.open("ab") as stream:
        stream.write(LINES[2][:-5])
    write(path, RECORDS[3:5]).release()
    assert read_outbox(path) == (*RECORDS[:2], *RECORDS[3:5])


def test_a_damaged_line_is_left_out_with_a_warning(tmp_path: Path, caplog) -> None:
    path = tmp_path / "tracking.jsonl"
    path.write_bytes(LINES[0] + b"\0" * 30 + b"\n" + LINES[1])
    assert read_outbox(path) == tuple(RECORDS[:2])
    assert "damaged" in caplog.text


@pytest.mark.parametrize("trial", ["..", "../../other", "/tmp", "", ".dropped-000", 7])
def test_a_record_of_what_cannot_be_a_trial_is_left_out(tmp_path: Path, caplog, trial) -> None:
    """A trial's name is a folder, which is removed when the trial is given up."""
    path = tmp_path / "tracking.jsonl"
    path.write_bytes(LINES[0] + Record("drop", trial, 1, {}).line() + LINES[1])
    assert read_outbox(path) == tuple(RECORDS[:2])
    assert "damaged" in caplog.text


def test_no_flipped_bit_of_a_record_keeps_a_sweep_from_being_resumed() -> None:
    records = one_of_each_kind()
    assert {each.kind for each in records} == set(get_args(Kind))
    damaged = 0
    for line in (each.line() for each in records):
        for byte, bit in itertools.product(range(len(line) - 1), range(8)):
            changed = bytearray(line)
            changed[byte] ^= 1 << bit
            try:
                read = Record.of_line(bytes(changed))
            except DAMAGED:
                damaged += 1
                continue
            ledger = Ledger(METRIC, "max").note_all([read])
            assert ledger.superfluous(1) == ()
    assert damaged > 1000


def test_a_record_keeps_its_time_and_odd_values() -> None:
    metrics = {"a": float("nan"), "b": float("inf")}
    one = record("epoch", "000", epoch=1, metrics=metrics, tags={})
    back = Record.of_line(one.line())
    assert back.at == one.at
    assert str(back.facts) == str(one.facts)


def test_a_disk_that_fills_up_is_named_and_leaves_no_torn_line(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "tracking.jsonl"
    outbox = write(path, RECORDS[:2])
    uploader = Uploader(outbox, Store().apply)
    real = os.write

    def half(handle: int, content: bytes) -> int:
        if len(content) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(handle, content[: len(content) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(StoreError, match=r"tracking.jsonl: cannot be written .*the disk at / has"):
        uploader.append(RECORDS[2])
    monkeypatch.setattr(os, "write", real)
    assert path.read_bytes() == b"".join(LINES[:2])
    assert uploader.waiting == 0
    uploader.append(RECORDS[3])
    assert uploader.waiting == 1
    assert read_outbox(path) == (*RECORDS[:2], RECORDS[3])


def test_a_real_limit_on_the_file_leaves_no_torn_line_either(tmp_path: Path) -> None:
    path = tmp_path / "tracking.jsonl"
    outbox = write(path, RECORDS[:2])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, hard))
    try:
        with pytest.raises(StoreError, match="File too large"):
            outbox.append(RECORDS[2])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    outbox.append(RECORDS[3])
    assert read_outbox(path) == (*RECORDS[:2], RECORDS[3])


def test_appending_returns_while_the_store_hangs_and_epochs_go_together(tmp_path: Path) -> None:
    answers, called = threading.Event(), threading.Event()
    batches: list[list[str]] = []

    def hangs(records: Sequence[Record]) -> None:
        called.set()
        answers.wait(60)
        batches.append([one.kind for one in records])

    uploader = Uploader(Outbox(tmp_path / "tracking.jsonl"), hangs)
    uploader.start()
    uploader.append(RECORDS[0])
    assert called.wait(60)
    for one in RECORDS[1:]:
        uploader.append(one)
    assert uploader.waiting == len(RECORDS)
    assert not batches
    answers.set()
    assert uploader.finish(60) == 0
    assert batches == [["start"]] * 3 + [["epoch"] * 9] + [["end"]] * 3


def test_records_of_a_sweep_that_was_taken_over_are_neither_sent_nor_left_out(
    tmp_path: Path, caplog
) -> None:
    path = tmp_path / "tracking.jsonl"
    store = Store()
    store.answers = [TakenOver("s", "there:/home")] * 2
    write(path).release()
    uploader = Uploader(Outbox(path), store.apply, AT_ONCE)
    with pytest.raises(TakenOver, match="'s' was taken over by there:/home"):
        uploader.replay()
    uploader.start()
    # It does not try again, so that nobody waits for it.
    assert uploader.finish(600) == len(RECORDS)
    assert store.content() == ([], {})
    assert caplog.messages == []
    assert not acknowledged_file(path).exists()
    Outbox(path).release()


def test_a_store_that_is_away_is_asked_until_it_answers(tmp_path: Path, caplog) -> None:
    store = Store()
    store.answers = [
        MlflowException("no", codes.TEMPORARILY_UNAVAILABLE),
        requests.ConnectionError("refused"),
        OSError(errno.ECONNRESET, "reset"),
        MlflowException("database is locked", codes.INTERNAL_ERROR),
        RuntimeError("something of an artifact store"),
    ]
    uploader = Uploader(Outbox(tmp_path / "tracking.jsonl"), store.apply, AT_ONCE)
    for one in RECORDS:
        uploader.append(one)
    uploader.start()
    assert uploader.finish(60) == 0
    assert store.content() == EXPECTED.content()
    assert caplog.text.count("does not answer") == 1


def test_one_bad_record_does_not_hold_up_the_rest(tmp_path: Path, caplog) -> None:
    store = Store()

    def refuses_one(records: Sequence[Record]) -> None:
        if any(one.kind == "epoch" and one.facts["epoch"] == 2 for one in records):
            raise MlflowException("bad name", codes.INVALID_PARAMETER_VALUE)
        store.apply(records)

    uploader = Uploader(Outbox(tmp_path / "tracking.jsonl"), refuses_one, AT_ONCE)
    for one in RECORDS:
        uploader.append(one)
    uploader.start()
    assert uploader.finish(60) == 0
    assert sorted({epoch for _, epoch, _ in store.rows}) == [1, 3]
    assert set(store.status.values()) == {"end"}
    assert caplog.text.count("refused a record") == 3


def test_a_store_that_stays_away_leaves_the_records_waiting(tmp_path: Path) -> None:
    path = tmp_path / "tracking.jsonl"

    def away(records: Sequence[Record]) -> None:
        raise requests.ConnectionError("refused")

    uploader = Uploader(Outbox(path), away, AT_ONCE)
    uploader.append(RECORDS[0])
    with pytest.raises(TrackingError, match=r"1 records wait in .*tracking\.jsonl"):
        uploader.replay()
    uploader.start()
    assert uploader.finish(0) == 1
    store = Store()
    again = Uploader(Outbox(path), store.apply)
    again.replay()
    assert store.status == {"000": "start"}


def test_two_processes_do_not_record_one_sweep(tmp_path: Path) -> None:
    path = tmp_path / "tracking.jsonl"
    outbox = write(path, RECORDS[:2])
    # This process may take over from itself; for another the lock says who has it.
    Outbox(path)
    lock_of(path).write_text("process 17 on elsewhere")
    with pytest.raises(TrackingError, match="process 17 on elsewhere is recording"):
        Outbox(path)
    outbox.release()
    assert len(Outbox(path).entries) == 2


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (MlflowException("x", codes.INVALID_PARAMETER_VALUE), True),
        (MlflowException("x", codes.RESOURCE_ALREADY_EXISTS), True),
        (MlflowException("x", codes.RESOURCE_DOES_NOT_EXIST), True),
        (MlflowException("x", codes.BAD_REQUEST), False),
        (MlflowException("x", codes.ENDPOINT_NOT_FOUND), False),
        (MlflowException("x", codes.TEMPORARILY_UNAVAILABLE), False),
        (MlflowException("x", codes.REQUEST_LIMIT_EXCEEDED), False),
        (MlflowException("x", codes.UNAUTHENTICATED), False),
        (MlflowException("x"), False),
        (requests.ConnectionError("x"), False),
        (OperationalError("INSERT", {}, sqlite3.OperationalError("database is locked")), False),
        (OSError(errno.ENOSPC, "x"), False),
        (KeyError("x"), True),
    ],
)
def test_what_is_refused_and_what_is_tried_again(error: Exception, refusal: bool) -> None:
    assert is_refusal(error, tries=0) is refusal


@pytest.mark.parametrize(
    ("status", "refusal"), [(413, True), (404, False), (429, False), (503, False)]
)
def test_answers_of_artifact_stores(status: int, refusal: bool) -> None:
    response = requests.Response()
    response.status_code = status
    assert is_refusal(requests.HTTPError("x", response=response), tries=0) is refusal
