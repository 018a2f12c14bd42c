"""Following a sweep or a run: on a terminal a view that stays in place, elsewhere quiet lines.

Both are functions that take events; the sweep calls them. All of it goes to stderr; stdout is for
documents. In a notebook the view is below the cell.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live

from segan_ray.search.results.needs import rough
from segan_ray.search.results.ranking import said_status
from segan_ray.search.results.trial_state import OnState, SweepEvent, TrialState
from segan_ray.terminal import show
from segan_ray.terminal.live_table import (
    RunView,
    SweepView,
    first_estimate,
    gain_parts,
    progress_parts,
)
from segan_ray.terminal.notebook import drawn_below, in_notebook
from segan_ray.terminal.show import figure
from segan_ray.terminal.sweep_progress import SweepProgress
from segan_ray.training.epoch_record import Mode

Clock = Callable[[], float]
View = Callable[[SweepProgress, float], RenderableType]

REFRESHES_PER_SECOND: Final = 2
UNDER_WAY: Final = ("running", "paused", "pending")
QUIET_S: Final = 600.0
"""Away from a terminal, progress is printed at most this often."""


@contextmanager
def live_view(
    name: str,
    metric: str,
    mode: Mode,
    trials: int,
    *,
    price: float | None = None,
    clock: Clock = time.monotonic,
) -> Iterator[OnState]:
    """Show a sweep of ``trials`` trials while the block runs; yield what takes its events.

    ``price`` is that of a GPU hour.
    """
    begin = SweepProgress(name, metric, mode, trials, clock(), price=price)
    with _follow(begin, SweepView, _ended_trial, _how_far, clock) as on_event:
        # In a notebook stderr is for what went wrong, and the view has this too.
        estimated = in_notebook()

        def take(event: SweepEvent) -> None:
            nonlocal estimated
            on_event(event)
            said = None if estimated else first_estimate(on_event.progress, clock())
            if said is not None:
                estimated = True
                show.note(said)

        yield take


@contextmanager
def live_run(
    name: str, metric: str, epochs: int, *, clock: Clock = time.monotonic
) -> Iterator[OnState]:
    """Show a single run of ``epochs`` epochs while the block runs; yield what takes its events."""
    begin = SweepProgress(name, metric, "max", 1, clock())

    def ended(event: TrialState) -> str:
        return _ending(f"run {name}", event)

    def how_far(progress: SweepProgress, now: float) -> str:
        run = next(iter(progress.trials.values()))
        parts = [f"epoch {run.state.epoch}/{epochs}", f"best {figure(run.state.score)}"]
        parts.append(f"left {rough(run.left_s(now))}")
        return f"{name}: {', '.join(parts)}"

    with _follow(begin, RunView, ended, how_far, clock) as on_event:
        yield on_event


class Follower:
    """Takes events and keeps the progress that they add up to.

    The progress is replaced whole, so the thread that draws it never sees half of a change.
    """

    def __init__(self, progress: SweepProgress, clock: Clock) -> None:
        self.progress = progress
        self.clock = clock

    def __call__(self, event: SweepEvent) -> None:
        """Take in an event."""
        self.progress = self.progress.after(event, self.clock())


class TerminalView(Follower):
    """Says beside the view what stays on the screen, as the view may soon have no line for it."""

    def __init__(
        self, progress: SweepProgress, clock: Clock, ended: Callable[[TrialState], str]
    ) -> None:
        super().__init__(progress, clock)
        self._ended = ended

    def __call__(self, event: SweepEvent) -> None:
        """Take in an event."""
        super().__call__(event)
        if isinstance(event, TrialState) and (event.warning or event.status == "failed"):
            show.note(self._ended(event))


class LineReporter(Follower):
    """Prints, away from a terminal, how trials end, and now and then how far the sweep is."""

    def __init__(
        self,
        progress: SweepProgress,
        clock: Clock,
        ended: Callable[[TrialState], str],
        how_far: Callable[[SweepProgress, float], str],
    ) -> None:
        super().__init__(progress, clock)
        self._ended = ended
        self._how_far = how_far
        self._told_s = clock()

    def __call__(self, event: SweepEvent) -> None:
        """Take in an event, and say what there is to say."""
        super().__call__(event)
        if isinstance(event, TrialState) and (event.warning or event.status not in UNDER_WAY):
            show.note(self._ended(event))
        now = self.clock()
        counts = self.progress.counts
        if now - self._told_s >= QUIET_S and counts["running"] + counts["pending"]:
            self._told_s = now
            show.note(self._how_far(self.progress, now))


@contextmanager
def _follow(
    begin: SweepProgress,
    view: View,
    ended: Callable[[TrialState], str],
    how_far: Callable[[SweepProgress, float], str],
    clock: Clock,
) -> Iterator[Follower]:
    console = Console(stderr=True, highlight=False)
    on_terminal = sys.stderr.isatty() and console.is_terminal and not console.is_dumb_terminal
    if not (on_terminal or in_notebook()):
        yield LineReporter(begin, clock, ended, how_far)
        return
    follower = TerminalView(begin, clock, ended)

    def now() -> RenderableType:
        return view(follower.progress, clock())

    if not on_terminal:
        with drawn_below(now, stays=True):
            yield follower
        return
    drawn = Live(
        get_renderable=now,
        console=console,
        refresh_per_second=REFRESHES_PER_SECOND,
        # Where stdout is a file, what is printed there belongs there.
        redirect_stdout=sys.stdout.isatty(),
        vertical_overflow="crop",
    )
    terminal = sys.stderr
    with drawn, _logs_above(terminal):
        yield follower


@contextmanager
def _logs_above(terminal: object) -> Iterator[None]:
    """Send handlers of Python's logging that write to the terminal through the view's stderr."""
    names = [None, *logging.root.manager.loggerDict]
    handlers = {
        handler
        for name in names
        for handler in logging.getLogger(name).handlers
        if isinstance(handler, logging.StreamHandler) and handler.stream is terminal
    }
    for handler in handlers:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler in handlers:
            handler.setStream(terminal)


def _ended_trial(event: TrialState) -> str:
    return _ending(f"trial {event.trial}", event)


def _ending(what: str, event: TrialState) -> str:
    if event.warning:
        return f"{what} {event.warning}."
    score = f", best {event.score:.3f}" if event.score is not None else ""
    reason = f" ({event.reason})" if event.reason else ""
    return f"{what} {said_status(event)} at epoch {event.epoch}/{event.epochs}{score}{reason}"


def _how_far(progress: SweepProgress, now: float) -> str:
    name, *parts = progress_parts(progress)
    return f"{name}: {', '.join([*parts, *gain_parts(progress, now)])}"
