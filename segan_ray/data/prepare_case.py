"""One case → its folder of the store, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Bool
from pydantic import ValidationError

from segan_ray.brats import REGIONS
from segan_ray.data.arrays import Box, boxed_arrays
from segan_ray.data.cases import Case, layout_named
from segan_ray.data.images import carried_checksum
from segan_ray.data.manifest import ARRAYS, STORE_VERSION, CaseRecord, PrepareSettings
from segan_ray.data.volumes import Volume, read_volume
from segan_ray.errors import CaseError, DataError
from segan_ray.files import sync_folder, writing

RESUME: Final = "Make room or mend it, and run the same again: finished cases are kept."


def prepare_case(case: Case, layout: str, work: Path, settings: PrepareSettings) -> CaseRecord:
    """Write one case under ``work``, or return its record if it stands there already.

    Raises:
        CaseError: naming the file, what was found and what was expected.
        StoreError: if it cannot be written, e.g. because the disk is full.
    """
    final = work / "cases" / case.case
    stamp = {"version": STORE_VERSION, "layout": layout, "settings": settings.model_dump()}
    done = _finished(final, case, stamp)
    if done is not None:
        return done
    code = layout_named(layout).code
    volume = read_volume(case, code)
    regions = (
        code.regions(volume.label)
        if volume.label is not None
        else np.zeros((len(REGIONS), *volume.image.shape[1:]), dtype=bool)
    )
    try:
        boxed = boxed_arrays(volume, settings, regions)
    except DataError as error:
        raise CaseError(case.case, str(error)) from None
    arrays = dict(zip(ARRAYS, (boxed.image, boxed.mask), strict=True))
    return _write(case, volume, regions, boxed.box, arrays, final, stamp)


def _write(
    case: Case,
    volume: Volume,
    regions: Bool[np.ndarray, "region x y z"],
    box: Box,
    arrays: dict[str, np.ndarray],
    final: Path,
    stamp: dict[str, Any],
) -> CaseRecord:
    """Write everything beside ``final`` and give it that name once it is on the disk."""
    partial = final.with_name(f".{case.case}.{os.getpid()}")
    try:
        with writing(final, RESUME):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for name, array in arrays.items():
                _write_array(partial / name, array)
            record = _record(case, volume, regions, box, partial)
            stamped = {**stamp, "record": record.model_dump()}
            _write_synced(partial / "record.json", json.dumps(stamped).encode())
            sync_folder(partial)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(partial, final)
            sync_folder(final.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return record


def _write_array(path: Path, array: np.ndarray) -> None:
    """Write what ``numpy.save`` would, which hides the reason when a disk is full."""
    with path.open("wb") as stream:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(stream, header)
        stream.write(array.data)
        stream.flush()
        os.fsync(stream.fileno())


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _record(
    case: Case,
    volume: Volume,
    regions: Bool[np.ndarray, "region x y z"],
    box: Box,
    folder: Path,
) -> CaseRecord:
    x, y, z = box
    return CaseRecord(
        case=case.case,
        patient=case.patient,
        grade=case.grade,
        shape=regions.shape[1:],
        origin=(x.start, y.start, z.start),
        size=(x.stop - x.start, y.stop - y.start, z.stop - z.start),
        affine=tuple(tuple(map(float, row)) for row in volume.affine),
        spacing_mm=volume.spacing_mm,
        has_truth=volume.label is not None,
        tumour_voxels=tuple(map(int, regions[0][:, :, z].sum(axis=(0, 1)))),
        region_voxels={
            name: int(region.sum()) for name, region in zip(REGIONS, regions, strict=True)
        },
        checksums={name: sha256(folder / name) for name in ARRAYS},
        voxels_sha256=hashlib.sha256(np.ascontiguousarray(volume.image).data).hexdigest(),
        sources=signature(case),
    )


def signature(case: Case) -> dict[str, str]:
    """Return ``{file name: length and checksum}``; most gzips carry their own in the last bytes.

    A truth that is called like its image goes by its folder too; ``channels`` is the order of
    the modalities in a file that holds them all.
    """
    paths = {*case.images.values(), *([case.label] if case.label else [])}
    names = [path.name for path in paths]
    found = {}
    for path in sorted(paths):
        mark = f"{path.stat().st_size}-{_checksum(path)}"
        unique = names.count(path.name) == 1
        found[path.name if unique else f"{path.parent.name}/{path.name}"] = mark
    if case.channels:
        stacked = sorted((channel, modality) for modality, channel in case.channels.items())
        found["channels"] = ",".join(modality for _, modality in stacked)
    return found


def _checksum(path: Path) -> str:
    carried = carried_checksum(path) if path.suffix == ".gz" else None
    return carried or f"{zlib.crc32(path.read_bytes()):08x}"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _finished(folder: Path, case: Case, stamp: dict[str, Any]) -> CaseRecord | None:
    """Return the record of a case an earlier run finished from the same files, or None."""
    try:
        stamped = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        record = CaseRecord.model_validate(stamped.pop("record"))
        known = (record.patient, record.grade, record.sources)
        same = stamped == stamp and known == (case.patient, case.grade, signature(case))
        return record if same and _is_intact(folder, record) else None
    except (OSError, ValueError, KeyError, AttributeError, ValidationError):
        return None


def _is_intact(folder: Path, record: CaseRecord) -> bool:
    return all(sha256(folder / name) == found for name, found in record.checksums.items())
