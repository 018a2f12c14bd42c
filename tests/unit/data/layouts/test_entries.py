"""Names of images, in every spelling that downloads and people give them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segan_ray.data.layouts.entries import Entry, called, count_dicom, is_image_name, plain

STEMS = ("BraTS2021_00000_seg", "BraTS-GLI-00005-000-t1n", "Brats17_TCIA_167_1_t1ce")


@given(
    stem=st.sampled_from(STEMS),
    ending=st.sampled_from(["", ".nii", ".nii.gz", ".NII", ".Nii.GZ"]),
    seed=st.integers(0, 999),
)
def test_a_name_is_recognised_in_any_spelling(stem: str, ending: str, seed: int) -> None:
    draw = random.Random(seed)
    spelled = "".join(
        draw.choice("_- ") if letter in "_-" else draw.choice([letter.lower(), letter.upper()])
        for letter in stem
    )
    entry = Entry(spelled + ending, Path(spelled + ending))
    others = [Entry(f"{other}{ending}", Path(other)) for other in STEMS if other != stem]
    assert called(f"{stem}.nii.gz", [*others, entry]) == [entry]
    assert is_image_name(entry.name) == bool(ending)


@pytest.mark.parametrize(
    "name", ["a_t1", "a_t1ce", "a_t2", "a_seg", "a__seg2", "b_t1", "a_t1.nii.x"]
)
def test_names_that_differ_in_more_than_spelling_stay_apart(name: str) -> None:
    assert plain(name) not in {plain("a_T1n.nii"), plain("A-segm.nii.gz"), plain("at1")}


def test_dicom_is_recognised_by_ending_or_content(tmp_path: Path) -> None:
    for name in ("1.dcm", "2.IMA", "IM3", "1.2.840.4"):
        (tmp_path / name).write_bytes(b"\0" * 128 + b"DICM")
    assert count_dicom(tmp_path.iterdir()) == 4
    for name in ("IM3", "1.2.840.4"):
        (tmp_path / name).write_bytes(b"no DICOM")
    (tmp_path / "folder").mkdir()
    assert count_dicom(tmp_path.iterdir()) == 2
