from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segan_ray.brats import CODE_2017_TO_2021
from segan_ray.data.io import gzipped
from segan_ray.data.io.background import bounding_box
from segan_ray.data.io.volumes import Volume, read_volume
from segan_ray.data.layouts.cases import discover
from segan_ray.data.store import arrays
from segan_ray.data.store import prepare_case as module
from segan_ray.data.store.arrays import correct_bias, normalise
from segan_ray.data.store.manifest import fingerprint
from segan_ray.data.store.opened_store import (
    Manifest,
    PreparedCase,
    PrepareSettings,
    open_for_tuning,
    open_gate,
    open_test,
    read_manifest,
)
from segan_ray.data.store.prepare import prepare
from segan_ray.data.store.splits import Fold, SplitSettings
from segan_ray.errors import DataError, SplitError, StoreError


def make(folder: Path, store: Path, **options) -> Manifest:
    given = {"settings": PrepareSettings(), "split_settings": SplitSettings()}
    return prepare(discover(folder), store, **{**given, **options})


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_the_truth_lands_on_the_voxels_it_came_from(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    manifest = make(folder, store)
    for case, record in zip(discover(folder).cases, manifest.cases, strict=True):
        volume = read_volume(case, CODE_2017_TO_2021)
        prepared = PreparedCase(record, store / "cases" / record.case)
        np.testing.assert_array_equal(prepared.truth(), CODE_2017_TO_2021.regions(volume.label))
        x, y, z = (
            slice(start, start + size)
            for start, size in zip(record.origin, record.size, strict=True)
        )
        outside = (volume.image != 0).any(axis=0)
        outside[x, y, z] = False
        assert not outside.any()


def test_stored_intensities_are_z_scores_of_the_brain(store: Path) -> None:
    case = open_for_tuning(store).train[0]
    brain = case.mask() & 8 != 0
    for modality in range(4):
        inside = case.image()[:, modality].astype(np.float64)[brain]
        assert abs(inside.mean()) < 1e-2
        assert abs(inside.std() - 1) < 1e-2
        assert not case.image()[:, modality][~brain].any()


def test_splits_hold_every_patient_once_and_are_kept_apart(store: Path) -> None:
    tuning = open_for_tuning(store)
    sides = [tuning.train, tuning.val, open_gate(store), open_test(store)]
    names = [case.record.case for side in sides for case in side]
    assert len(names) == len(set(names)) == len(read_manifest(store).cases)


def test_preparing_again_returns_the_existing_store(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = make(folder, store)
    stamp = (store / "manifest.json").stat().st_mtime_ns
    assert make(folder, store) == first
    assert (store / "manifest.json").stat().st_mtime_ns == stamp


def test_the_fingerprint_depends_on_content_not_on_location(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "moved" / "deeper"
    shutil.copytree(folder, elsewhere)
    here, there = make(folder, tmp_path / "a"), make(elsewhere, tmp_path / "b", workers=2)
    assert here.fingerprint == there.fingerprint
    other = make(folder, tmp_path / "c", settings=PrepareSettings(clip_high=99.0))
    assert other.fingerprint != here.fingerprint


def test_another_split_of_the_same_cases_is_another_store(store: Path) -> None:
    manifest = read_manifest(store)
    same = (manifest.layout, manifest.settings, manifest.cases)
    assert fingerprint(*same, manifest.splits) == manifest.fingerprint
    (gated, *gate), (tested, *test) = manifest.splits["gate"], manifest.splits["test"]
    swapped = {**manifest.splits, "gate": (tested, *gate), "test": (gated, *test)}
    assert fingerprint(*same, swapped) != manifest.fingerprint
    patients = (*manifest.splits["train"], *manifest.splits["val"])
    folds = tuple(
        Fold(train=tuple(sorted({*patients} - {*val})), val=val)
        for val in (patients[::2], patients[1::2])
    )
    assert fingerprint(*same, manifest.splits, folds) != manifest.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (99, 99, 99)},
        {"origin": (1, 2, 3)},
        {"affine": ((6.0, 0.0, 0.0, 0.0),) * 4},
        {"spacing_mm": (6.0, 6.0, 6.0)},
        {"has_truth": False},
        {"tumour_voxels": (1,)},
        {"voxels_sha256": "another"},
    ],
)
def test_the_fingerprint_depends_on_all_fields_of_a_case(store: Path, change: dict) -> None:
    manifest = read_manifest(store)
    first, *others = manifest.cases
    changed = (first.model_copy(update=change), *others)
    digest = fingerprint(manifest.layout, manifest.settings, changed, manifest.splits)
    assert digest != manifest.fingerprint


