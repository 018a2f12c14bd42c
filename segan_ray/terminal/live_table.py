"""What a sweep's standing looks like on a terminal: a heading, and a table that fits below it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from segan_ray.search.results.needs import rough
from segan_ray.search.results.ranking import TrialStatus, said_status
from segan_ray.search.results.trial_state import TrialState
from segan_ray.terminal.show import figure, plain
from segan_ray.terminal.sweep_progress import SweepProgress, TrialProgress

STYLES: Final = {
    "running": "cyan", "stopped": "dim", "failed": "red", "paused": "dim", "pending": "dim",
}  # fmt: skip
SHOWN: Final = ("running", "paused", "stopped", "failed")
TIMES_FROM: Final = 56
BAR_FROM: Final = 76
REASON_FROM: Final = 100
"""How wide a terminal must be to show the times of a trial, a bar of its epochs, its reason."""
OTHERS_WIDTH: Final = 80
"""Columns that a trial takes beside its reason, at most."""
BEST_SHOWN: Final = 3
DOT: Final = " · "


@dataclass(frozen=True)
class SweepView:
    """A sweep at the second ``now``, at most one line less than the terminal is high."""

    progress: SweepProgress
    now: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        best, *gains = gain_parts(self.progress, self.now)
        heading = [
            *_flow(progress_parts(self.progress), width),
            *_flow([f"{self.progress.metric} {best}", *gains], width),
        ]
        # However low the terminal is, a trial and the heading of its table have a line.
        heading = heading[: max(1, console.size.height - 4)]
        heading[0].stylize("bold", 0, len(plain(self.progress.name)))
        room = max(1, console.size.height - 1 - len(heading) - 1)
        trials = self.progress.trials.values()
        if not trials:
            yield Group(*heading, Text("Starting …", style="dim"))
            return
        # Air where there is room for it.
        airy = len(trials) + 1 <= room or room > 8
        room -= airy
        shown = choose(self.progress, room if len(trials) <= room else room - 1)
        left_out = Counter(trial.state.status for trial in trials if trial not in shown)
        yield Group(
            *heading,
            *([Text()] if airy else []),
            _table(self, shown, width),
            *([_more(left_out, width)] if left_out else []),
        )


@dataclass(frozen=True)
class RunView:
    """A single run at the second ``now``, in two lines."""

    progress: SweepProgress
    now: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        name = plain(self.progress.name)
        run = next(iter(self.progress.trials.values()), None)
        if run is None:
            yield Text(f"{name}{DOT}starting …", no_wrap=True, overflow="ellipsis")
            return
        parts = [name, f"{self.progress.metric} best {figure(run.state.score)}", *_notes(run.state)]
        for line in _flow(parts, options.max_width):
            line.stylize("bold", 0, len(name) if line.plain.startswith(name) else 0)
            yield line
        told = DOT.join(
            [
                f"epoch {run.state.epoch}/{run.state.epochs}",
                f"elapsed {watch(run.elapsed_s(self.now))}",
                *([f"left {watch(run.left_s(self.now))}"] if run.state.status == "running" else []),
            ]
        )
        grid = Table.grid(padding=(0, 2, 0, 0))
        bar = min(40, max(8, options.max_width - len(told) - 2))
        grid.add_row(_bar(run.state, bar), Text(told, no_wrap=True, overflow="ellipsis"))
        yield grid


def progress_parts(progress: SweepProgress) -> list[str]:
    """Return the sweep's name and how many of its trials are where."""
    counts = progress.counts
    done = progress.earlier + counts["completed"] + counts["stopped"] + counts["failed"]
    others = [f"{counts[kind]} {kind}" for kind in SHOWN if counts[kind]]
    return [plain(progress.name), f"{done} of {progress.total} done", *others]


def gain_parts(progress: SweepProgress, now: float) -> list[str]:
    """Return the best score, what stopping saved, and how long the rest may take."""
    best, saved = progress.best, progress.saved_epochs
    going = progress.counts["running"] + progress.counts["pending"]
    return [
        f"best {figure(best.state.score)} (trial {plain(best.state.trial)})" if best else "best –",
        *([f"{saved} epochs saved"] if saved else []),
        *([f"left {_left(progress, now)}"] if going else []),
    ]


