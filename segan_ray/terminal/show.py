"""Printing: documents and tables on stdout, progress and notes on stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from segan_ray.errors import visible
from segan_ray.redaction import mask
from segan_ray.terminal.notebook import drawn_below, in_notebook

MOST_ALIKE: Final = 5
WIDE: Final = 12
"""Wider columns are left out first if a table does not fit."""


def document(content: Mapping[str, Any]) -> None:
    """Print one JSON document on stdout."""
    print(json.dumps(content, indent=2, allow_nan=False))


def plain(text: object) -> str:
    """Return one line for people, with passwords masked and control characters escaped."""
    return visible(mask(str(text)))


def prose(text: object) -> str:
    """Do as ``plain`` with a text of one or more lines."""
    return visible(mask(str(text)), keep="\n")


def say(text: str) -> None:
    """Print a text for people on stdout."""
    print(prose(text), flush=True)


def note(text: str) -> None:
    """Print a text for people on stderr."""
    print(prose(text), file=sys.stderr, flush=True)


def invite(what: str, address: str, then: str) -> None:
    """Print an address on stderr as it is, with the token that its reader needs to open it."""
    print(f"{plain(what)}: {address} ({plain(then)})", file=sys.stderr, flush=True)


def passed_on(piece: str, stream: TextIO) -> None:
    """Print another program's output with its lines and tabs, other control characters escaped.

    The job of another user could otherwise move the cursor or rewrite lines.
    """
    print(visible(piece, keep="\n\t"), end="", file=stream, flush=True)


def notes(
    lines: Sequence[str],
    put: Callable[[str], None] = note,
    most: int = MOST_ALIKE,
    rest: str = "inspect --json lists them all",
) -> None:
    """Print lines for people; of lines that differ only in names, the first few and a count."""
    kinds: dict[str, list[str]] = {}
    for line in lines:
        kinds.setdefault(re.sub(r"\S*[/\d]\S*", "", line)[:60], []).append(line)
    for alike in kinds.values():
        for line in alike[:most]:
            put(plain(line))
        if len(alike) > most:
            put(f"... and {len(alike) - most} more like this; {rest}.")


@contextmanager
def noting() -> Iterator[Callable[[str], None]]:
    """Yield a function that takes notes on left-out runs; they are printed at the end."""
    lines: list[str] = []
    try:
        yield lines.append
    finally:
        notes(lines, rest="mend those, and the next are named")


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    essential: int | None = None,
) -> list[str]:
    """Print a table on stdout; columns after the first are aligned right.

    If the terminal is too narrow, columns after the first ``essential`` are left out, and their
    names are returned.
    """
    # Users' files and settings may have names like [/b], which Rich would read as markup.
    texts = [["–" if cell is None else plain(cell) for cell in row] for row in rows]
    title, columns = plain(title), [plain(column) for column in columns]
    console = Console(highlight=False)
    # Outside a terminal, lines may be as long as they need.
    width = console.width if sys.stdout.isatty() else sys.maxsize
    shape = lay_out(columns, texts, width, len(columns) if essential is None else essential)
    # A table that fits needs no folding, and Rich is slow for thousands of rows.
    if _widths(shape.headers, _longest(texts, shape.shown), shape.gap) - shape.gap <= width:
        _print_lines(console, title, shape, texts)
        return [name for index, name in enumerate(columns) if index not in shape.shown]
    grid = Table(
        box=None,
        pad_edge=False,
        header_style="bold",
        padding=(0, shape.gap, 0, 0),
    )
    for index, header in zip(shape.shown, shape.headers, strict=True):
        grid.add_column(
            Text(header),
            justify="right" if index else "left",
            vertical="bottom",
            overflow="fold",
        )
    for row in texts:
        grid.add_row(*(Text(row[index]) for index in shape.shown))
    # Rich would break a title of the table at the table's width.
    console.print(Text(title, style="table.title"), soft_wrap=True)
    console.print(grid)
    return [name for index, name in enumerate(columns) if index not in shape.shown]


def _print_lines(
    console: Console, title: str, shape: TableLayout, rows: Sequence[Sequence[str]]
) -> None:
    """Print a table that needs no folding; Rich itself would take a millisecond a row."""
    headers = [header.split("\n") for header in shape.headers]
    height = max(map(len, headers))
    head = zip(*([""] * (height - len(lines)) + lines for lines in headers), strict=True)
    cells = [[row[index] for index in shape.shown] for row in rows]
    widths = [
        max(map(cell_len, [*lines, *(row[position] for row in cells)]))
        for position, lines in enumerate(headers)
    ]
    # Rich would break a title of the table at the table's width.
    console.print(Text(title, style="table.title"), soft_wrap=True)
    for line in head:
        console.print(Text(_line(line, widths, shape.gap), style="bold"), soft_wrap=True)
    console.file.write("".join(f"{_line(row, widths, shape.gap)}\n" for row in cells))
    console.file.flush()


def _line(cells: Sequence[str], widths: Sequence[int], gap: int) -> str:
    """Return one line of a table, its first column aligned left and the others right."""
    blanks = [" " * (width - cell_len(cell)) for cell, width in zip(cells, widths, strict=True)]
    right = [blank + cell for cell, blank in zip(cells, blanks, strict=True)]
    return (" " * gap).join([cells[0] + blanks[0], *right[1:]])


def _longest(rows: Sequence[Sequence[str]], shown: Sequence[int]) -> list[int]:
    """Return the width of the widest cell of each column, in characters of a terminal."""
    return [max((cell_len(row[index]) for row in rows), default=0) for index in shown]


@dataclass(frozen=True)
class TableLayout:
    """The indices of the columns shown, their headers, and the gap between columns."""

    shown: tuple[int, ...]
    headers: tuple[str, ...]
    gap: int


def lay_out(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, essential: int
) -> TableLayout:
    """Return the most readable layout in which a table is at most ``width`` wide.

    First headers are broken into lines, then columns move together, then columns after the first
    ``essential`` are left out.
    """
    values = [max((len(row[index]) for row in rows), default=0) for index in range(len(columns))]
    stacked = [_stack(name, value) for name, value in zip(columns, values, strict=True)]
    everything = tuple(range(len(columns)))
    for headers, gap in ((tuple(columns), 2), (tuple(stacked), 2)):
        if _widths(headers, values, gap) - gap <= width:
            return TableLayout(everything, headers, gap)
    shown = list(everything)
    widths = [_widths([name], [value], 1) for name, value in zip(stacked, values, strict=True)]
    # Wide columns first, since a list takes the space of several others; then from the last.
    for index in sorted(
        everything[essential:], key=lambda column: (widths[column] <= WIDE, -column)
    ):
        if sum(widths[column] for column in shown) - 1 > width:
            shown.remove(index)
    return TableLayout(tuple(shown), tuple(stacked[index] for index in shown), 1)


def short_names(paths: Sequence[str]) -> list[str]:
    """Return the last parts of dotted paths, as few as tell each path from all others."""

    def shortest(path: str) -> str:
        parts = path.split(".")
        for count in range(1, len(parts)):
            end = ".".join(parts[-count:])
            if sum(f".{other}".endswith(f".{end}") for other in paths) == 1:
                return end
        return path

    return [shortest(path) for path in paths]


@contextmanager
def progress(
    what: str, total: int | None, *, drawn: bool = True
) -> Iterator[Callable[[str], None]]:
    """Show a bar on stderr while work goes on; the yielded function counts one item done.

    In a notebook it is below the cell. ``total`` is None if the number of items is not known yet.
    """
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[item]}", markup=False),
        console=Console(stderr=True),
        disable=not (drawn and sys.stderr.isatty()),
        transient=True,
    )
    below = drawn and in_notebook()
    with bar, drawn_below(bar.get_renderable, stays=False) if below else nullcontext():
        task = bar.add_task(what, total=total, item="")
        yield lambda item: bar.update(task, advance=1, item=plain(item))


def figure(value: float | None) -> str:
    """Return a score with three digits."""
    return "–" if value is None else f"{value:.3f}"


def setting(value: object) -> str:
    """Return a drawn setting in few characters, with two or three significant digits."""
    if isinstance(value, float):
        text = f"{value:.2g}" if abs(value) < 10 else f"{value:.3g}"
        return re.sub(r"e([+-])0*", lambda sign: "e" + sign[1].strip("+"), text)
    if isinstance(value, list | tuple):
        return " ".join(setting(item) for item in value)
    return "–" if value is None else str(value)


def _stack(name: str, width: int) -> str:
    """Break a dotted or underscored name into lines no wider than its values, if possible."""
    parts = re.findall(r"[^._]+[._]?", name) or [name]
    width = max(width, *(len(part.removesuffix(".")) for part in parts))
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1] + part) <= width:
            lines[-1] += part
        else:
            lines.append(part)
    return "\n".join(line.removesuffix(".") for line in lines)


def _widths(headers: Sequence[str], values: Sequence[int], gap: int) -> int:
    return sum(
        max(value, *map(len, header.split("\n"))) + gap
        for header, value in zip(headers, values, strict=True)
    )
