"""One case → its folder of the store, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np

from segan_ray.brats import REGIONS
from segan_ray.data.io.headers import ImageError, blamed_on_file
from segan_ray.data.io.images import carried_checksum
from segan_ray.data.io.volumes import Volume, read_volume
from segan_ray.data.layouts.cases import Case, layout_named
from segan_ray.data.store.arrays import Boxed, boxed_arrays
from segan_ray.data.store.manifest import ARRAYS, STORE_VERSION, CaseRecord, PrepareSettings
from segan_ray.documents import LIST_BYTES, open_regular, parse_json, read_bytes
from segan_ray.errors import CaseError, DataError
from segan_ray.filesystem.atomic_files import sync_path, writing

RESUME: Final = "Make room or mend it, and run the same again: finished cases are kept."
_PIECE_BYTES: Final = 1 << 20


def prepare_case(case: Case, layout: str, work: Path, settings: PrepareSettings) -> CaseRecord:
    """Write one case under ``work``, or return its record if an earlier run finished it.

    Raises:
        CaseError: naming the file, its content and the expected content.
        StoreError: if it cannot be written, e.g. because the disk is full.
    """
    final = work / "cases" / case.case
    stamp = {"version": STORE_VERSION, "layout": layout, "settings": settings.model_dump()}
    done = _finished(final, case, stamp)
    if done is not None:
        return done
    code = layout_named(layout).code
    volume = read_volume(case, code)
    try:
        with blamed_on_file():
            boxed = boxed_arrays(volume, settings, code)
    except (DataError, ImageError) as error:
        raise CaseError(case.case, str(error)) from None
    return _write(case, volume, boxed, final, stamp)


def _write(
    case: Case, volume: Volume, boxed: Boxed, final: Path, stamp: dict[str, Any]
) -> CaseRecord:
    """Write the case beside ``final`` and rename it to ``final`` once it is on the disk."""
    partial = final.with_name(f".{case.case}.{os.getpid()}")
    arrays = dict(zip(ARRAYS, (boxed.image, boxed.mask), strict=True))
    try:
        with writing(final, RESUME):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            checksums = {name: _write_array(partial / name, arrays[name]) for name in ARRAYS}
            record = _record(case, volume, boxed, checksums)
            stamped = {**stamp, "record": record.model_dump()}
            _write_synced(partial / "record.json", json.dumps(stamped).encode())
            sync_path(partial)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(partial, final)
            sync_path(final.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return record


def _write_array(path: Path, array: np.ndarray) -> str:
    """Write ``array`` as ``numpy.save`` does, and return the SHA-256 of the file.

    ``numpy.save`` itself hides the reason when a disk is full.
    """
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    digest = hashlib.sha256(header.getbuffer())
    digest.update(array.data)
    with path.open("wb") as stream:
        stream.write(header.getbuffer())
        stream.write(array.data)
        stream.flush()
        os.fsync(stream.fileno())
    return digest.hexdigest()


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _record(case: Case, volume: Volume, boxed: Boxed, checksums: dict[str, str]) -> CaseRecord:
    x, y, z = boxed.box
    whole, *_ = regions = [boxed.mask & (1 << bit) != 0 for bit in range(len(REGIONS))]
    return CaseRecord(
        case=case.case,
        patient=case.patient,
        grade=case.grade,
        shape=boxed.shape,
        origin=(x.start, y.start, z.start),
        size=(x.stop - x.start, y.stop - y.start, z.stop - z.start),
        affine=tuple(tuple(map(float, row)) for row in volume.affine),
        spacing_mm=volume.spacing_mm,
        has_truth=volume.label is not None,
        tumour_voxels=tuple(map(int, whole.sum(axis=(1, 2)))),
        region_voxels={
            name: int(np.count_nonzero(region))
            for name, region in zip(REGIONS, regions, strict=True)
        },
        checksums=checksums,
        voxels_sha256=boxed.voxels_sha256,
        sources=signature(case),
    )


def signature(case: Case) -> dict[str, str]:
    """Return ``{file name: length and checksum}``; most gzip files end with their checksum.

    Files of one name have their folder in the key too. ``channels`` is the order of the
    modalities in a file that holds them all.
    """
    paths = {*case.images.values(), *([case.label] if case.label else [])}
    names = [path.name for path in paths]
    marks = {}
    for path in sorted(paths):
        mark = f"{path.stat().st_size}-{_checksum(path)}"
        unique = names.count(path.name) == 1
        marks[path.name if unique else f"{path.parent.name}/{path.name}"] = mark
    if case.channels:
        stacked = sorted((channel, modality) for modality, channel in case.channels.items())
        marks["channels"] = ",".join(modality for _, modality in stacked)
    return marks


def _checksum(path: Path) -> str:
    carried = carried_checksum(path) if path.suffix == ".gz" else None
    if carried:
        return carried
    checksum = 0
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            checksum = zlib.crc32(piece, checksum)
    return f"{checksum:08x}"


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex digits."""
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _finished(folder: Path, case: Case, stamp: dict[str, Any]) -> CaseRecord | None:
    """Return the record of a case an earlier run finished from the same files, or None."""
    try:
        stamped = parse_json(read_bytes(folder / "record.json", LIST_BYTES))
        record = CaseRecord.model_validate(stamped.pop("record"))
        recorded = (record.patient, record.grade, record.sources)
        same = stamped == stamp and recorded == (case.patient, case.grade, signature(case))
        return record if same and _is_intact(folder, record) else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


def _is_intact(folder: Path, record: CaseRecord) -> bool:
    return all(sha256(folder / name) == checksum for name, checksum in record.checksums.items())
