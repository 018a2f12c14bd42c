"""The origin of a network: its store and scans, kept beside its weights to travel with them.

Three things depend on it: raw cases are prepared as the store's cases were, label maps are
written in the code of the store's year, and patients that the network has seen are not tested.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from segan_ray.data.store.manifest import CaseRecord, Manifest, PrepareSettings
from segan_ray.documents import LIST_BYTES, parse_json, read_bytes
from segan_ray.errors import CheckpointError, said

ORIGIN: Final = "origin.json"
_WHOLE_GRID: Final = re.compile("[0-9a-f]{64}")
SPACING_TOLERANCE: Final = 1.1
"""The factor by which voxel sizes may differ from training without a warning."""

Spacing = tuple[float, float, float]


class Origin(BaseModel):
    """The store of a network, how it was prepared, and which scans it was chosen with.

    ``seen`` maps a patient of train, val or gate to the SHA-256 of the voxels of each of its
    cases, so a scan is recognised under another name, in another store or layout. ``spacing_mm``
    holds the smallest and the largest voxel size along each axis among those scans. It is None
    for networks trained before it was recorded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str
    """The fingerprint of the store."""
    layout: str
    """The BRATS layout of its cases, whose label code label maps are written in."""
    preparation: PrepareSettings
    """The settings of ``prepare``."""
    seen: dict[str, tuple[str, ...]]
    spacing_mm: tuple[Spacing, Spacing] | None = None

    def knows(self, record: CaseRecord) -> bool:
        """Tell whether the network was trained or chosen with the scan of a case."""
        return any(record.voxels_sha256 in scans for scans in self.seen.values())

    @property
    def of_whole_grids(self) -> bool:
        """Tell whether the checksums cover whole grids, as up to store version 2.

        Later stores have checksums of the brain alone, which never equal these.
        """
        return any(_WHOLE_GRID.fullmatch(scan) for scans in self.seen.values() for scan in scans)

    def is_used_to(self, spacing_mm: Spacing) -> bool:
        """Tell whether training had voxels of about that size; True if no size is recorded."""
        if self.spacing_mm is None:
            return True
        return all(
            smallest / SPACING_TOLERANCE <= size <= largest * SPACING_TOLERANCE
            for smallest, size, largest in zip(
                self.spacing_mm[0], spacing_mm, self.spacing_mm[1], strict=True
            )
        )

    def spacing_words(self) -> str:
        """Return the voxel sizes of training as people write them."""
        ends = [] if self.spacing_mm is None else [millimetres(end) for end in self.spacing_mm]
        return " to ".join(dict.fromkeys(ends))


def millimetres(spacing_mm: Spacing) -> str:
    """Return a voxel size as people write it, 1×1×5 mm."""
    return "×".join(f"{size:.3g}" for size in spacing_mm) + " mm"


def origin_of(manifest: Manifest) -> Origin:
    """Return the origin of a network trained on the store of ``manifest``.

    Each fold divides the same train and val patients, so the origin does not name a fold.
    """
    chosen = {p for side in ("train", "val", "gate") for p in manifest.splits[side]}
    seen: dict[str, tuple[str, ...]] = {}
    sizes = []
    for case in manifest.cases:
        if case.patient in chosen:
            seen[case.patient] = (*seen.get(case.patient, ()), case.voxels_sha256)
            sizes.append(case.spacing_mm)
    return Origin(
        store=manifest.fingerprint,
        layout=manifest.layout,
        preparation=manifest.settings,
        seen=seen,
        spacing_mm=(_each_axis(min, sizes), _each_axis(max, sizes)) if sizes else None,
    )


def _each_axis(end: Callable[[tuple[float, ...]], float], sizes: list[Spacing]) -> Spacing:
    x, y, z = (end(axis) for axis in zip(*sizes, strict=True))
    return x, y, z


def write_origin(folder: Path, origin: Origin) -> None:
    """Write ``origin`` into the folder of a checkpoint."""
    (folder / ORIGIN).write_text(origin.model_dump_json(indent=1), encoding="utf-8")


def read_origin(folder: Path) -> Origin:
    """Return the origin of the network of a checkpoint.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    path = folder / ORIGIN
    try:
        return Origin.model_validate(parse_json(read_bytes(path, LIST_BYTES)))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder}: no {ORIGIN}, which says what the network was trained on. It was made by "
            "an older segan-ray: train it again."
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({said(error)}).") from None
