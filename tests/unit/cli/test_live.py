"""Following a sweep: what events add up to, and what that looks like."""

from __future__ import annotations

import io
import logging
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from segan_ray.search.results.needs import Needs, rough
from segan_ray.search.results.trial_state import EndedBefore, MoreTrials, TrialState
from segan_ray.terminal.live import live_run, live_view
from segan_ray.terminal.live_table import RunView, SweepView, choose, watch
from segan_ray.terminal.sweep_progress import SweepProgress

REASON = "ValueError: the loss is not finite: every map was empty in three validations in a row"


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """What is written to it, it takes for shown."""

    def isatty(self) -> bool:
        return True


def begun(total: int = 4, mode: str = "max") -> SweepProgress:
    return SweepProgress("critic", "val/dice_mean", mode, total, 0.0)


def run(progress: SweepProgress, trial: str, *, at: float, epochs: int, every: float, score=0.5):
    """Start a trial ``at`` a second; its epochs take ``every`` seconds, after 10 of start-up."""
    progress = progress.after(TrialState(trial, "running", 0, 20, None), at)
    for epoch in range(1, epochs + 1):
        event = TrialState(trial, "running", epoch, 20, score)
        progress = progress.after(event, at + 10 + every * epoch)
    return progress


def end(progress: SweepProgress, trial: str, status: str, at: float, reason: str | None = None):
    known = progress.trials[trial].state
    event = replace(known, status=status, reason=reason)
    return progress.after(event, at)


def large(ended: int = 43, running: int = 4, total: int = 50) -> SweepProgress:
    progress = begun(total)
    for number in range(ended):
        epochs, status = ((20, "completed"), (3, "stopped"), (5, "failed"))[number % 3]
        name, at, score = f"{number:03d}", 60.0 * number, 0.3 + number % 7 / 20
        progress = run(progress, name, at=at, epochs=epochs, every=2, score=score)
        reason = REASON if status == "failed" else None
        progress = end(progress, name, status, at + 10 + 2 * epochs, reason)
    for number in range(ended, ended + running):
        progress = run(progress, f"{number:03d}", at=60.0 * ended, epochs=number % 4, every=2)
    return progress


def drawn(view: RenderableType, width: int, height: int) -> list[str]:
    file = io.StringIO()
    Console(
        file=file, width=width, height=height, force_terminal=True, color_system=None
    ).print(view)  # fmt: skip
    return file.getvalue().splitlines()


def test_an_epoch_takes_what_it_takes_without_the_start() -> None:
    progress = run(begun(), "000", at=5, epochs=1, every=4)
    # One epoch alone cannot be told from the start-up before it.
    assert progress.trials["000"].epoch_s == 14
    progress = run(begun(), "000", at=5, epochs=3, every=4)
    trial = progress.trials["000"]
    assert trial.epoch_s == 4
    assert trial.elapsed_s(45) == 40
    assert trial.left_s(27) == 17 * 4
    # Half of the next epoch is done; then it takes longer than the others.
    assert trial.left_s(29) == 16.5 * 4
    assert trial.left_s(999) == 16 * 4


def test_nothing_is_said_of_the_time_left_before_it_is_known() -> None:
    progress = begun()
    assert progress.left_s(3) is None
    progress = run(progress, "000", at=5, epochs=0, every=4)
    assert progress.trials["000"].left_s(9) is None
    assert progress.left_s(9) is None
    assert "left –" in "\n".join(drawn(SweepView(progress, 9), 80, 24))


def test_the_time_left_of_a_sweep_can_be_checked_by_hand() -> None:
    progress = run(begun(3), "000", at=0, epochs=20, every=4)
    progress = end(progress, "000", "completed", 90)
    progress = run(progress, "001", at=0, epochs=10, every=8)
    # 180 s for 30 epochs; 10 left of the running trial and 20 of the one to come, one at once.
    assert progress.left_s(90) == 30 * 6
    progress = run(progress, "002", at=90, epochs=0, every=4)
    assert progress.left_s(90) == 30 * 6 / 2
    for name in ("001", "002"):
        progress = end(progress, name, "stopped", 100)
    assert progress.left_s(100) == 0


def test_what_a_sweep_needs_can_be_checked_by_hand() -> None:
    progress = replace(begun(4), price=2.5)
    for name in ("000", "001"):
        for epoch in (0, 1, 2):
            assert progress.is_timed == (name == "001")
            progress = progress.after(TrialState(name, "running", epoch, 20, gpus=2), 300 * epoch)
    assert progress.is_timed
    # 18 epochs of each of two trials, and 20 of each of two to come, two at once.
    needs = progress.needs(600)
    assert needs == Needs(38 * 300, 38 * 300 * 2 * 2, 2.5)
    assert needs.said() == "3 h 10 min (12.7 GPU hours, costs 31.67)"
    assert Needs(600, 3600).said() == "10 min (1.0 GPU hours)"
    assert Needs(600, 0, 2.5).said() == "10 min"
    assert "left 3 h 10 min (12.7 GPU" in "\n".join(drawn(SweepView(progress, 600), 120, 24))


