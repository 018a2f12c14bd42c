"""All that the page of a sweep shows, before it is a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from segan_ray.search.results.ranking import SweepRecord


@dataclass(frozen=True)
class Promoted:
    """A registered model of the sweep, and what the gate said of it.

    ``difference`` is ``{"mean", "ci95": [lo, hi]}`` of mean Dice against the champion it met, or
    None where there was none to compare with; ``ci95`` is None where the patients were too few.
    """

    version: str
    aliases: tuple[str, ...]
    trial: str
    verdict: str
    difference: Mapping[str, Any] | None
    forced: bool = False
    optimistic: bool = False


@dataclass(frozen=True)
class SweepReport:
    """All that the page of one sweep shows.

    ``space`` is the text of its file; ``histories`` hold (epoch, objective) of each trial;
    ``overlay_png`` shows the best trial on validation slices; ``evaluation`` is the newest
    ``evaluate`` document of a model of the sweep and ``showcase`` its pictures, PNGs by place
    (best, median, worst); ``provenance`` are facts by what they are called. ``case_pages`` are the
    evaluated cases that ``segan-ray view`` has made a page of, beside the report.
    """

    sweep: SweepRecord
    space: str
    histories: Mapping[str, Sequence[tuple[int, float]]]
    overlay_png: bytes | None
    evaluation: Mapping[str, Any] | None
    provenance: Mapping[str, str]
    showcase: Mapping[str, bytes] = field(default_factory=dict)
    promoted: Sequence[Promoted] = ()
    case_pages: Sequence[str] = ()
