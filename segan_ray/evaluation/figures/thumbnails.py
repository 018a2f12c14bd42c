"""Sheets of small pictures: every case of a folder at one glance, the bad ones marked.

Each case is a tile: its four modalities side by side with the outlines of the truth, its name
above and, if it is bad, its first problem in two lines below. ``ACROSS × DOWN`` tiles make a
page of less than 4 megapixels (some 2 MB as PNG); a large folder takes several pages.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from segan_ray.brats import MODALITIES, REGIONS, Modality
from segan_ray.data.inspection.folder_report import CaseReport, FolderReport
from segan_ray.data.inspection.sketches import Sketch
from segan_ray.errors import DataError
from segan_ray.evaluation.figures.palette import COLOURS, draw_outlines
from segan_ray.filesystem.atomic_files import check_folder, write_bytes

SIDE: Final = 96
ACROSS: Final = 3
DOWN: Final = 20
GAP: Final = 12
LINE: Final = 14
TILE_WIDTH: Final = SIDE * len(MODALITIES)
TILE_HEIGHT: Final = LINE + SIDE
PROBLEM_HEIGHT: Final = 2 * LINE
HEAD: Final = 2 * LINE + GAP

_PAPER: Final = (16, 16, 16)
_INK: Final = (220, 220, 220)
_FAINT: Final = (150, 150, 150)
_ALARM: Final = (255, 110, 90)


def check_sheet(path: Path) -> None:
    """Make sure that ``path`` can become a picture, before a folder is read for it.

    Raises:
        DataError: if its name does not end in .png or its folder is not there.
    """
    if path.suffix.lower() != ".png":
        raise DataError(f"{path}: expected a name that ends in .png for the pictures.")
    check_folder(path)


def write_sheets(report: FolderReport, out: Path) -> tuple[Path, ...]:
    """Draw the sketches of ``report`` into ``out``, further pages into ``<out>-2.png`` and so on.

    Raises:
        DataError: if a page cannot be written.
    """
    paths = []
    for index, page in enumerate(draw_sheets(report)):
        path = out if index == 0 else out.with_name(f"{out.stem}-{index + 1}{out.suffix}")
        encoded = io.BytesIO()
        page.save(encoded, format="PNG", optimize=True)
        write_bytes(path, encoded.getvalue())
        paths.append(path)
    return tuple(paths)


def draw_sheets(report: FolderReport) -> Iterator[Image.Image]:
    """Yield the pages of ``report``, cases in its order, left to right and down."""
    per_page = ACROSS * DOWN
    pages = [report.cases[at : at + per_page] for at in range(0, len(report.cases), per_page)]
    for number, cases in enumerate(pages, start=1):
        title = f"{report.layout}: {report.ok} good, {report.bad} bad"
        yield _page(cases, f"{title}; page {number} of {len(pages)}")


def _page(cases: Sequence[CaseReport], title: str) -> Image.Image:
    across = min(ACROSS, len(cases))
    down = -(-len(cases) // across)
    pitch = TILE_HEIGHT + GAP + (0 if all(case.ok for case in cases) else PROBLEM_HEIGHT)
    size = (GAP + across * (TILE_WIDTH + GAP), HEAD + down * pitch)
    page = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((GAP, GAP // 2), title, fill=_INK)
    left = GAP
    for name in REGIONS:
        draw.text((left, GAP // 2 + LINE), name, fill=COLOURS[name])
        left += round(draw.textlength(name)) + GAP
    for index, case in enumerate(cases):
        row, column = divmod(index, across)
        _draw_case(page, case, GAP + column * (TILE_WIDTH + GAP), HEAD + row * pitch)
    return page


def _draw_case(page: Image.Image, case: CaseReport, left: int, top: int) -> None:
    draw = ImageDraw.Draw(page)
    where = f", slice {case.sketch.position}" if case.sketch else ""
    draw.text((left, top), f"{case.case}{where}", fill=_INK if case.ok else _ALARM)
    below = top + LINE
    for column, modality in enumerate(MODALITIES):
        corner = (left + column * SIDE, below)
        if case.sketch is not None and modality in case.sketch.greys:
            page.paste(Image.fromarray(_panel(case.sketch, modality)), corner)
        else:
            draw.text((corner[0] + 4, below + SIDE // 2 - LINE // 2), "not read", fill=_FAINT)
        draw.text((corner[0] + 2, below + SIDE - LINE), modality, fill=_FAINT)
    if case.problems:
        draw.rectangle((left - 2, below - 1, left + TILE_WIDTH + 1, below + SIDE), outline=_ALARM)
        lines = _wrapped(draw, _caption(case), TILE_WIDTH)
        draw.multiline_text((left, below + SIDE + 1), lines, fill=_ALARM, spacing=1)


def _panel(sketch: Sketch, modality: Modality) -> UInt8[np.ndarray, "side side rgb"]:
    grey = sketch.greys[modality]
    panel = np.repeat(grey[..., None], 3, axis=2)
    if sketch.regions is not None and sketch.regions.shape[1:] == grey.shape:
        draw_outlines(panel, sketch.regions)
    square = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    top, left = (SIDE - grey.shape[0]) // 2, (SIDE - grey.shape[1]) // 2
    square[top : top + grey.shape[0], left : left + grey.shape[1]] = panel
    return square


def _caption(case: CaseReport) -> str:
    """Return the first problem as short as a tile needs it, and how many more there are.

    The file is named without folders and the case's name; the font knows no multiplication sign.
    """
    first = re.sub(r"^.*/(?=[^/:]+: )", "", case.problems[0]).replace("×", "x")
    first = re.sub(rf"{re.escape(case.case)}[_-]", "", first)
    more = len(case.problems) - 1
    return f"({more} more) {first}" if more else first


def _wrapped(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """Break ``text`` into at most two lines of ``width`` pixels, cut with an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer) <= width:
            lines[-1] = longer
        elif len(lines) == 1:
            lines.append(word)
        else:
            while lines[-1] and draw.textlength(f"{lines[-1]}…") > width:
                lines[-1] = lines[-1][:-1]
            lines[-1] += "…"
            break
    return "\n".join(lines)
