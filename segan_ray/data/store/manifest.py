"""The manifest of a store: its cases, its settings, the split of its patients.

A folder is a store only once its manifest is there. The manifest is written last and checked
whenever it is read. It depends on content and settings alone: it holds no path and no time.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from segan_ray.brats import MODALITIES, Region
from segan_ray.data.io.headers import MOST_VOXELS
from segan_ray.data.layouts.cases import Grade
from segan_ray.data.store.splits import SPLITS, Fold, SplitName, SplitSettings
from segan_ray.documents import DocumentError, parse_json, read_bytes
from segan_ray.errors import LONGEST, StoreError, cut, said, visible

STORE_VERSION: Final = 3
MANIFEST: Final = "manifest.json"
ARRAYS: Final = ("image.npy", "mask.npy")
MANIFEST_BYTES: Final = 256 * 2**20
"""The largest manifest; one of 1251 cases of BRATS 2021 has 3 MiB."""

Row = tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat]
Side = Annotated[int, Field(ge=1)]
Start = Annotated[int, Field(ge=0)]
Millimetres = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PrepareSettings(_Frozen):
    """How volumes become store arrays.

    Intensities are clipped at two percentiles of the brain; before that, ``n4`` takes the slow
    drift of each volume's brightness out (Tustison et al. 2010).
    """

    clip_low: float = Field(default=0.5, ge=0, lt=50)
    clip_high: float = Field(default=99.5, gt=50, le=100)
    n4: bool = False


class CaseRecord(_Frozen):
    """One case of the store.

    ``shape`` is the original grid (x, y, z) in voxels, oriented left-posterior-superior, and
    ``affine`` maps it to mm; the stored box starts at ``origin`` and is ``size`` long.
    ``tumour_voxels`` counts the whole tumour in each stored slice. ``sources`` shows
    whether the case's files were edited since; ``voxels_sha256`` finds duplicate scans.
    """

    case: str = Field(pattern=r"^[^/\\\x00]+$")
    patient: str
    grade: Grade | None
    shape: tuple[Side, Side, Side]
    origin: tuple[Start, Start, Start]
    size: tuple[Side, Side, Side]
    affine: tuple[Row, Row, Row, Row]
    spacing_mm: tuple[Millimetres, Millimetres, Millimetres]
    has_truth: bool
    tumour_voxels: tuple[Start, ...]
    region_voxels: dict[Region, int]
    checksums: dict[str, str]
    voxels_sha256: str
    sources: dict[str, str]

    @property
    def array_bytes(self) -> dict[str, int]:
        """How many bytes of voxels each array holds: float16 images, uint8 masks."""
        x, y, z = self.size
        return {"image.npy": 2 * len(MODALITIES) * x * y * z, "mask.npy": x * y * z}

    @model_validator(mode="after")
    def _a_folder_of_its_own(self) -> CaseRecord:
        if self.case in (".", "..") or set(self.checksums) != set(ARRAYS):
            raise ValueError(f"'{self.case}' must name a folder with {' and '.join(ARRAYS)}")
        return self

    @model_validator(mode="after")
    def _a_box_of_its_grid(self) -> CaseRecord:
        ends = zip(self.origin, self.size, self.shape, strict=True)
        if any(start + length > whole for start, length, whole in ends):
            raise ValueError(f"'{self.case}' must have its box within its grid")
        if math.prod(self.shape) > MOST_VOXELS:
            raise ValueError(f"'{self.case}' must have at most {MOST_VOXELS:,} voxels")
        if len(self.tumour_voxels) != self.size[2]:
            raise ValueError(f"'{self.case}' must count the tumour in each of its slices")
        return self


class SkippedCase(_Frozen):
    """A case that was left out, and why; ``sources`` as of a case, if its files could be read."""

    case: str
    problem: str
    sources: dict[str, str] = {}


class Manifest(_Frozen):
    """Everything a reader needs to know of a store.

    ``split_file`` is the digest of the split file that placed the patients, or None where the
    shares of ``split_settings`` did. ``folds`` divide the train and val patients anew.
    """

    version: int
    layout: str
    settings: PrepareSettings
    split_settings: SplitSettings
    split_file: str | None = None
    cases: tuple[CaseRecord, ...] = Field(min_length=1)
    skipped: tuple[SkippedCase, ...]
    splits: dict[SplitName, tuple[str, ...]]
    folds: tuple[Fold, ...] = ()
    fingerprint: str = Field(pattern=r"^[0-9a-f]{16}$")

    @model_validator(mode="after")
    def _each_patient_on_one_side(self) -> Manifest:
        sides = [patient for name in SPLITS for patient in self.splits.get(name, ())]
        patients = {case.patient for case in self.cases}
        if set(self.splits) != set(SPLITS) or sorted(sides) != sorted(patients):
            raise ValueError("every patient must be in exactly one of train, val, gate and test")
        return self

    @model_validator(mode="after")
    def _each_case_once(self) -> Manifest:
        case, count = Counter(case.case for case in self.cases).most_common(1)[0]
        if count > 1:
            raise ValueError(f"case '{case}' must be there once")
        return self

    @model_validator(mode="after")
    def _folds_hold_no_held_out_patient(self) -> Manifest:
        ours = sorted([*self.splits["train"], *self.splits["val"]])
        if any(sorted([*fold.train, *fold.val]) != ours for fold in self.folds):
            raise ValueError("every fold must divide the train and val patients, and no others")
        validated = [patient for fold in self.folds for patient in fold.val]
        seen = {case.patient for case in self.cases if case.has_truth}
        once = len(validated) == len(set(validated))
        if self.folds and not (once and seen & set(ours) <= set(validated)):
            raise ValueError("every patient must be in val of exactly one fold")
        return self

    @property
    def array_bytes(self) -> int:
        """How many bytes of voxels the store holds."""
        return sum(sum(case.array_bytes.values()) for case in self.cases)


def fingerprint(
    layout: str,
    settings: PrepareSettings,
    cases: tuple[CaseRecord, ...],
    splits: dict[SplitName, tuple[str, ...]],
    folds: tuple[Fold, ...] = (),
) -> str:
    """Return 16 hex digits that depend on content and settings, not on paths or time.

    They cover everything that a reader of a case relies on, including geometry and ``has_truth``.
    They leave out the source files: the same voxels in another format make the same store.
    """
    content: dict[str, Any] = {
        "version": STORE_VERSION,
        "layout": layout,
        "settings": settings.model_dump(),
        "cases": [
            record.model_dump(exclude={"sources"})
            for record in sorted(cases, key=lambda record: record.case)
        ],
        "splits": splits,
        "folds": [fold.model_dump() for fold in folds],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def read_manifest(store: Path) -> Manifest:
    """Read and check the manifest of ``store``.

    Raises:
        StoreError: if there is no store, it is unfinished, damaged or of another version.
    """
    path = store / MANIFEST
    try:
        text = read_bytes(path, MANIFEST_BYTES)
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
    except (OSError, DocumentError) as error:
        raise StoreError(
            f"{path}: cannot be read ({said(error)}). Prepare the store again."
        ) from None
    return parse_manifest(text, str(path))


def parse_manifest(text: bytes, where: str) -> Manifest:
    """Return the manifest in ``text``, read from ``where``, after checking its fingerprint.

    Raises:
        StoreError: if it is damaged, of another version, or changed since it was written.
    """
    try:
        content = parse_json(text)
    except ValueError as error:
        raise StoreError(
            f"{where}: cannot be read ({said(error)}). Prepare the store again."
        ) from None
    version = content.get("version") if isinstance(content, dict) else None
    if version != STORE_VERSION:
        raise StoreError(
            f"{where}: store version {cut(version)}; this segan-ray reads {STORE_VERSION}. Delete "
            f"the store and make it again with: segan-ray prepare DATA {where.rpartition('/')[0]}"
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        problem = error.errors()[0]
        at = cut(".".join(str(part) for part in problem["loc"]) or "splits")
        why = cut(problem["msg"], LONGEST)
        raise StoreError(
            f"{where}: is damaged at '{visible(at)}' ({visible(why)}). Prepare the store again."
        ) from None
    _check_fingerprint(manifest, where)
    return manifest


def _check_fingerprint(manifest: Manifest, where: str) -> None:
    computed = fingerprint(
        manifest.layout, manifest.settings, manifest.cases, manifest.splits, manifest.folds
    )
    if computed != manifest.fingerprint:
        raise StoreError(
            f"{where}: was changed after the store was made (its content has fingerprint "
            f"{computed}, it says {manifest.fingerprint}). Put the manifest back as prepare wrote "
            "it, or prepare the store again."
        )