def first_estimate(progress: SweepProgress, now: float) -> str | None:
    """Say what the sweep will take, as soon as its epochs are timed without the start-up."""
    needs = progress.needs(now) if progress.is_timed else None
    if needs is None:
        return None
    return f"By its first epochs {plain(progress.name)} takes about {needs.said()} more."


def choose(progress: SweepProgress, room: int) -> list[TrialProgress]:
    """Return the ``room`` trials most worth a line, in order of their names.

    That is the best, the running ones, the next best, and what ended last.
    """
    best = progress.by_score[:BEST_SHOWN]
    others = sorted(progress.trials.values(), key=lambda trial: trial.state.trial)
    wanted = [*best[:1], *progress.running, *best[1:], *progress.ended, *others]
    unique = list({trial.state.trial: trial for trial in wanted}.values())
    return sorted(unique[: max(1, room)], key=lambda trial: trial.state.trial)


def watch(seconds: float | None) -> str:
    """Return a time as a stop-watch shows it: 0:45, 4:12, 1:02:09."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _left(progress: SweepProgress, now: float) -> str:
    needs = progress.needs(now)
    return rough(None) if needs is None else needs.said()


def _flow(parts: Sequence[str], width: int) -> list[Text]:
    """Return ``parts`` on as few lines as hold them, no part broken."""
    lines = [parts[0]]
    for part in parts[1:]:
        joined = f"{lines[-1]}{DOT}{part}"
        if len(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(part)
    return [Text(line, no_wrap=True, overflow="ellipsis") for line in lines]


def _table(view: SweepView, shown: Sequence[TrialProgress], width: int) -> Table:
    timed, wide, wider = width >= TIMES_FROM, width >= BAR_FROM, width >= REASON_FROM
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("trial", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("epoch", justify="right", no_wrap=True)
    if wide:
        table.add_column("")
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("", width=4)
    if timed:
        table.add_column("elapsed", justify="right", no_wrap=True)
        table.add_column("left", justify="right", min_width=5, no_wrap=True)
    if wider:
        # Bounded, or a long reason would squeeze the columns before it.
        table.add_column("", no_wrap=True, overflow="ellipsis", max_width=width - OTHERS_WIDTH)
    best = view.progress.best
    for trial in shown:
        state = trial.state
        is_best = best is not None and state.trial == best.state.trial
        cells: list[Text | ProgressBar | str] = [
            Text(plain(state.trial)),
            said_status(state),
            f"{state.epoch}/{state.epochs}",
            *([_bar(state, 20 if wider else 12)] if wide else []),
            figure(state.score),
            "best" if is_best else "",
            *(_times(trial, view.now) if timed else []),
            *([Text(DOT.join(_notes(state)))] if wider else []),
        ]
        table.add_row(*cells, style="bold" if is_best else STYLES.get(state.status, ""))
    return table


def _bar(state: TrialState, width: int) -> ProgressBar:
    style = STYLES.get(state.status, "default")
    return ProgressBar(
        state.epochs,
        state.epoch,
        width,
        style="bright_black",
        complete_style=style,
        finished_style=style,
    )


def _times(trial: TrialProgress, now: float) -> list[str]:
    """Return the time a trial took so far, unless it ended before we looked, and has left."""
    seen = trial.ended_s is None or trial.ended_s > trial.start[0]
    return [
        watch(trial.elapsed_s(now) if seen else None),
        watch(trial.left_s(now)) if trial.state.status == "running" else "",
    ]


def _notes(state: TrialState) -> list[str]:
    retries = f"{state.retries} retries" if state.retries > 1 else "1 retry"
    return [*([retries] if state.retries else []), *([plain(state.reason)] if state.reason else [])]


def _more(left_out: Counter[TrialStatus], width: int) -> Text:
    kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(left_out.items()))
    text = f"… and {left_out.total()} more ({kinds})"
    short = text if len(text) <= width else text.partition(" (")[0]
    return Text(short, style="dim", no_wrap=True, overflow="ellipsis")
