"""Printing: documents and tables on stdout, progress and notes on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


def document(content: Mapping[str, Any]) -> None:
    """Print one JSON document on stdout."""
    print(json.dumps(content, indent=2, allow_nan=False))


def note(text: str) -> None:
    """Print a line for people on stderr."""
    print(text, file=sys.stderr, flush=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on stdout; columns after the first are aligned right."""
    grid = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        grid.add_row(*("–" if cell is None else str(cell) for cell in row))
    # Away from a terminal lines are as long as they need to be.
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(grid)


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show a bar on stderr while work goes on; the yielded function counts one item done."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[item]}"),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=total, item="")
        yield lambda item: bar.update(task, advance=1, item=item)


def figure(value: float | None) -> str:
    """Return a score with three digits."""
    return "–" if value is None else f"{value:.3f}"


def setting(value: object) -> str:
    """Return a drawn setting in few characters."""
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list):
        return " ".join(setting(item) for item in value)
    return "–" if value is None else str(value)