def test_a_sweep_may_get_more_trials_while_it_runs(capsys) -> None:
    progress = run(begun(4), "000", at=0, epochs=1, every=1).after(MoreTrials(3), 20)
    assert (progress.total, progress.counts["pending"]) == (7, 6)
    assert progress.after(MoreTrials(-2), 30).total == 5
    with live_view("critic", "val/dice_mean", "max", 4) as tell:
        tell(MoreTrials(3))
    assert capsys.readouterr().err == ""


def test_trials_that_ended_before_a_resume_are_done() -> None:
    progress = run(begun(9).after(EndedBefore(6), 0), "006", at=0, epochs=3, every=10)
    assert progress.counts["pending"] == 2
    assert "6 of 9 done" in "\n".join(drawn(SweepView(progress, 30), 120, 24))
    # Of those that are left alone.
    fresh = run(begun(3), "006", at=0, epochs=3, every=10)
    assert progress.left_s(30) == fresh.left_s(30)


def test_trials_are_counted_and_the_scheduler_is_given_its_due() -> None:
    progress = large()
    assert progress.counts == {
        "completed": 15, "stopped": 14, "failed": 14, "running": 4, "pending": 3,
    }  # fmt: skip
    assert progress.saved_epochs == 14 * 17


@pytest.mark.parametrize(("mode", "best"), [("max", "001"), ("min", "000")])
def test_the_best_is_the_best_of_its_mode(mode: str, best: str) -> None:
    progress = run(begun(mode=mode), "000", at=0, epochs=1, every=1, score=0.1)
    progress = run(progress, "001", at=0, epochs=1, every=1, score=0.7)
    progress = run(progress, "002", at=0, epochs=0, every=1)
    assert progress.best is not None
    assert progress.best.state.trial == best


def test_a_trial_started_again_is_measured_anew() -> None:
    progress = run(begun(), "000", at=0, epochs=4, every=2)
    progress = progress.after(TrialState("000", "running", 4, 20, 0.5), 100)
    assert progress.trials["000"].epoch_s is None
    progress = progress.after(TrialState("000", "running", 5, 20, 0.5), 120)
    progress = progress.after(TrialState("000", "running", 6, 20, 0.5), 123)
    assert progress.trials["000"].epoch_s == 3


def test_a_trial_that_ended_before_we_looked_has_no_times() -> None:
    progress = begun().after(TrialState("000", "completed", 20, 20, 0.5), 3)
    assert progress.left_s(9) is None
    (row,) = [line for line in drawn(SweepView(progress, 9), 60, 24) if line.startswith("000")]
    assert row.split() == ["000", "completed", "20/20", "0.500", "best", "–"]


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("height", [6, 10, 40])
@pytest.mark.parametrize("ended", [0, 2, 43, 400])
def test_the_view_never_outgrows_the_terminal(width: int, height: int, ended: int) -> None:
    progress = large(ended, total=ended + 7)
    lines = drawn(SweepView(progress, 60.0 * ended + 60), width, height)
    assert len(lines) < height
    assert max(map(len, lines)) <= width


def test_what_does_not_fit_is_counted() -> None:
    lines = drawn(SweepView(large(), 2700), 80, 10)
    assert lines[0] == ("critic · 43 of 50 done · 4 running · 14 stopped · 14 failed")
    assert lines[1] == "val/dice_mean best 0.600 (trial 006) · 238 epochs saved · left 1 min"
    assert [line.split()[0] for line in lines[3:-1]] == ["006", "043", "044", "045", "046"]
    assert lines[-1] == "… and 42 more (14 completed, 14 failed, 14 stopped)"
    # Every trial is either shown or counted.
    assert len(lines[3:-1]) + 42 == 47


def test_reasons_are_told_where_there_is_room_and_squeeze_nothing() -> None:
    lines = drawn(SweepView(large(3, 1, 4), 300), 120, 24)
    (failed,) = [line for line in lines if line.startswith("002")]
    assert failed.split()[:4] == ["002", "failed", "5/20", "━━━━━"]
    assert "ValueError: the loss is not" in failed


