"""From a case's files to its page, which is written whole or not at all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segan_ray.data.io.headers import ImageError, blamed_on_file
from segan_ray.data.io.label_maps import read_label
from segan_ray.data.io.volumes import geometry_warnings, read_volume
from segan_ray.data.layouts.cases import Case, Discovery
from segan_ray.errors import CaseError, DataError
from segan_ray.evaluation.viewer.case_page import render_case
from segan_ray.evaluation.viewer.shown_case import ShownCase, shown_case
from segan_ray.filesystem.atomic_files import check_folder, write_text
from segan_ray.filesystem.locations import is_page


@dataclass(frozen=True)
class CasePage:
    """The page that was written of a case, and the maps that it outlines."""

    case: str
    page: Path
    bytes: int
    maps: tuple[str, ...]
    warnings: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Return the ``view`` document."""
        return {
            "case": self.case,
            "page": str(self.page),
            "bytes": self.bytes,
            "maps": list(self.maps),
            "warnings": list(self.warnings),
        }


def write_view(discovery: Discovery, prediction: Path | None, out: Path) -> CasePage:
    """Write the page of the one case of ``discovery`` to ``out``.

    ``prediction`` is a label map on the case's grid, in the label code of its layout.

    Raises:
        DataError: for several cases, or if ``out`` cannot be such a page.
        CaseError: for scans, a truth or a prediction that cannot be read or share no grid.
    """
    _check_page(out)
    case = _only_case(discovery)
    shown = _read(case, discovery, prediction)
    page = render_case(case.case, discovery.layout.name, shown)
    write_text(out, page)
    return CasePage(
        case=case.case,
        page=out,
        bytes=len(page.encode()),
        maps=tuple(shown.maps),
        warnings=geometry_warnings(case),
    )


def _check_page(out: Path) -> None:
    # A page that is there is written anew, so no other name may pass: it could be a scan's.
    if not is_page(out):
        raise DataError(f"{out}: expected a name that ends in .html for the page.")
    check_folder(out)


def _only_case(discovery: Discovery) -> Case:
    first, *others = discovery.cases
    if not others:
        return first
    images = list(first.images.values())
    example = f", such as {images[0]}" if images else ""
    raise DataError(
        f"{discovery.folder}: holds {len(discovery.cases)} cases; a page shows one. Give the "
        f"folder of one case or one of its scans{example}."
    )


def _read(case: Case, discovery: Discovery, prediction: Path | None) -> ShownCase:
    code = discovery.layout.code
    volume = read_volume(case, code)
    label = None if prediction is None else read_label(prediction, case, code)
    try:
        with blamed_on_file():
            return shown_case(volume, label, code)
    except ImageError as error:
        raise CaseError(case.case, str(error)) from None
