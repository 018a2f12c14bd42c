"""The prepared store: memory-mapped arrays of every case, and a manifest that binds them.

::

    STORE/
      manifest.json             what is here, how it was made, who is on which side
      cases/<case>/image.npy    float16 (slice, modality, height, width), z-scored
      cases/<case>/mask.npy     uint8   (slice, height, width), one bit a region plus the brain
      cases/<case>/record.json  the case's entry of the manifest

A folder is a store only once its manifest is there, and the manifest is written last.

Who may read whom is an interface, not a convention: training and tuning open a store with
``open_for_tuning`` and get train and val patients; promotion asks ``open_gate``, evaluation
``open_test``. Nothing else hands out cases.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Float16, UInt8
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from segan_ray.brats import MODALITIES, REGIONS, Region
from segan_ray.data.cases import Grade
from segan_ray.data.splits import SPLITS, SplitName, SplitSettings
from segan_ray.errors import StoreError

STORE_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
BRAIN_BIT: Final = 1 << len(REGIONS)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PrepareSettings(_Frozen):
    """How volumes become store arrays: intensities are clipped at two percentiles."""

    clip_low: float = Field(default=0.5, ge=0, lt=50)
    clip_high: float = Field(default=99.5, gt=50, le=100)


class CaseRecord(_Frozen):
    """One case of the store.

    ``shape`` is the original grid (x, y, z) in voxels, oriented left-posterior-superior, and
    ``affine`` maps it to mm; the stored box starts at ``origin`` and is ``size`` long.
    ``tumour_voxels`` counts the whole tumour in each stored slice. ``sources`` tells the
    files it was made of apart from edited ones; ``voxels_sha256`` finds doubled scans.
    """

    case: str
    patient: str
    grade: Grade | None
    shape: tuple[int, int, int]
    origin: tuple[int, int, int]
    size: tuple[int, int, int]
    affine: tuple[tuple[float, float, float, float], ...]
    spacing_mm: tuple[float, float, float]
    has_truth: bool
    tumour_voxels: tuple[int, ...]
    region_voxels: dict[Region, int]
    checksums: dict[str, str]
    voxels_sha256: str
    sources: dict[str, str]


class SkippedCase(_Frozen):
    """A case that was left out, and why; ``sources`` as of a case, if its files could be read."""

    case: str
    problem: str
    sources: dict[str, str] = {}


class Manifest(_Frozen):
    """Everything a reader needs to know of a store."""

    version: int
    layout: str
    settings: PrepareSettings
    split_settings: SplitSettings
    cases: tuple[CaseRecord, ...]
    skipped: tuple[SkippedCase, ...]
    splits: dict[SplitName, tuple[str, ...]]
    fingerprint: str

    @model_validator(mode="after")
    def _each_patient_on_one_side(self) -> Manifest:
        sides = [patient for name in SPLITS for patient in self.splits.get(name, ())]
        patients = {case.patient for case in self.cases}
        if set(self.splits) != set(SPLITS) or sorted(sides) != sorted(patients):
            raise ValueError("every patient must be in exactly one of train, val, gate and test")
        return self


def fingerprint(
    layout: str,
    settings: PrepareSettings,
    cases: tuple[CaseRecord, ...],
    splits: dict[SplitName, tuple[str, ...]],
) -> str:
    """Return 16 hex digits that depend on content and settings, not on paths or time."""
    content: dict[str, Any] = {
        "version": STORE_VERSION,
        "layout": layout,
        "settings": settings.model_dump(),
        "cases": [
            [record.case, record.patient, record.grade, record.origin, record.checksums]
            for record in sorted(cases, key=lambda record: record.case)
        ],
        "splits": splits,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class PreparedCase:
    """One case of a store, its voxels still on disk."""

    record: CaseRecord
    folder: Path

    def image(self) -> Float16[np.ndarray, "slice modality height width"]:
        """Return the z-scored image, memory-mapped read-only."""
        x, y, z = self.record.size
        return _open_array(self.folder / "image.npy", (z, len(MODALITIES), x, y))

    def mask(self) -> UInt8[np.ndarray, "slice height width"]:
        """Return regions and brain as bits, memory-mapped read-only."""
        x, y, z = self.record.size
        return _open_array(self.folder / "mask.npy", (z, x, y))

    def truth(self) -> Bool[np.ndarray, "region x y z"]:
        """Return the true regions in the original grid."""
        boxed = np.stack([self.mask() & (1 << bit) != 0 for bit in range(len(REGIONS))])
        return self.restore(boxed)

    def restore(
        self, boxed: Bool[np.ndarray, "region slice height width"]
    ) -> Bool[np.ndarray, "region x y z"]:
        """Put maps of the stored box back where they came from; all else is background."""
        full = np.zeros((len(boxed), *self.record.shape), dtype=boxed.dtype)
        x, y, z = (
            slice(start, start + length)
            for start, length in zip(self.record.origin, self.record.size, strict=True)
        )
        full[:, x, y, z] = np.moveaxis(boxed, 1, -1)
        return full


@dataclass(frozen=True)
class TuningCases:
    """What training and tuning may see of a store: no gate patient, no test patient."""

    fingerprint: str
    train: tuple[PreparedCase, ...]
    val: tuple[PreparedCase, ...]


def open_for_tuning(store: Path) -> TuningCases:
    """Open the train and val patients of ``store``.

    Raises:
        StoreError: if there is no whole store of this version, or train or val lack truth.
    """
    manifest = read_manifest(store)
    train, val = (_with_truth(store, manifest, name) for name in ("train", "val"))
    return TuningCases(manifest.fingerprint, train, val)


def open_gate(store: Path) -> tuple[PreparedCase, ...]:
    """Open the gate patients of ``store``, empty if it was made without; for promotion alone."""
    manifest = read_manifest(store)
    return _with_truth(store, manifest, "gate") if manifest.splits["gate"] else ()


def open_test(store: Path) -> tuple[PreparedCase, ...]:
    """Open the test patients of ``store``; for evaluation alone."""
    return _with_truth(store, read_manifest(store), "test")


def read_manifest(store: Path) -> Manifest:
    """Read and check the manifest of ``store``.

    Raises:
        StoreError: if there is no store, it is unfinished, damaged or of another version.
    """
    path = store / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if store.exists():
            raise StoreError(
                f"{store} is not a prepared store: it has no {MANIFEST}. Give the folder that "
                "segan-ray prepare made, or a new name to prepare into."
            ) from None
        raise StoreError(
            f"The store {store} does not exist. Make it with: segan-ray prepare DATA {store}"
        ) from None
    except NotADirectoryError:
        raise StoreError(f"{store} is a file; expected the folder of a prepared store.") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read ({error}). Prepare the store again.") from None
    version = content.get("version") if isinstance(content, dict) else None
    if version != STORE_VERSION:
        raise StoreError(
            f"{path}: store version {version}; this segan-ray reads {STORE_VERSION}. "
            "Prepare the store again."
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"]) or "splits"
        raise StoreError(
            f"{path}: is damaged at '{where}' ({problem['msg']}). Prepare the store again."
        ) from None


def _cases(store: Path, manifest: Manifest, split: SplitName) -> tuple[PreparedCase, ...]:
    patients = set(manifest.splits[split])
    return tuple(
        PreparedCase(record, store / "cases" / record.case)
        for record in manifest.cases
        if record.patient in patients
    )


def _with_truth(store: Path, manifest: Manifest, split: SplitName) -> tuple[PreparedCase, ...]:
    cases = tuple(case for case in _cases(store, manifest, split) if case.record.has_truth)
    if not cases:
        raise StoreError(f"The store {store} has no {split} case with a segmentation.")
    return cases


def _open_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error}). Prepare the store again.") from None
    except (ValueError, EOFError):
        raise StoreError(f"{path}: is damaged. Prepare the store again.") from None
    if array.shape != shape:
        raise StoreError(
            f"{path}: has shape {array.shape}, the manifest says {shape}. Prepare the store again."
        )
    return array
