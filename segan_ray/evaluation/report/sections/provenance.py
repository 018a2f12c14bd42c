"""Provenance: where the numbers come from, and how to get them again."""

from __future__ import annotations

from segan_ray.evaluation.report.content import SweepReport
from segan_ray.evaluation.report.page import Section, esc, facts, missing


def provenance(report: SweepReport) -> Section:
    """Show store, versions, commit and commands."""
    if not report.provenance:
        why = "Nothing is recorded of where this sweep was run."
        return Section("provenance", "Provenance", missing(why))
    rows = [(esc(name), _fact(name, value)) for name, value in report.provenance.items()]
    return Section("provenance", "Provenance", facts(rows, "Provenance"))


def _fact(name: str, value: str) -> str:
    """Return commands and other long texts as blocks that can be copied whole."""
    is_block = "\n" in value or "command" in name.lower()
    return f"<pre><code>{esc(value)}</code></pre>" if is_block else esc(value)
