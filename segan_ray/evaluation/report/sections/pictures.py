"""Best, median and worst case as pictures, with true and predicted outlines."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from segan_ray.brats import REGIONS
from segan_ray.evaluation.report.content import SweepReport
from segan_ray.evaluation.report.page import Section, esc, missing
from segan_ray.evaluation.report.words import REGION_NAMES, chip

TITLE: Final = "Truth and prediction"
NAMES: Final = {"best": "Best patient", "median": "Median patient", "worst": "Worst patient"}
VIEW: Final = "segan-ray view DATA/CASE LABELS/CASE.nii.gz --out CASE.html"
PNG_HEAD: Final = struct.Struct(">8s4x4sII")
PNG_SIGN: Final = b"\x89PNG\r\n\x1a\n"


def pictures(report: SweepReport) -> Section:
    """Show the evaluated model's cases, or the best trial's validation slices until there are."""
    why = "Best, median and worst test case are drawn by an evaluation:"
    todo = missing(why, "segan-ray evaluate champion STORE")
    if report.showcase:
        shown = _showcase(report.showcase) + _viewed(report)
        return Section("pictures", TITLE, shown, "Pictures")
    if report.overlay_png is not None:
        return Section("pictures", TITLE, todo + _validation(report), "Pictures")
    return Section("pictures", TITLE, todo, "Pictures")


def _showcase(pngs: Mapping[str, bytes]) -> str:
    places: dict[bytes, list[str]] = {}
    for place in sorted(pngs, key=list(NAMES).index):
        places.setdefault(pngs[place], []).append(NAMES[place])
    figures = "".join(
        _figure(png, " and ".join(names), index)
        for index, (png, names) in enumerate(places.items())
    )
    return (
        "<p>By mean Dice over the regions: T1, T1ce, T2 and FLAIR of the slice with most tumour, "
        "true or predicted. Solid lines are what experts drew, dashed lines what the model "
        f"predicts.</p><p>{_keys()}</p>{figures}"
    )


def _viewed(report: SweepReport) -> str:
    """Return links to the pages of cases beside the report, and how to make more of them."""
    links = ", ".join(
        f'<a href="{esc(quote(f"{case}.html"))}">{esc(case)}</a>' for case in report.case_pages
    )
    there = f"In slices and 3-D, on pages with patients' images: {links}. " if links else ""
    return (
        f"<p>{there}To make a page of a case in slices and 3-D: <code>{esc(VIEW)}</code>. A report "
        "that is written beside such pages links them.</p>"
    )


def _figure(png: bytes, name: str, index: int) -> str:
    """Return the picture as two halves, beside each other or, on a phone, above each other.

    The picture is in the page once: the second half refers to the first's.
    """
    source = f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
    said = f"{name}: four modalities of one slice with true and predicted outlines"
    size = png_size(png)
    if size is None:
        shown = f'<img src="{source}" alt="{said}">'
    else:
        (width, height), half = size, size[0] / 2
        box = f'class="half" viewBox="0 0 {half:g} {height}" role="img"'
        shown = (
            f'<div class="halves"><svg {box} aria-label="{said}">'
            f'<image id="picture-{index}" href="{source}" width="{width}" height="{height}"/></svg>'
            f'<svg {box} aria-label="{said}, continued">'
            f'<use href="#picture-{index}" x="{-half:g}"/></svg></div>'
        )
    return f'<figure class="case"><h3>{name}</h3>{shown}</figure>\n'


def png_size(png: bytes) -> tuple[int, int] | None:
    """Return width and height of a PNG, or None of what is none."""
    if len(png) < PNG_HEAD.size:
        return None
    sign, head, width, height = PNG_HEAD.unpack_from(png)
    return (width, height) if (sign, head) == (PNG_SIGN, b"IHDR") else None


def _keys() -> str:
    return "".join(
        f'<span class="key">{chip(region)}{REGION_NAMES[region]}</span>' for region in REGIONS
    )


def _validation(report: SweepReport) -> str:
    best: Any = report.sweep.best
    whose = f"trial {esc(best.trial)}" if best else "the best trial"
    picture = base64.b64encode(report.overlay_png or b"").decode("ascii")
    return (
        f'<figure class="case"><img src="data:image/png;base64,{picture}" alt="Slices of '
        "validation patients with outlined tumour regions: on the left as experts drew them, on "
        f'the right as {whose} predicts them.">\n<figcaption>{_keys()}<br>Outlines on slices of '
        f"validation patients, truth beside the prediction of {whose}. The slices are those with "
        "the most tumour, and the same for every trial.</figcaption></figure>"
    )