def test_a_store_of_an_older_version_says_how_to_make_it_again(
    folder: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    make(folder, store)
    path = store / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2}))
    for read in (lambda: read_manifest(store), lambda: make(folder, store)):
        with pytest.raises(StoreError, match=f"version 2; .* segan-ray prepare DATA {store}$"):
            read()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"settings": PrepareSettings(clip_low=1)}, "clip_low is 0.5, asked for 1"),
        ({"split_settings": SplitSettings(seed=5)}, "seed is 0, asked for 5"),
    ],
)
def test_other_settings_than_the_stores(
    folder: Path, tmp_path: Path, options: dict, words: str
) -> None:
    make(folder, tmp_path / "store")
    with pytest.raises(StoreError, match=words):
        make(folder, tmp_path / "store", **options)


def test_other_cases_than_the_stores(folder: Path, tmp_path: Path) -> None:
    make(folder, tmp_path / "store")
    shutil.rmtree(sorted(folder.iterdir())[0])
    with pytest.raises(StoreError, match="1 cases came, went or changed"):
        make(folder, tmp_path / "store")


def test_a_bad_case_stops_a_run_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    bad = sorted(folder.iterdir())[2]
    cut_in_half(bad / f"{bad.name}_t2.nii.gz")
    with pytest.raises(DataError, match=bad.name):
        make(folder, tmp_path / "out" / "store")
    assert not (tmp_path / "out").exists()


def test_skip_bad_goes_on_and_lists_the_bad_cases(folder: Path, tmp_path: Path) -> None:
    first, second, *_ = sorted(folder.iterdir())
    (first / f"{first.name}_t1.nii.gz").unlink()
    image = nib.load(second / f"{second.name}_flair.nii.gz")
    empty = np.zeros(image.shape, dtype=np.int16)
    nib.save(nib.Nifti1Image(empty, image.affine), second / f"{second.name}_flair.nii.gz")
    manifest = make(folder, tmp_path / "store", skip_bad=True)
    assert [case.case for case in manifest.skipped] == [first.name, second.name]
    assert len(manifest.cases) == 6
    assert make(folder, tmp_path / "store", skip_bad=True) == manifest


def test_a_run_that_died_goes_on_where_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    real = module.read_volume
    read: list[str] = []

    def die_at_the_fourth(case, code):
        if len(read) == 3:
            raise KeyboardInterrupt
        read.append(case.case)
        return real(case, code)

    monkeypatch.setattr(module, "read_volume", die_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        make(folder, store)
    assert not store.exists()
    done = list(read)
    again: list[str] = []
    monkeypatch.setattr(
        module, "read_volume", lambda case, code: (again.append(case.case), real(case, code))[1]
    )
    resumed = make(folder, store)
    assert not set(done) & set(again)
    assert not store.with_name("store.preparing").exists()
    monkeypatch.setattr(module, "read_volume", real)
    assert resumed.fingerprint == make(folder, tmp_path / "other").fingerprint


@pytest.mark.parametrize("link", ["", "cases", ".lock", ".writers"])
def test_an_unfinished_store_that_leads_elsewhere(folder: Path, tmp_path: Path, link: str) -> None:
    """Another user may have made the link: other files would be removed, a lock emptied."""
    precious = tmp_path / "precious"
    (precious / "cases" / "mine").mkdir(parents=True)
    for kept in (precious / "kept", precious / ".kept", precious / "cases" / ".kept"):
        kept.write_text("mine")
    before = sorted(precious.rglob("*"))
    work = tmp_path / "store.preparing"
    if link:
        work.mkdir()
    (work / link).symlink_to(precious / "kept" if link.startswith(".") else precious)
    with pytest.raises(StoreError, match=r"store\.preparing"):
        make(folder, tmp_path / "store")
    assert sorted(precious.rglob("*")) == before
    assert {path.read_text() for path in before if path.is_file()} == {"mine"}


def test_voxel_identical_cases_stay_on_one_side(folder: Path, tmp_path: Path) -> None:
    original = sorted(folder.iterdir())[0]
    for number in (90, 91, 92):
        name = f"BraTS2021_000{number}"
        (folder / name).mkdir()
        for path in original.iterdir():
            shutil.copy(path, folder / name / path.name.replace(original.name, name))
    splits = make(folder, tmp_path / "store").splits
    twins = {original.name, "BraTS2021_00090", "BraTS2021_00091", "BraTS2021_00092"}
    assert sum(bool(twins & set(patients)) for patients in splits.values()) == 1


def test_an_impossible_split_is_refused_before_work(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SplitError):
        make(folder, tmp_path / "store", split_settings=SplitSettings(val=0.5, test=0.5))
    assert not list(tmp_path.glob("store*"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, "does not exist"),
        (lambda store: (store / "manifest.json").unlink(), "has no manifest.json"),
        (lambda store: (store / "manifest.json").write_text("{"), "cannot be read"),
        (lambda store: (store / "manifest.json").write_text('{"version": 99}'), "version 99"),
        (lambda store: (store / "manifest.json").write_text('{"version": 3}'), "is damaged at"),
    ],
)
def test_a_folder_that_is_no_store_is_refused(store: Path, tmp_path: Path, damage, words) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    damage(copy)
    with pytest.raises(StoreError, match=words):
        open_for_tuning(copy)


