"""Drawing below a notebook's cell: one output, drawn again in place and saved with the notebook.

Rich's own views need widgets there, which a saved notebook does not keep, and empty the output of
the cell that they are in.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from threading import Event, Thread
from typing import Final

from rich.color_triplet import ColorTriplet
from rich.console import Console, RenderableType
from rich.terminal_theme import DEFAULT_TERMINAL_THEME

REDRAWN_EVERY_S: Final = 0.5
PRE: Final = (
    '<pre style="white-space:pre;overflow-x:auto;line-height:normal;'
    "font-family:Menlo,'DejaVu Sans Mono',consolas,'Courier New',monospace\">{code}</pre>"
)
EMPTY: Final = {"text/plain": "", "text/html": ""}
THEME: Final = copy.copy(DEFAULT_TERMINAL_THEME)
# Notebooks are light or dark, and a grey is seen on both.
THEME.foreground_color = ColorTriplet(128, 128, 128)


def in_notebook() -> bool:
    """Tell whether what is displayed appears below a notebook's cell."""
    return Console().is_jupyter


@contextmanager
def drawn_below(view: Callable[[], RenderableType], *, stays: bool) -> Iterator[None]:
    """Draw ``view()`` below the cell while the block runs, again twice a second.

    Its last state ``stays`` there, or nothing does.
    """
    from IPython.display import display

    output = display(_frame(view()), raw=True, display_id=True)
    ended = Event()

    def redraw() -> None:
        while not ended.wait(REDRAWN_EVERY_S):
            output.update(_frame(view()), raw=True)

    # In the context of the cell, by which its outputs are told from those of other cells.
    thread = Thread(target=copy_context().run, args=(redraw,), name="notebook-view", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        output.update(_frame(view()) if stays else EMPTY, raw=True)


def _frame(view: RenderableType) -> dict[str, str]:
    """Return what is displayed of ``view``, as HTML and as text."""
    size = Console()  # of a notebook, as JUPYTER_COLUMNS and JUPYTER_LINES say
    console = Console(
        file=io.StringIO(), record=True, width=size.width, height=size.height, highlight=False,
        force_jupyter=False, force_terminal=True, color_system="truecolor", legacy_windows=False,
    )  # fmt: skip
    console.print(view)
    html = console.export_html(theme=THEME, code_format=PRE, inline_styles=True, clear=False)
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    return {"text/plain": "\n".join(lines), "text/html": html}
