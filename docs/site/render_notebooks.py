"""Render the notebooks: ``make notebooks``, or ``python docs/site/render_notebooks.py [NAME …]``.

Each script of ``examples/`` is run in a kernel of Jupyter, in a folder of its own that all share,
and becomes a page of ``docs/examples`` with what its cells put out. Pictures, and Plotly's figures
as pictures, are in ``docs/images/examples``. With names, the pages of those alone are written; the
first is run as well, as others go on from it.
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

from nbformat import NotebookNode
from notebooks import EXAMPLES, ORDER, ROOT, read, run
from PIL import Image

PAGES: Final = "docs/examples"
PICTURES: Final = "docs/images/examples"
PLOTLY: Final = "application/vnd.plotly.v1+json"
COLUMNS: Final = 55
"""How wide views are drawn: too narrow for times, which are the machine's."""
COLOURS: Final = 128
"""Of a figure."""
_LINK: Final = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
_CONTROL: Final = re.compile(r"\x1b\[[0-9;]*m")


def note(name: str) -> str:
    """Return the line of a page that says which script it is made of."""
    return (
        f"*Made by `make notebooks` from [{name}.py](../../examples/{name}.py). To run it as a "
        f"notebook: `jupytext --to notebook {name}.py`.*"
    )


@dataclass
class Page:
    """A page that is written cell by cell, with the pictures that it shows by their names."""

    name: str
    parts: list[str] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)

    def add(self, cell: NotebookNode) -> None:
        """Add a cell and its outputs."""
        if cell.cell_type == "markdown":
            self.parts.append(relinked(cell.source))
            if len(self.parts) == 1:
                self.parts.append(note(self.name))
            return
        self.parts.append(f"```python\n{cell.source}\n```")
        for shown in outputs(cell):
            if isinstance(shown, str):
                self.parts.append(f"```text\n{shown}\n```")
            else:
                self.parts.append(self._of(shown, cell.metadata.get("picture", "")))

    def _of(self, data: Mapping[str, Any], picture: str) -> str:
        """Return what a page shows of one display: a table, Markdown, or a picture in words."""
        if PLOTLY in data:
            figure = data[PLOTLY]
            return self._picture(_few_colours(_drawn(figure)), figure["layout"]["title"]["text"])
        if "image/png" in data:
            return self._picture(base64.b64decode(data["image/png"]), picture)
        if "text/markdown" in data:
            return relinked(str(data["text/markdown"]))
        return Table.of(str(data["text/html"])).markdown()

    def _picture(self, png: bytes, words: str) -> str:
        if not words:
            raise ValueError(f'{self.name}: a cell with a picture says what it shows: picture="…"')
        file = f"{self.name}-{len(self.pictures) + 1}.png"
        self.pictures[file] = png
        return f"![{words}](../images/examples/{file})"

    def write(self, root: Path) -> None:
        """Write the page and its pictures in place of those from before."""
        pages, pictures = root / PAGES, root / PICTURES
        for folder in (pages, pictures):
            folder.mkdir(parents=True, exist_ok=True)
        for old in pictures.glob(f"{self.name}-*.png"):
            old.unlink()
        for file, png in self.pictures.items():
            (pictures / file).write_bytes(png)
        text = "\n\n".join(self.parts) + "\n"
        (pages / f"{self.name}.md").write_text(text, encoding="utf-8")


def relinked(text: str) -> str:
    """Return Markdown of ``examples/`` with its links as they are from ``docs/examples``.

    A link to another notebook leads to its page.
    """

    def moved(match: re.Match[str]) -> str:
        there = os.path.normpath(f"examples/{match[2]}")
        page = re.fullmatch(r"examples/(\w+)\.py", there)
        near = f"{page[1]}.md" if page else os.path.relpath(there, PAGES)
        return f"{match[1]}{near}{match[3]}"

    return _LINK.sub(moved, text)


def outputs(cell: NotebookNode) -> Iterator[str | Mapping[str, Any]]:
    """Yield each output of a cell that shows something: text as it is, else its data."""
    for output in cell.outputs:
        if output.output_type == "stream":
            text = str(output.text)
        elif any(kind in output.data for kind in (PLOTLY, "image/png", "text/markdown")) or (
            "<table" in output.data.get("text/html", "")
        ):
            yield output.data
            continue
        else:
            text = str(output.data.get("text/plain", ""))
        text = _CONTROL.sub("", text).strip("\n")
        if text.strip():
            yield text


@dataclass
class Table(HTMLParser):
    """A table of pandas, read from its HTML."""

    rows: list[list[str]] = field(default_factory=list)
    heads: int = 0
    _in: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    @classmethod
    def of(cls, html: str) -> Table:
        """Return the table in ``html``."""
        table = cls()
        table.feed(html)
        return table

    def handle_starttag(self, tag: str, _attrs: list[tuple[str, str | None]]) -> None:
        """Begin a row or a cell."""
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self._in = tag
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        """End a cell."""
        if tag == self._in:
            self._in = ""

    def handle_data(self, data: str) -> None:
        """Take in the text of a cell."""
        if self._in:
            self.rows[-1][-1] += data.strip()

    def markdown(self) -> str:
        """Return the table in Markdown; numbers are aligned right."""
        head, *body = self.rows
        if body and not any(body[0][1:]):
            # The name of the index has a row of its own.
            head, *body = [[body[0][0], *head[1:]], *body[1:]]
        elif not head[0] and [row[0] for row in body] == [str(at) for at in range(len(body))]:
            head, *body = [row[1:] for row in self.rows]
        numeric = [
            all(_is_number(row[column]) for row in body if column < len(row))
            for column in range(len(head))
        ]
        rule = ["---:" if each else "---" for each in numeric]
        lines = [head, rule, *body]
        return "\n".join(f"| {' | '.join(cell.replace('|', '·') for cell in x)} |" for x in lines)


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[-+–]?[\d.,eE+-]*%?", text))


def _drawn(figure: Mapping[str, Any]) -> bytes:
    """Return a figure of Plotly as a picture."""
    import plotly.graph_objects as go

    layout = {"width": 800, "height": 450, **figure["layout"]}
    png: bytes = go.Figure(figure["data"], layout).to_image(format="png", scale=1.5)
    return png


def _few_colours(png: bytes) -> bytes:
    """Return a drawing with as many colours as it needs, which makes it small."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    out = io.BytesIO()
    picture.quantize(COLOURS).save(out, "PNG", optimize=True)
    return out.getvalue()


def main() -> None:
    """Run the notebooks in their order, and write the pages that the command line names."""
    named = sys.argv[1:] or list(ORDER)
    last = max(ORDER.index(name) for name in named)
    with tempfile.TemporaryDirectory() as folder:
        for name in ORDER[: last + 1]:
            if name not in named and name != ORDER[0]:
                continue
            notebook = read(EXAMPLES / f"{name}.py")
            print(f"Running {name} …", flush=True)
            run(notebook, Path(folder), columns=COLUMNS)
            if name in named:
                page = Page(name)
                for cell in notebook.cells:
                    page.add(cell)
                page.write(ROOT)
                print(f"{PAGES}/{name}.md, {len(page.pictures)} pictures")


if __name__ == "__main__":
    main()
