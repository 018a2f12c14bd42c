"""BRATS folder → store: read, crop to the brain, normalise, write, split, seal.

Everything is written into ``STORE.preparing`` beside the store, one case at a time and each
whole or not at all; the folder takes the store's name only when the manifest is in it. A run
that was killed finds its finished cases there and goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float16, Float32
from pydantic import ValidationError

from segan_ray.brats import REGIONS
from segan_ray.data.cases import Case, Discovery, Layout, layout_named
from segan_ray.data.splits import SPLITS, SplitName, SplitSettings, split_patients
from segan_ray.data.store import (
    BRAIN_BIT,
    MANIFEST,
    STORE_VERSION,
    CaseRecord,
    Manifest,
    PrepareSettings,
    SkippedCase,
    fingerprint,
    read_manifest,
)
from segan_ray.data.volumes import Volume, check_headers, read_volume
from segan_ray.errors import CaseError, DataError, StoreError
from segan_ray.files import write_text

OnCase = Callable[[str], None]


def ignore_case(case: str) -> None:
    """Take note of nothing: the ``OnCase`` of those who do not watch."""


def prepare(
    discovery: Discovery,
    store: Path,
    *,
    settings: PrepareSettings,
    split_settings: SplitSettings,
    skip_bad: bool = False,
    workers: int = 1,
    on_case: OnCase = ignore_case,
) -> Manifest:
    """Make ``store`` from the cases of ``discovery``, or return it if it is made already.

    ``on_case`` is called with the name of each case as it is done.

    Raises:
        DataError: if cases are bad and ``skip_bad`` is not set, or none is good.
        StoreError: if ``store`` exists with other cases or settings.
        SplitError: if the patients cannot be split as asked.
    """
    header_problems = {case.case: check_headers(case) for case in discovery.cases}
    bad = {name: problems[0] for name, problems in header_problems.items() if problems}
    _refuse_bad(discovery, bad, skip_bad)
    good = tuple(case for case in discovery.cases if case.case not in bad)
    _refuse_impossible_split(good, split_settings)
    if store.exists() and not _is_empty_folder(store):
        manifest = _existing(store, discovery, good, settings, split_settings)
        _refuse_bad(discovery, {case.case: case.problem for case in manifest.skipped}, skip_bad)
        for record in manifest.cases:
            on_case(record.case)
        return manifest

    work = store.resolve().with_name(f"{store.name}.preparing")
    work.mkdir(parents=True, exist_ok=True)
    records, worse = _prepare_cases(discovery.layout, good, work, settings, workers, on_case)
    bad |= worse
    _refuse_bad(discovery, bad, skip_bad)
    skipped = tuple(
        SkippedCase(
            case=case.case,
            problem=bad[case.case],
            sources=_signature(case) if case.case in worse else {},
        )
        for case in discovery.cases
        if case.case in bad
    )
    manifest = _bind(discovery.layout.name, settings, split_settings, records, skipped)
    _drop_strangers(work / "cases", {record.case for record in records})
    write_text(work / MANIFEST, manifest.model_dump_json(indent=1))
    os.replace(work, store)
    return manifest


def _refuse_bad(discovery: Discovery, bad: dict[str, str], skip_bad: bool) -> None:
    if not bad:
        return
    if len(bad) == len(discovery.cases):
        first = next(iter(bad))
        raise DataError(f"{discovery.folder}: every case is bad. Case {first}: {bad[first]}")
    if not skip_bad:
        (first, problem), more = next(iter(bad.items())), len(bad) - 1
        others = f" ({more} more bad: segan-ray inspect lists them)" if more else ""
        raise DataError(
            f"Case {first}: {problem}\nNothing was prepared{others}. "
            "Mend it, or leave bad cases out with --skip-bad."
        )


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and next(path.iterdir(), None) is None


def _refuse_impossible_split(cases: Sequence[Case], split_settings: SplitSettings) -> None:
    split_patients({case.patient: case.grade for case in cases}, split_settings)


def _existing(
    store: Path,
    discovery: Discovery,
    good: Sequence[Case],
    settings: PrepareSettings,
    split_settings: SplitSettings,
) -> Manifest:
    manifest = read_manifest(store)
    asked = {**settings.model_dump(), **split_settings.model_dump()}
    found = {**manifest.settings.model_dump(), **manifest.split_settings.model_dump()}
    asked["layout"], found["layout"] = discovery.layout.name, manifest.layout
    differences = [
        f"{key} is {found[key]}, asked for {asked[key]}"
        for key in asked
        if asked[key] != found[key]
    ]
    sources = {record.case: record.sources for record in manifest.cases}
    sources |= {case.case: case.sources for case in manifest.skipped if case.sources}
    now = {case.case: _signature(case) for case in good}
    if changed := sorted(name for name in {*sources, *now} if sources.get(name) != now.get(name)):
        differences.append(f"{len(changed)} cases came, went or changed, first {changed[0]}")
    if differences:
        raise StoreError(
            f"The store {store} was made differently: {'; '.join(differences)}.\n"
            "Prepare into another folder, or delete this store first."
        )
    return manifest


def _prepare_cases(
    layout: Layout,
    cases: Sequence[Case],
    work: Path,
    settings: PrepareSettings,
    workers: int,
    on_case: OnCase,
) -> tuple[tuple[CaseRecord, ...], dict[str, str]]:
    """Return the records of the good cases, by name, and what is wrong with the others."""
    records: dict[str, CaseRecord] = {}
    bad: dict[str, str] = {}
    for case, outcome in _outcomes(layout, cases, work, settings, workers):
        try:
            records[case.case] = outcome()
        except CaseError as error:
            bad[case.case] = str(error).removeprefix(f"Case {case.case}: ")
        on_case(case.case)
    return tuple(records[name] for name in sorted(records)), dict(sorted(bad.items()))


def _outcomes(
    layout: Layout, cases: Sequence[Case], work: Path, settings: PrepareSettings, workers: int
) -> Iterator[tuple[Case, Callable[[], CaseRecord]]]:
    if workers == 1:
        for case in cases:
            yield case, partial(prepare_case, case, layout.name, work, settings)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures: dict[Future[CaseRecord], Case] = {
            pool.submit(prepare_case, case, layout.name, work, settings): case for case in cases
        }
        for future in as_completed(futures):
            yield futures[future], future.result


def prepare_case(case: Case, layout: str, work: Path, settings: PrepareSettings) -> CaseRecord:
    """Write one case under ``work``, or return its record if it stands there already.

    Raises:
        CaseError: naming the file, what was found and what was expected.
    """
    final = work / "cases" / case.case
    done = _finished(final, case, settings)
    if done is not None:
        return done
    code = layout_named(layout).code
    volume = read_volume(case, code)
    brain = (volume.image != 0).any(axis=0)
    regions = (
        code.regions(volume.label)
        if volume.label is not None
        else np.zeros((len(REGIONS), *brain.shape), dtype=bool)
    )
    if not brain.any():
        raise CaseError(case.case, "every voxel of every modality is zero. Exclude the case.")
    box = bounding_box(brain | regions[0])
    image = normalise(volume.image[(slice(None), *box)], brain[box], settings)
    mask = pack_mask(regions[(slice(None), *box)], brain[box])
    partial = work / "cases" / f".{case.case}.{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    np.save(partial / "image.npy", np.ascontiguousarray(np.moveaxis(image, -1, 0)))
    np.save(partial / "mask.npy", np.ascontiguousarray(np.moveaxis(mask, -1, 0)))
    record = _record(case, volume, regions, box, partial)
    stamp = {"settings": settings.model_dump(), "record": record.model_dump()}
    (partial / "record.json").write_text(json.dumps(stamp), encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    return record


def bounding_box(voxels: Bool[np.ndarray, "x y z"]) -> tuple[slice, slice, slice]:
    """Return the smallest box that holds every set voxel."""
    x, y, z = (
        slice(int(hit[0]), int(hit[-1]) + 1)
        for axis in range(3)
        for hit in [np.flatnonzero(voxels.any(axis=tuple({0, 1, 2} - {axis})))]
    )
    return x, y, z


def normalise(
    image: Float32[np.ndarray, "modality x y z"],
    brain: Bool[np.ndarray, "x y z"],
    settings: PrepareSettings,
) -> Float16[np.ndarray, "modality x y z"]:
    """Clip each modality at two percentiles of its brain and z-score it; 0 outside."""
    scored = np.zeros(image.shape, dtype=np.float16)
    for index, voxels in enumerate(image):
        inside = voxels[brain]
        low, high = np.percentile(inside, (settings.clip_low, settings.clip_high))
        inside = inside.clip(low, high)
        deviation = inside.std()
        scored[index][brain] = (inside - inside.mean()) / (deviation if deviation > 0 else 1)
    return scored


def pack_mask(
    regions: Bool[np.ndarray, "region x y z"], brain: Bool[np.ndarray, "x y z"]
) -> np.ndarray:
    """Pack the regions and the brain into the bits of one uint8 volume."""
    packed = brain.astype(np.uint8) * BRAIN_BIT
    for bit, region in enumerate(regions):
        packed |= region.astype(np.uint8) << bit
    return packed


def _record(
    case: Case,
    volume: Volume,
    regions: Bool[np.ndarray, "region x y z"],
    box: tuple[slice, slice, slice],
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
        checksums={name: _sha256(folder / name) for name in ("image.npy", "mask.npy")},
        voxels_sha256=hashlib.sha256(np.ascontiguousarray(volume.image).data).hexdigest(),
        sources=_signature(case),
    )


def _signature(case: Case) -> dict[str, str]:
    """Return ``{file name: length and checksum}``; a gzip carries its own in its last bytes.

    A truth that is called like its image goes by its folder too; ``channels`` is the order of
    the modalities in a file that holds them all.
    """
    paths = {*case.images.values(), *([case.label] if case.label else [])}
    names = [path.name for path in paths]
    signature = {}
    for path in sorted(paths):
        size, tail = path.stat().st_size, ""
        if path.suffix == ".gz":
            with path.open("rb") as stream:
                stream.seek(-8, os.SEEK_END)
                tail = stream.read(4).hex()
        else:
            tail = f"{zlib.crc32(path.read_bytes()):08x}"
        unique = names.count(path.name) == 1
        signature[path.name if unique else f"{path.parent.name}/{path.name}"] = f"{size}-{tail}"
    if case.channels:
        stacked = sorted((channel, modality) for modality, channel in case.channels.items())
        signature["channels"] = ",".join(modality for _, modality in stacked)
    return signature


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _finished(folder: Path, case: Case, settings: PrepareSettings) -> CaseRecord | None:
    """Return the record of a case an earlier run finished from the same files, or None."""
    try:
        stamp = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        record = CaseRecord.model_validate(stamp["record"])
    except (OSError, ValueError, KeyError, ValidationError):
        return None
    same = stamp["settings"] == settings.model_dump() and record.sources == _signature(case)
    return record if same else None


def _bind(
    layout: str,
    settings: PrepareSettings,
    split_settings: SplitSettings,
    records: tuple[CaseRecord, ...],
    skipped: tuple[SkippedCase, ...],
) -> Manifest:
    splits = split_cases(records, split_settings)
    return Manifest(
        version=STORE_VERSION,
        layout=layout,
        settings=settings,
        split_settings=split_settings,
        cases=records,
        skipped=skipped,
        splits=splits,
        fingerprint=fingerprint(layout, settings, records, splits),
    )


def split_cases(
    records: Sequence[CaseRecord], split_settings: SplitSettings
) -> dict[SplitName, tuple[str, ...]]:
    """Split the patients of ``records``; patients who share a scan stay on one side.

    Patients without any segmentation can be neither validated nor tested on: they train.
    """
    leader = _leaders(records)
    grades = {leader[record.patient]: record.grade for record in records if record.has_truth}
    side = {
        patient: name
        for name, patients in split_patients(grades, split_settings).items()
        for patient in patients
    }
    return {
        name: tuple(
            sorted(patient for patient in leader if side.get(leader[patient], "train") == name)
        )
        for name in SPLITS
    }


def _leaders(records: Sequence[CaseRecord]) -> dict[str, str]:
    """Map each patient to one who stands for all who share a voxel-identical scan with them."""
    leader = {record.patient: record.patient for record in records}
    first: dict[str, str] = {}
    for record in records:
        other = first.setdefault(record.voxels_sha256, record.patient)
        ours, theirs = leader[record.patient], leader[other]
        leader = {patient: theirs if head == ours else head for patient, head in leader.items()}
    return leader


def _drop_strangers(folder: Path, wanted: set[str]) -> None:
    """Remove what killed or earlier runs left that is no case of this store."""
    for path in folder.iterdir():
        if path.name not in wanted:
            shutil.rmtree(path)
