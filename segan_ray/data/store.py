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

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float16, Shaped, UInt8

from segan_ray.brats import MODALITIES, REGIONS
from segan_ray.data.arrays import BRAIN_BIT, put_back
from segan_ray.data.manifest import (
    CaseRecord,
    Manifest,
    PrepareSettings,
    read_manifest,
)
from segan_ray.data.origin import Origin, origin_of
from segan_ray.errors import StoreError, said

__all__ = [
    "BRAIN_BIT", "CaseRecord", "Manifest", "PrepareSettings", "PreparedCase", "TuningCases",
    "check_tunable", "open_for_tuning", "open_gate", "open_test", "read_manifest",
]  # fmt: skip


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
        self, boxed: Shaped[np.ndarray, "region slice height width"]
    ) -> Shaped[np.ndarray, "region x y z"]:
        """Put maps of the stored box back where they came from; all else is background."""
        x, y, z = (
            slice(start, start + length)
            for start, length in zip(self.record.origin, self.record.size, strict=True)
        )
        return put_back(boxed, (x, y, z), self.record.shape)


@dataclass(frozen=True)
class TuningCases:
    """What training and tuning may see of a store: no gate patient, no test patient."""

    origin: Origin
    train: tuple[PreparedCase, ...]
    val: tuple[PreparedCase, ...]

    @property
    def fingerprint(self) -> str:
        """Which store it is."""
        return self.origin.store


def open_for_tuning(store: Path, fold: int | None = None) -> TuningCases:
    """Open the train and val patients of ``store``, as its single split or ``fold`` has them.

    Raises:
        StoreError: if there is no whole store of this version, it has no such fold, or train
            or val lack truth.
    """
    manifest = read_manifest(store)
    train, val = _sides(manifest, str(store), fold)
    return TuningCases(
        origin_of(manifest),
        _with_truth(store, manifest, "train", train),
        _with_truth(store, manifest, "val", val),
    )


def check_tunable(manifest: Manifest, where: str, fold: int | None = None) -> None:
    """Make sure that the store of ``manifest`` can be opened for tuning, opening no array.

    Raises:
        StoreError: if it has no such fold, or train or val lack truth.
    """
    for name, patients in zip(("train", "val"), _sides(manifest, where, fold), strict=True):
        _records_with_truth(manifest, where, name, patients)


def open_gate(store: Path) -> tuple[PreparedCase, ...]:
    """Open the gate patients of ``store``, empty if it was made without; for promotion alone."""
    manifest = read_manifest(store)
    patients = manifest.splits["gate"]
    return _with_truth(store, manifest, "gate", patients) if patients else ()


def open_test(store: Path, patients: tuple[str, ...] | None = None) -> tuple[PreparedCase, ...]:
    """Open the test patients of ``store``, or those that a split file says; for evaluation alone.

    Whether a model has seen them is for the evaluation to check.
    """
    manifest = read_manifest(store)
    tested = manifest.splits["test"] if patients is None else patients
    return _with_truth(store, manifest, "test", tested)


def _sides(
    manifest: Manifest, where: str, fold: int | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the patients that train and those that validate."""
    if fold is None:
        return manifest.splits["train"], manifest.splits["val"]
    if not manifest.folds:
        raise StoreError(
            f"The store {where} has no folds, data.fold is {fold}. Prepare a store with "
            "--folds, or leave data.fold out."
        )
    if not 0 <= fold < len(manifest.folds):
        raise StoreError(
            f"The store {where} has folds 0 to {len(manifest.folds) - 1}, data.fold is {fold}."
        )
    return manifest.folds[fold].train, manifest.folds[fold].val


def _with_truth(
    store: Path, manifest: Manifest, side: str, patients: tuple[str, ...]
) -> tuple[PreparedCase, ...]:
    records = _records_with_truth(manifest, str(store), side, patients)
    return tuple(PreparedCase(record, store / "cases" / record.case) for record in records)


def _records_with_truth(
    manifest: Manifest, where: str, side: str, patients: tuple[str, ...]
) -> tuple[CaseRecord, ...]:
    wanted = set(patients)
    found = tuple(
        record for record in manifest.cases if record.patient in wanted and record.has_truth
    )
    if not found:
        raise StoreError(f"The store {where} has no {side} case with a segmentation.")
    return found


def _open_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be read ({said(error)}). Prepare the store again."
        ) from None
    except (ValueError, EOFError):
        raise StoreError(f"{path}: is damaged. Prepare the store again.") from None
    if array.shape != shape:
        raise StoreError(
            f"{path}: has shape {array.shape}, the manifest says {shape}. Prepare the store again."
        )
    return array
