from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from segan_ray.data.layouts.cases import Case, discover
from segan_ray.data.store.opened_store import (
    Manifest,
    PrepareSettings,
    open_for_tuning,
    open_gate,
    open_test,
    read_manifest,
)
from segan_ray.data.store.prepare import prepare
from segan_ray.data.store.split_file import Placement, SplitFile, assign_sides, read_split_file
from segan_ray.data.store.splits import SPLITS, SplitSettings
from segan_ray.errors import SplitError, StoreError

TIMES = [
    Case(f"p{patient}-{time}", f"p{patient}", None, {}, None if patient == 6 else Path("seg"))
    for patient in range(1, 7)
    for time in (0, 1)
]
GOOD = {"train": ["p1", "p2-0", "p6"], "val": ["p3-0", "p3-1"], "gate": ["p4"], "test": ["p5"]}


def placed(tmp_path: Path, content: object) -> Placement:
    path = tmp_path / "split.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return assign_sides(read_split_file(path), TIMES)


def test_cases_stand_for_their_patients(tmp_path: Path) -> None:
    placement = placed(tmp_path, GOOD)
    assert placement.sides == {
        "p1": "train", "p2": "train", "p3": "val", "p4": "gate", "p5": "test", "p6": "train",
    }  # fmt: skip
    by_patient = {**GOOD, "train": ["p6", "p2", "p1"], "val": ["p3"]}
    assert placed(tmp_path, json.dumps(by_patient)).digest == placement.digest


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"val": ["p3", "p33"]}, "val names 'p33', no patient or case of the data. Did you mean"),
        ({"val": ["p3", "p1"]}, "'p1' is in train and in val. Keep one of them."),
        ({"val": ["p3", "p2-1"]}, "'p2-0' is in train, 'p2-1' in val, and both are of patient p2."),
        ({"train": ["p1"]}, "2 patients are on no side: p2, p6."),
        ({"train": ["p1", "p2"], "test": ["p5", "p6"]}, "patient p6 is in test but has no segm"),
        ({"val": []}, "val has no patient"),
        ({"vall": []}, "unknown side 'vall'. Did you mean 'val'?"),
        ({"val": "p3"}, "val is no list"),
        ({"val": [3]}, "val holds 3; expected a name, in quotes"),
    ],
)
def test_problems_of_a_split_file_are_reported(tmp_path: Path, change: dict, words: str) -> None:
    with pytest.raises(SplitError) as caught:
        placed(tmp_path, {**GOOD, **change})
    assert words in str(caught.value)
    assert str(tmp_path / "split.yaml") in str(caught.value)


@pytest.mark.parametrize("content", ["[1]", "a: [", ""])
def test_files_that_are_no_split_file(tmp_path: Path, content: str) -> None:
    with pytest.raises(SplitError, match=r"split\.yaml: (expected lists|is neither YAML nor JSON)"):
        placed(tmp_path, content)


def test_a_missing_split_file(tmp_path: Path) -> None:
    with pytest.raises(SplitError, match="no such split file"):
        read_split_file(tmp_path / "none.yaml")


def own(folder: Path, shift: int = 0) -> SplitFile:
    names = [case.case for case in discover(folder).cases]
    names = names[shift:] + names[:shift]
    sides = {"train": names[3:], "val": names[:1], "gate": names[1:2], "test": names[2:3]}
    return SplitFile(Path("own.yaml"), {side: tuple(sides[side]) for side in SPLITS})


def make(folder: Path, store: Path, **options) -> Manifest:
    given = {"settings": PrepareSettings(), "split_settings": SplitSettings()}
    return prepare(discover(folder), store, **{**given, **options})


def test_a_store_is_split_as_the_file_says(folder: Path, tmp_path: Path) -> None:
    store, file = tmp_path / "store", own(folder)
    manifest = make(folder, store, split_file=file)
    assert {name: set(names) for name, names in manifest.splits.items()} == {
        name: set(names) for name, names in file.sides.items()
    }
    other_shares = SplitSettings(val=0.3)
    assert make(folder, store, split_file=file, split_settings=other_shares) == manifest
    with pytest.raises(StoreError, match="split file is"):
        make(folder, store, split_file=own(folder, 1))
    with pytest.raises(StoreError, match=r"split file is .* asked for None"):
        make(folder, store)


def test_the_same_voxels_on_two_sides(folder: Path, tmp_path: Path) -> None:
    case = sorted(folder.iterdir())[0]
    twin = folder / "BraTS2021_00090"
    twin.mkdir()
    for path in case.iterdir():
        shutil.copy(path, twin / path.name.replace(case.name, twin.name))
    file = own(folder)
    with pytest.raises(SplitError) as caught:
        make(folder, tmp_path / "store", split_file=file)
    words = f"cases {case.name} in val and {twin.name} in train hold the same voxels"
    assert words in str(caught.value)


def test_folds_of_a_store(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    (sorted(folder.iterdir())[4] / f"{sorted(folder.iterdir())[4].name}_seg.nii.gz").unlink()
    manifest = make(folder, store, split_settings=SplitSettings(folds=3))
    held_out = {case.record.patient for case in (*open_gate(store), *open_test(store))}
    validated = []
    for fold in range(3):
        cases = open_for_tuning(store, fold)
        train, val = ({case.record.patient for case in side} for side in (cases.train, cases.val))
        assert not train & val
        assert not (train | val) & held_out
        validated += sorted(val)
    single = open_for_tuning(store)
    ours = sorted(case.record.patient for case in (*single.train, *single.val))
    assert sorted(validated) == ours
    with pytest.raises(StoreError, match=r"has folds 0 to 2, data\.fold is 3"):
        open_for_tuning(store, 3)
    with pytest.raises(StoreError, match="folds is 3, asked for 0"):
        make(folder, store)
    assert manifest.fingerprint != make(folder, tmp_path / "plain").fingerprint


def test_a_store_without_folds_says_so(store: Path) -> None:
    with pytest.raises(StoreError, match=r"has no folds, data\.fold is 1\. Prepare a store with"):
        open_for_tuning(store, 1)


def test_a_fold_with_a_held_out_patient_is_refused(folder: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    make(folder, store, split_settings=SplitSettings(folds=2))
    content = json.loads((store / "manifest.json").read_text())
    content["folds"][0]["train"].append(content["splits"]["test"][0])
    (store / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(StoreError, match="must divide the train and val patients, and no others"):
        read_manifest(store)