@given(st.integers(0, 30), st.integers(0, 12), st.integers(1, 40))
def test_the_best_and_the_running_come_first(ended: int, running: int, room: int) -> None:
    progress = large(ended, running, ended + running)
    shown = choose(progress, room)
    assert len(shown) == min(room, ended + running)
    assert [each.state.trial for each in shown] == sorted(each.state.trial for each in shown)
    if progress.best is not None:
        assert progress.best in shown
    if room > running:
        assert set(map(id, progress.running)) <= set(map(id, shown))


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_single_run_takes_two_lines(width: int) -> None:
    progress = run(begun(1), "000", at=0, epochs=3, every=5, score=0.412)
    lines = drawn(RunView(progress, 30), width, 10)
    assert max(map(len, lines)) <= width
    assert lines[0] == "critic · val/dice_mean best 0.412"
    assert "epoch 3/20 · elapsed 0:30" in lines[1]
    assert width < 60 or lines[1].endswith("left 1:20")


@pytest.mark.parametrize(
    ("seconds", "exact", "said"),
    [
        (None, "–", "–"), (0, "0:00", "0 s"), (43, "0:43", "45 s"), (57, "0:57", "55 s"),
        (58, "0:58", "1 min"), (252, "4:12", "4 min"), (3729, "1:02:09", "1 h 2 min"),
        (3599, "59:59", "1 h 0 min"), (273600, "76:00:00", "3 d 4 h"),
    ],
)  # fmt: skip
def test_times(seconds: float | None, exact: str, said: str) -> None:
    assert watch(seconds) == exact
    assert rough(seconds) == said


def test_away_from_a_terminal_ends_are_told_and_now_and_then_the_way_left(capsys) -> None:
    clock = Clock()
    with live_view("critic", "val/dice_mean", "max", 4, clock=clock) as tell:
        for minute in range(1, 25):
            clock.now = 60.0 * minute
            tell(TrialState("000", "running", minute - 1, 30, 0.4))
        tell(TrialState("000", "stopped", 23, 30, 0.412, "It was told to"))
        tell(TrialState("001", "failed", 0, 30, None, "It broke."))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "By its first epochs critic takes about 1 h 58 min more.",
        "critic: 0 of 4 done, 1 running, best 0.400 (trial 000), left 1 h 51 min",
        "critic: 0 of 4 done, 1 running, best 0.400 (trial 000), left 1 h 41 min",
        "trial 000 stopped at epoch 23/30, best 0.412 (It was told to)",
        "trial 001 failed at epoch 0/30 (It broke.)",
    ]


def test_a_run_away_from_a_terminal(capsys) -> None:
    clock = Clock()
    with live_run("mine", "val/dice_mean", 8, clock=clock) as tell:
        for epoch in range(9):
            clock.now = 200.0 * epoch
            tell(TrialState("000", "running", epoch, 8, 0.4))
        tell(TrialState("000", "completed", 8, 8, 0.4))
    assert capsys.readouterr().err.splitlines() == [
        "mine: epoch 3/8, best 0.400, left 17 min",
        "mine: epoch 6/8, best 0.400, left 7 min",
        "run mine completed at epoch 8/8, best 0.400",
    ]


def test_on_a_terminal_lines_come_above_the_view_and_stdout_stays_clean(
    monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setattr(sys, "stderr", terminal)
    log = logging.getLogger("of the test")
    handler = logging.StreamHandler(terminal)
    log.addHandler(handler)
    with live_view("critic", "val/dice_mean", "max", 2) as tell:
        tell(TrialState("000", "running", 0, 8, None))
        log.warning("logged meanwhile")
        print("a document")
        tell(TrialState("000", "failed", 1, 8, 0.25, "It broke."))
    assert handler.stream is terminal
    assert sys.stderr is terminal
    log.removeHandler(handler)
    seen = terminal.getvalue()
    assert capsys.readouterr().out == "a document\n"
    assert "logged meanwhile\n" in seen
    assert "trial 000 failed at epoch 1/8, best 0.250 (It broke.)\n" in seen
    assert seen.rindex("critic") > seen.rindex("It broke.")


def test_names_and_reasons_are_no_markup_and_move_no_cursor() -> None:
    hostile, harmless = "a[/b]\x1b[2J\r", r"a[/b]\x1b[2J\r"
    progress = end(run(begun(), "000", at=0, epochs=2, every=1.0), "000", "failed", 9.0, hostile)
    said = "\n".join(drawn(SweepView(replace(progress, name=hostile), 20.0), 160, 24))
    assert said.count(harmless) == 2
    assert "\x1b[2J" not in said
    said = "\n".join(drawn(RunView(replace(progress, name=hostile), 20.0), 160, 24))
    assert said.count(harmless) == 2
