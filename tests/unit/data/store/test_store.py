"""A manifest is checked against its fingerprint, and arrays are checked against the manifest."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segan_ray.data.store.opened_store import (
    PreparedCase,
    open_for_tuning,
    open_test,
    read_manifest,
)
from segan_ray.errors import StoreError
from tests.unit.stored import stored_case

Content = dict[str, Any]


@pytest.fixture
def copy(store: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store, tmp_path / "copy"))


def _swap_patients(content: Content) -> None:
    splits = content["splits"]
    splits["train"][0], splits["test"][0] = splits["test"][0], splits["train"][0]


def _swap_checksums(content: Content) -> None:
    one, other = content["cases"][:2]
    one["checksums"], other["checksums"] = other["checksums"], one["checksums"]


def _of_case(**change: object) -> Callable[[Content], None]:
    return lambda content: content["cases"][0].update(change)


CHANGES = {
    "two patients swapped between train and test": _swap_patients,
    "checksums of two cases swapped": _swap_checksums,
    "origin": _of_case(origin=[0, 0, 0], shape=[200, 200, 200]),
    "affine": _of_case(affine=[[9, 0, 0, 0], [0, 9, 0, 0], [0, 0, 9, 0], [0, 0, 0, 1]]),
    "spacing": _of_case(spacing_mm=[9, 9, 9]),
    "truth": _of_case(has_truth=False),
    "voxels": _of_case(voxels_sha256="brain:0"),
    "grade": _of_case(grade="LGG"),
    "case": _of_case(case="another"),
    "layout": lambda content: content.update(layout="brats2024"),
    "settings": lambda content: content["settings"].update(n4=True),
    "fingerprint": lambda content: content.update(fingerprint="0" * 16),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_manifest_that_was_changed_is_refused(copy: Path, change) -> None:
    _rewrite(copy, change)
    words = r"manifest\.json: was changed after .* has fingerprint \w{16}, it says \w{16}\)\. Put"
    for read in (read_manifest, open_for_tuning, open_test):
        with pytest.raises(StoreError, match=words):
            read(copy)


@pytest.mark.parametrize(
    "change",
    [
        _of_case(origin=[10**6, 0, 0]),
        _of_case(size=[0, 1, 1]),
        _of_case(size=[-5, 5, -5]),
        _of_case(shape=[10**12, 10**12, 10**12]),
        _of_case(affine=[[1, 0, 0, 0]]),
        _of_case(affine=[[float("nan"), 0, 0, 0]] * 4),
        _of_case(spacing_mm=[0, 1, 1]),
        _of_case(spacing_mm=[float("inf"), 1, 1]),
        _of_case(tumour_voxels=[1]),
        _of_case(case="a\0b"),
        lambda content: content["cases"].append(content["cases"][0]),
        lambda content: content.update(cases=[], splits={key: [] for key in content["splits"]}),
    ],
)
def test_a_manifest_of_impossible_cases_is_damaged(copy: Path, change) -> None:
    _rewrite(copy, change)
    with pytest.raises(StoreError, match=r"manifest\.json: is damaged at"):
        read_manifest(copy)


def test_a_manifest_written_in_another_order_is_the_same(copy: Path) -> None:
    before = read_manifest(copy)
    path = copy / "manifest.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(content.items())), indent=4))
    assert read_manifest(copy) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 10**5, "nested more than 64 levels"),
        ('{"version": 1' + "0" * 5000 + "}", "is too long"),
        ("\ud800".encode("utf-16", "surrogatepass"), "cannot be read"),
    ],
)
def test_a_manifest_is_read_within_bounds(copy: Path, text: str | bytes, words: str) -> None:
    (copy / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StoreError, match=words):
        read_manifest(copy)


@pytest.mark.parametrize("name", ["manifest.json", "image.npy", "mask.npy"])
def test_a_pipe_in_a_store_is_refused_without_waiting(copy: Path, name: str) -> None:
    path = copy / name
    if name != "manifest.json":
        path = open_for_tuning(copy).val[0].folder / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreError, match=rf"{name}: cannot be read \(is a pipe; expected a file"):
        open_for_tuning(copy)


def _other_type(path: Path, array: np.ndarray) -> None:
    np.save(path, array.astype(np.float32 if array.dtype == np.float16 else np.int16))


DAMAGES: dict[str, tuple[Callable[[Path, np.ndarray], object], str]] = {
    "type": (_other_type, r"holds (float32|int16) of shape .*, the manifest says"),
    "byte order": (
        lambda path, array: np.save(path, array.astype(">i2")),
        r"holds >i2 of shape",
    ),
    "shape": (lambda path, array: np.save(path, array[1:]), "of shape .*, the manifest says"),
    "order": (lambda path, array: np.save(path, np.asfortranarray(array)), "column by column"),
    "cut": (lambda path, _: os.truncate(path, path.stat().st_size - 1), r"has \d+ bytes; expected"),
    "longer": (lambda path, _: path.open("ab").write(b"\0"), r"has \d+ bytes; expected"),
    "empty": (lambda path, _: os.truncate(path, 0), "is damaged"),
    "objects": (lambda path, _: np.save(path, np.array([{}])), "of shape .*, the manifest says"),
    "missing": (lambda path, _: path.unlink(), "cannot be read"),
}


@pytest.mark.parametrize("name", ["image.npy", "mask.npy"])
@pytest.mark.parametrize(("damage", "words"), DAMAGES.values(), ids=DAMAGES)
def test_an_array_is_checked_against_its_manifest_when_it_is_opened(
    copy: Path, name: str, damage, words: str
) -> None:
    path = open_for_tuning(copy).train[0].folder / name
    damage(path, np.load(path))
    with pytest.raises(StoreError, match=words) as refused:
        _read(open_for_tuning(copy).train[0])
    assert str(path) in str(refused.value)


def test_swapped_arrays_of_one_shape_are_refused_when_read(tmp_path: Path) -> None:
    cases = [stored_case(tmp_path / name, (6, 7, 4)) for name in ("one", "other")]
    moved = np.roll(np.array(cases[1].image()), 1, axis=0)
    np.save(cases[1].folder / "image.npy", moved)
    cases[0].image()
    os.replace(cases[1].folder / "image.npy", cases[0].folder / "image.npy")
    cases[0].check_headers()
    with pytest.raises(StoreError, match=r"image\.npy: was changed after the store was made"):
        cases[0].image()


def test_a_mask_with_one_changed_bit_is_refused(copy: Path) -> None:
    path = open_for_tuning(copy).val[0].folder / "mask.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"mask\.npy: was changed"):
        open_for_tuning(copy).val[0].truth()


def _read(case: PreparedCase) -> None:
    case.image()
    case.mask()


def _rewrite(store: Path, change: Callable[[Content], object]) -> None:
    path = store / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
