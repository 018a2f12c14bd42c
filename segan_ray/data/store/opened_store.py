"""The prepared store: memory-mapped arrays of every case, and a manifest that binds them.

::

    STORE/
      manifest.json             the cases, the settings, the split of the patients
      cases/<case>/image.npy    float16 (slice, modality, height, width), z-scored
      cases/<case>/mask.npy     uint8   (slice, height, width), one bit a region plus the brain
      cases/<case>/record.json  the case's entry of the manifest

A folder is a store only once its manifest is there, and the manifest is written last. Reading
the manifest checks its fingerprint. Opening cases checks the types, shapes and lengths of their
arrays. A process compares an array's SHA-256 when it first reads it.

The interface separates the patients: training and tuning open a store with ``open_for_tuning``
and get train and val patients; promotion calls ``open_gate``, evaluation ``open_test``. No other
function hands out cases.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from tokenize import TokenError
from typing import Any, Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float16, Shaped, UInt8

from segan_ray.brats import MODALITIES, REGIONS
from segan_ray.data.store.arrays import BRAIN_BIT, put_back
from segan_ray.data.store.manifest import (
    CaseRecord,
    Manifest,
    PrepareSettings,
    read_manifest,
)
from segan_ray.data.store.origin import Origin, origin_of
from segan_ray.documents import open_regular
from segan_ray.errors import StoreError, cut, said

__all__ = [
    "BRAIN_BIT", "CaseRecord", "Manifest", "PrepareSettings", "PreparedCase", "TuningCases",
    "check_tunable", "open_for_tuning", "open_gate", "open_test", "read_manifest",
]  # fmt: skip


AGAIN: Final = "Prepare the store again, or copy it anew from where it is whole."

_Stamp = tuple[str, int, int, int]
_verified: set[_Stamp] = set()
"""Arrays whose checksum this process has compared, as they were then."""


_NO_HEADER: Final = (
    OSError, EOFError, ValueError, KeyError, TypeError, SyntaxError, MemoryError, RecursionError,
    TokenError,
)  # fmt: skip
"""The errors that NumPy raises for a damaged header, which it parses as a Python literal."""


class _Promised(NamedTuple):
    """An array of a case, as the manifest describes it."""

    name: str
    kind: np.dtype[Any]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class PreparedCase:
    """One case of a store, its voxels still on disk."""

    record: CaseRecord
    folder: Path

    def image(self) -> Float16[np.ndarray, "slice modality height width"]:
        """Return the z-scored image, memory-mapped read-only."""
        image, _ = self._promised()
        return self._open(image)

    def mask(self) -> UInt8[np.ndarray, "slice height width"]:
        """Return regions and brain as bits, memory-mapped read-only."""
        _, mask = self._promised()
        return self._open(mask)

    def check_headers(self) -> None:
        """Check the headers and lengths of both arrays against the manifest.

        Raises:
            StoreError: naming the array that differs.
        """
        for name, kind, shape in self._promised():
            _check_array(self.folder / name, kind, shape)

    def _promised(self) -> tuple[_Promised, _Promised]:
        x, y, z = self.record.size
        return (
            _Promised("image.npy", np.dtype(np.float16), (z, len(MODALITIES), x, y)),
            _Promised("mask.npy", np.dtype(np.uint8), (z, x, y)),
        )

    def _open(self, promised: _Promised) -> np.ndarray:
        path = self.folder / promised.name
        start = _check_array(path, promised.kind, promised.shape)
        _check_content(path, self.record.checksums[promised.name])
        return np.memmap(path, promised.kind, "r", start, promised.shape)

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
    """The cases that training and tuning may see: no gate patient, no test patient."""

    origin: Origin
    train: tuple[PreparedCase, ...]
    val: tuple[PreparedCase, ...]

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the store."""
        return self.origin.store


def open_for_tuning(store: Path, fold: int | None = None) -> TuningCases:
    """Open the train and val patients of ``store``, by its single split or by ``fold``.

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
    """Check that the store of ``manifest`` can be opened for tuning, without opening an array.

    Raises:
        StoreError: if it has no such fold, or train or val lack truth.
    """
    for name, patients in zip(("train", "val"), _sides(manifest, where, fold), strict=True):
        _records_with_truth(manifest, where, name, patients)


def open_gate(store: Path) -> tuple[PreparedCase, ...]:
    """Open the gate patients of ``store`` for promotion; empty if the store has none."""
    manifest = read_manifest(store)
    patients = manifest.splits["gate"]
    return _with_truth(store, manifest, "gate", patients) if patients else ()


def open_test(store: Path, patients: tuple[str, ...] | None = None) -> tuple[PreparedCase, ...]:
    """Open the test patients of ``store`` for evaluation, or the ``patients`` of a split file.

    The evaluation checks whether a model has seen them.
    """
    manifest = read_manifest(store)
    tested = manifest.splits["test"] if patients is None else patients
    return _with_truth(store, manifest, "test", tested)


def _sides(
    manifest: Manifest, where: str, fold: int | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the train and val patients of the single split, or of ``fold``."""
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
    cases = tuple(PreparedCase(record, store / "cases" / record.case) for record in records)
    for case in cases:
        case.check_headers()
    return cases


def _records_with_truth(
    manifest: Manifest, where: str, side: str, patients: tuple[str, ...]
) -> tuple[CaseRecord, ...]:
    wanted = set(patients)
    records = tuple(
        record for record in manifest.cases if record.patient in wanted and record.has_truth
    )
    if not records:
        raise StoreError(f"The store {where} has no {side} case with a segmentation.")
    return records


def _check_array(path: Path, kind: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Return the offset in bytes of an array's values, reading its header alone.

    Raises:
        StoreError: if it is missing, or of another type, shape or length than promised.
    """
    with _plain_file(path) as stream:
        found_shape, found_kind = _header(stream, path)
        start, length = stream.tell(), os.fstat(stream.fileno()).st_size
    if (found_shape, found_kind) != (shape, kind):
        raise StoreError(
            f"{path}: holds {cut(found_kind)} of shape {cut(found_shape)}, the manifest says "
            f"{kind} of {shape}. {AGAIN}"
        )
    expected = start + kind.itemsize * math.prod(shape)
    if length != expected:
        raise StoreError(f"{path}: has {length} bytes; expected {expected}. {AGAIN}")
    return start


def _header(stream: BufferedReader, path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, by_columns, kind = read(stream)
    except _NO_HEADER:
        raise StoreError(f"{path}: is damaged. {AGAIN}") from None
    if by_columns:
        raise StoreError(f"{path}: holds its values column by column. {AGAIN}")
    return shape, kind


def _check_content(path: Path, checksum: str) -> None:
    """Compare the SHA-256 of an array with the manifest's, once while the file is unchanged.

    Raises:
        StoreError: if they differ, as when the files of two cases were swapped.
    """
    with _plain_file(path) as stream:
        status = os.fstat(stream.fileno())
        stamp = (str(path), status.st_ino, status.st_size, status.st_mtime_ns)
        if stamp in _verified:
            return
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != checksum:
        raise StoreError(
            f"{path}: was changed after the store was made (its SHA-256 begins with {digest[:8]}, "
            f"the manifest says {checksum[:8]}). {AGAIN}"
        )
    _verified.add(stamp)


@contextmanager
def _plain_file(path: Path) -> Iterator[BufferedReader]:
    try:
        with open_regular(path) as stream:
            yield stream
    except (OSError, ValueError) as error:
        # ValueError: the system refuses the name.
        raise StoreError(f"{path}: cannot be read ({said(error)}). {AGAIN}") from None
