"""A sweep as one self-contained HTML page, to be sent to a colleague.

``SECTIONS`` is the page from top to bottom: a module each, a function from the report to a
``Section``. One without data says why and which command fills it; None is for what cannot be
of this sweep at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from segan_ray.evaluation.report.content import Promoted, SweepReport
from segan_ray.evaluation.report.page import Section, page
from segan_ray.evaluation.report.sections.curves import curves
from segan_ray.evaluation.report.sections.head import header
from segan_ray.evaluation.report.sections.history import history
from segan_ray.evaluation.report.sections.importance import importance
from segan_ray.evaluation.report.sections.leaderboard import leaderboard
from segan_ray.evaluation.report.sections.models import models
from segan_ray.evaluation.report.sections.parallel import parameters
from segan_ray.evaluation.report.sections.pareto import pareto
from segan_ray.evaluation.report.sections.patients import patients
from segan_ray.evaluation.report.sections.pictures import pictures
from segan_ray.evaluation.report.sections.previous import previous
from segan_ray.evaluation.report.sections.provenance import provenance
from segan_ray.evaluation.report.sections.space import space
from segan_ray.filesystem.atomic_files import check_folder, write_text

__all__ = ["Promoted", "SweepReport", "render_report", "write_report"]

SECTIONS: Final[tuple[Callable[[SweepReport], Section | None], ...]] = (
    space,
    models,
    previous,
    patients,
    pictures,
    leaderboard,
    history,
    importance,
    parameters,
    pareto,
    curves,
    provenance,
)


def render_report(report: SweepReport) -> str:
    """Return the page: an HTML5 document that loads nothing from anywhere."""
    sections = [made for section in SECTIONS if (made := section(report)) is not None]
    return page(f"{report.sweep.sweep}: sweep report", header(report), sections)


def write_report(report: SweepReport, out: Path) -> None:
    """Write the page to ``out``, whole or not at all, with links to pages of cases beside it.

    Raises:
        DataError: if ``out`` cannot be written.
    """
    check_folder(out)
    pages = {page.stem for page in out.parent.glob("*.html")}
    cases = [] if report.evaluation is None else report.evaluation["cases"]
    # Recorded by whoever could write there: only what is the name of a page here is one.
    beside = sorted(pages.intersection(str(case.get("case")) for case in cases))
    write_text(out, render_report(replace(report, case_pages=beside)))
