"""Leakage: a model is never tested on patients it was trained or chosen with.

A scan is recognised by its voxels, whatever its patient is called.
"""

from __future__ import annotations

from collections.abc import Sequence

from segan_ray.data.store.manifest import CaseRecord, PrepareSettings
from segan_ray.data.store.origin import Origin, millimetres
from segan_ray.errors import SplitError


def refuse_seen(model: str, origin: Origin, records: Sequence[CaseRecord]) -> None:
    """Make sure that ``model`` has seen no scan of the patients it is to be tested on.

    ``records`` are all cases of those patients. A patient counts as seen if one scan was.

    Raises:
        SplitError: naming every patient it has seen, or because the model cannot tell.
    """
    if origin.of_whole_grids:
        raise SplitError(
            f"{model} was trained by an older segan-ray, which knew scans by other checksums: "
            "whether it has seen these test patients cannot be told. Prepare its data and train "
            "it again."
        )
    tested = {record.patient for record in records}
    seen = sorted({record.patient for record in records if origin.knows(record)})
    if seen:
        raise SplitError(
            f"{model} was trained or chosen with scans of {len(seen)} of these {len(tested)} test "
            f"patients: {', '.join(seen)}.\nName others with --split-file, or evaluate it on the "
            "store it was trained on: a score on what a model has seen says nothing."
        )


def namesakes(origin: Origin, records: Sequence[CaseRecord]) -> tuple[str, ...]:
    """Return the patients who share a name with one that the model has seen."""
    return tuple(sorted({record.patient for record in records} & origin.seen.keys()))


def cautions(
    model: str, origin: Origin, settings: PrepareSettings, records: Sequence[CaseRecord]
) -> tuple[str, ...]:
    """Return the cautions to a reader of the scores of ``model``, a line each."""
    lines = []
    if same := namesakes(origin, records):
        lines.append(
            f"Note: {model} was trained or chosen with patients called {', '.join(same)} too; the "
            "scans differ, so these are scored. If they are the same people, leave them out."
        )
    if settings != origin.preparation:
        lines.append(
            f"Note: {model} was trained on scans prepared with {_settings(origin.preparation)}; "
            f"this store was prepared with {_settings(settings)}."
        )
    unlike = [record for record in records if not origin.is_used_to(record.spacing_mm)]
    if unlike:
        first = unlike[0]
        lines.append(
            f"Note: {model} was trained on voxels of {origin.spacing_words()}; {len(unlike)} of "
            f"these {len(records)} cases have others ({first.case}: "
            f"{millimetres(first.spacing_mm)})."
        )
    return tuple(lines)


def _settings(settings: PrepareSettings) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.model_dump().items())
