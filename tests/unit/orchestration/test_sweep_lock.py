"""The lock of a sweep: real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segan_ray.errors import Interrupted, SweepError
from segan_ray.orchestration.tune.sweep_lock import (
    EndRequest,
    held,
    interruptible,
    is_held,
    request_stop,
    stop_requested,
)

HOLD = """
import sys
from pathlib import Path
from segan_ray.orchestration.tune.sweep_lock import held
with held(Path(sys.argv[1]), "critic"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time_holds_the_lock_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    folder = tmp_path / "critic"
    assert not is_held(folder)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert is_held(folder)
        words = rf"'critic' is running now \(process {process.pid} on .*segan-ray stop critic"
        with pytest.raises(SweepError, match=words), held(folder, "critic"):
            raise AssertionError
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not is_held(folder)
        with held(folder, "critic"):
            assert is_held(folder)
    assert not is_held(folder)


def test_a_request_to_stop_is_for_the_process_that_holds_the_lock(tmp_path: Path) -> None:
    with held(tmp_path, "critic"):
        assert not stop_requested(tmp_path)
        request_stop(tmp_path)
        assert stop_requested(tmp_path)
    # A later process that goes on with the sweep was not asked.
    with held(tmp_path, "critic"):
        assert not stop_requested(tmp_path)


def test_the_lock_is_released_when_a_sweep_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), held(tmp_path, "critic"):
        _ = 1 / 0
    assert not is_held(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_raised_and_a_second_one_ends_at_once(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    after = []

    def signalled() -> None:
        try:
            signal.raise_signal(number)
        finally:
            after.extend(signal.getsignal(each) for each in before)

    with pytest.raises(Interrupted, match="Go on: again http://me:") as told:  # noqa: SIM117
        with interruptible("s", "again http://me:secret@there") as asked:
            signalled()
    assert told.value.signal == number
    assert "Either way go on: again http://me:***@there" in capfd.readouterr().err
    assert after == [signal.SIG_DFL, signal.SIG_DFL]
    assert asked.signal == number
    assert {each: signal.getsignal(each) for each in before} == before


def test_a_signal_is_answered_after_a_block_that_must_end() -> None:
    done = []

    def signalled(asked: EndRequest) -> None:
        with asked.later():
            signal.raise_signal(signal.SIGTERM)
            done.append("all of it")
        asked.now()

    with pytest.raises(Interrupted), interruptible("s", "again") as asked:
        signalled(asked)
    assert done == ["all of it"]


def test_a_process_dies_of_the_second_signal() -> None:
    code = (
        "import signal\n"
        "from segan_ray.orchestration.tune.sweep_lock import interruptible\n"
        "with interruptible('s', 'again'):\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "    except KeyboardInterrupt:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], check=False, env=dict(os.environ), capture_output=True
    )
    assert ended.returncode == -signal.SIGINT
    assert (
        ended.stderr == b"\nEnding 's'. A second Ctrl-C ends it at once. Either way go on: again\n"
    )


def test_an_interactive_python_outlives_the_second_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    ended = []

    def signalled() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                ended.append("at once")

    with pytest.raises(Interrupted), interruptible("s", "again"):
        signalled()
    assert ended == ["at once"]