@pytest.mark.parametrize("content", [b"", b"no array", None])
def test_a_damaged_array_is_reported_plainly(store: Path, tmp_path: Path, content) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    case = open_for_tuning(copy).train[0]
    path = case.folder / "image.npy"
    if content is None:
        np.save(path, np.zeros((2, 4, 3, 3), dtype=np.float16))
    else:
        path.write_bytes(content)
    with pytest.raises(StoreError, match=r"image\.npy"):
        case.image()


def test_a_patient_on_two_sides_is_refused(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(store, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["splits"]["test"].append(manifest["splits"]["train"][0])
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="exactly one of train, val, gate and test"):
        open_for_tuning(copy)


def test_patients_without_truth_train(folder: Path, tmp_path: Path) -> None:
    for case in sorted(folder.iterdir())[:3]:
        (case / f"{case.name}_seg.nii.gz").unlink()
    manifest = make(folder, tmp_path / "store")
    blind = {record.patient for record in manifest.cases if not record.has_truth}
    assert len(blind) == 3
    assert blind <= set(manifest.splits["train"])


def test_the_split_says_that_no_case_has_a_segmentation(folder: Path, tmp_path: Path) -> None:
    for case in folder.iterdir():
        (case / f"{case.name}_seg.nii.gz").rename(case / f"{case.name}_truth.nii.gz")
    with pytest.raises(SplitError, match="None of the 8 cases has a segmentation"):
        make(folder, tmp_path / "store")
    assert not list(tmp_path.glob("store*"))


def test_patients_without_truth_do_not_make_a_split_possible(folder: Path, tmp_path: Path) -> None:
    for case in sorted(folder.iterdir())[2:]:
        (case / f"{case.name}_seg.nii.gz").unlink()
    with pytest.raises(SplitError, match="2 patients with a segmentation are too few"):
        make(folder, tmp_path / "store")
    assert not list(tmp_path.glob("store*"))


def test_a_killed_run_of_another_layout_or_setting_leaves_nothing_to_take(
    folder: Path, tmp_path: Path
) -> None:
    case = discover(folder).cases[0]
    first = module.prepare_case(case, "brats2021", tmp_path, PrepareSettings())
    stamp = tmp_path / "cases" / case.case / "record.json"

    def rewrites(layout: str, settings: PrepareSettings) -> bool:
        before = stamp.stat().st_ino
        module.prepare_case(case, layout, tmp_path, settings)
        return stamp.stat().st_ino != before

    assert not rewrites("brats2021", PrepareSettings())
    assert rewrites("brats2020", PrepareSettings())
    assert rewrites("brats2020", PrepareSettings(clip_low=1))
    array = stamp.with_name("mask.npy")
    array.write_bytes(array.read_bytes()[:-1])
    assert rewrites("brats2020", PrepareSettings(clip_low=1))
    assert module.prepare_case(case, "brats2021", tmp_path, PrepareSettings()) == first


def test_arrays_equal_those_that_numpy_saves(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.float16).reshape(2, 3, 4)
    module._write_array(tmp_path / "ours.npy", array)
    np.save(tmp_path / "theirs.npy", array)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()


@pytest.mark.parametrize("cut", [True, False])
def test_a_store_with_a_hole_is_not_whole(folder: Path, tmp_path: Path, cut: bool) -> None:
    record = make(folder, tmp_path / "store").cases[0]
    path = tmp_path / "store" / "cases" / record.case / "image.npy"
    if cut:
        cut_in_half(path)
    else:
        path.unlink()
    with pytest.raises(StoreError, match=r"image\.npy: is (cut short|missing)"):
        make(folder, tmp_path / "store")


@pytest.mark.slow
def test_n4_takes_a_drift_of_brightness_out() -> None:
    rng = np.random.default_rng(0)
    brain = np.zeros((32, 32, 32), dtype=bool)
    brain[4:-4, 4:-4, 4:-4] = True
    tissue = np.where(np.indices(brain.shape).sum(axis=0) // 8 % 2, 400.0, 600.0)
    tissue += rng.normal(0, 10, brain.shape)
    drift = np.exp(np.linspace(-0.4, 0.4, 32))[:, None, None]
    image = np.repeat((tissue * drift * brain)[None], 4, axis=0).astype(np.float32)
    volume = Volume(image, None, np.diag([2.0, 2.0, 2.0, 1.0]))
    corrected = correct_bias(volume, brain)
    np.testing.assert_array_equal(corrected, correct_bias(volume, brain))
    assert not corrected[:, ~brain].any()

    def error(voxels: np.ndarray) -> float:
        return float(np.std(np.log(voxels[brain] / tissue[brain])))

    assert error(corrected[0]) < error(image[0]) / 3


def test_n4_is_a_setting_of_the_store(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "correct_bias", lambda volume, brain: volume.image**2)
    plain, n4 = make(folder, tmp_path / "a"), PrepareSettings(n4=True)
    assert make(folder, tmp_path / "b", settings=n4).fingerprint != plain.fingerprint
    with pytest.raises(StoreError, match="n4 is False, asked for True"):
        make(folder, tmp_path / "a", settings=n4)


def test_skip_bad_goes_on_after_headers_that_lie_and_memory_that_ends(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying, large, *_ = sorted(folder.iterdir())
    path = lying / f"{lying.name}_t2.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[108:112] = np.float32(np.inf).tobytes()  # vox_offset
    path.write_bytes(gzip.compress(content))
    unpack = gzipped.unpack

    def full(stream: BinaryIO, promised: int, *, keep: bool = True) -> bytearray:
        if large.name in stream.name:
            raise MemoryError
        return unpack(stream, promised, keep=keep)

    monkeypatch.setattr(gzipped, "unpack", full)
    manifest = make(folder, tmp_path / "store", skip_bad=True)
    assert [case.case for case in manifest.skipped] == [lying.name, large.name]
    problems = [case.problem for case in manifest.skipped]
    assert f"{path}: is not a NIfTI image (its header is wrong: voxels from byte inf" in problems[0]
    assert problems[1].startswith(str(large))
    assert "cannot be read (MemoryError)" in problems[1]


def test_a_store_inside_its_data_can_be_prepared_again(folder: Path) -> None:
    first = make(folder, folder / "store")
    assert make(folder, folder / "store") == first


def test_a_skipped_case_that_was_mended_is_noticed(folder: Path, tmp_path: Path) -> None:
    case = sorted(folder.iterdir())[0]
    path = case / f"{case.name}_t1.nii.gz"
    content = path.read_bytes()
    path.unlink()
    make(folder, tmp_path / "store", skip_bad=True)
    with pytest.raises(DataError, match="t1 volume is missing"):
        make(folder, tmp_path / "store")
    path.write_bytes(content)
    with pytest.raises(StoreError, match="1 cases came, went or changed"):
        make(folder, tmp_path / "store", skip_bad=True)


def test_a_store_without_gate(folder: Path, tmp_path: Path) -> None:
    make(folder, tmp_path / "store", split_settings=SplitSettings(gate=0))
    assert open_gate(tmp_path / "store") == ()


def test_the_manifest_names_no_path(store: Path) -> None:
    text = json.dumps(json.loads((store / "manifest.json").read_text()))
    assert str(store.parent) not in text


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_bounding_box_is_tight(seed: int) -> None:
    rng = np.random.default_rng(seed)
    voxels = rng.random((5, 6, 7)) < 0.05
    voxels[tuple(rng.integers(size) for size in voxels.shape)] = True
    box = bounding_box(voxels)
    assert voxels[box].sum() == voxels.sum()
    for axis in range(3):
        for end in (0, -1):
            assert np.take(voxels[box], end, axis=axis).any()


def test_outliers_are_clipped() -> None:
    image = np.linspace(1, 2, 1000, dtype=np.float32).reshape(1, 10, 10, 10)
    image[0, 0, 0, 0] = 1e4
    scored = normalise(image, np.ones((10, 10, 10), dtype=bool), PrepareSettings())
    assert float(scored.max()) < 3
