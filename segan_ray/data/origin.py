"""What a network was trained on: kept beside its weights, so that both travel together.

Three things depend on it: a raw case must be prepared as those of the store were, a label map
is written in a year's code, and nobody may be tested whom the network has seen.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from segan_ray.data.manifest import CaseRecord, Manifest, PrepareSettings
from segan_ray.errors import CheckpointError

ORIGIN: Final = "origin.json"
_WHOLE_GRID: Final = re.compile("[0-9a-f]{64}")


class Origin(BaseModel):
    """The store of a network, how it was prepared, and which scans it was chosen with.

    ``seen`` maps a patient of train, val or gate to the SHA-256 of the voxels of each of its
    cases: a scan is known again under another name, in another store or layout.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str
    layout: str
    preparation: PrepareSettings
    seen: dict[str, tuple[str, ...]]

    def knows(self, record: CaseRecord) -> bool:
        """Tell whether the network was trained or chosen with the scan of a case."""
        return any(record.voxels_sha256 in scans for scans in self.seen.values())

    @property
    def of_whole_grids(self) -> bool:
        """Tell whether scans are known by all voxels of their grid, as up to store version 2.

        The checksums of a store since then are of the brain alone: none equals these.
        """
        return any(_WHOLE_GRID.fullmatch(scan) for scans in self.seen.values() for scan in scans)


def origin_of(manifest: Manifest) -> Origin:
    """Return what is to be said of a network trained on the store of ``manifest``.

    The patients of all folds are its train and val patients, so a fold says nothing more.
    """
    chosen = {p for side in ("train", "val", "gate") for p in manifest.splits[side]}
    seen: dict[str, tuple[str, ...]] = {}
    for case in manifest.cases:
        if case.patient in chosen:
            seen[case.patient] = (*seen.get(case.patient, ()), case.voxels_sha256)
    return Origin(
        store=manifest.fingerprint,
        layout=manifest.layout,
        preparation=manifest.settings,
        seen=seen,
    )


def write_origin(folder: Path, origin: Origin) -> None:
    """Write ``origin`` into the folder of a checkpoint."""
    (folder / ORIGIN).write_text(origin.model_dump_json(indent=1), encoding="utf-8")


def read_origin(folder: Path) -> Origin:
    """Return what the network of a checkpoint was trained on.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    path = folder / ORIGIN
    try:
        return Origin.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder}: no {ORIGIN}, which says what the network was trained on. It was made by "
            "an older segan-ray: train it again."
        ) from None
    except (OSError, ValueError, ValidationError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}).") from None
