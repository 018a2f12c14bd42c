"""The phantom: properties of its voxels, and its files."""

from __future__ import annotations

import json
from functools import cache
from itertools import combinations
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest
from scipy import ndimage  # type: ignore[import-untyped, unused-ignore]

from segan_ray.brats import CODE_2017_TO_2021, MODALITIES
from segan_ray.data.phantom import dataset
from segan_ray.data.phantom.anatomy import FIELD_OF_VIEW_MM, draw_anatomy
from segan_ray.data.phantom.contrast import draw_scanner
from segan_ray.data.phantom.dataset import (
    PhantomCase,
    grid_affine,
    grid_shape,
    synthesize_patient,
    write_phantoms,
)
from segan_ray.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from segan_ray.data.phantom.anatomy import Tissues

SPACING_MM = 4.0
FEW = range(6)
FLAIR = MODALITIES.index("flair")
T1CE = MODALITIES.index("t1ce")


@pytest.fixture(autouse=True)
def patients_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Phantoms are made here, not shared, since these tests are on how they are made."""
    monkeypatch.setattr(dataset, "synthesize_patient", synthesize_patient)


@cache
def patient(index: int, time_point: int = 0) -> PhantomCase:
    return synthesize_patient(index, seed=0, spacing_mm=SPACING_MM, time_point=time_point)


@cache
def low_grade() -> PhantomCase:
    return next(case for case in map(patient, range(40)) if case.grade == "LGG")


# ----------------------------------------------------------------------------------- voxels


def test_equal_arguments_give_equal_voxels_and_others_do_not() -> None:
    first, again = patient(0), synthesize_patient(0, seed=0, spacing_mm=SPACING_MM)
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.label, again.label)
    other_seed = synthesize_patient(0, seed=1, spacing_mm=SPACING_MM)
    for other in (patient(1), other_seed):
        assert np.mean(first.images != other.images) > 0.1


@pytest.mark.parametrize("index", FEW)
def test_every_modality_is_zero_outside_one_brain_of_human_size(index: int) -> None:
    images = patient(index).images
    assert images.dtype == np.int16
    brain = images[0] > 0
    for scan in images:
        np.testing.assert_array_equal(scan > 0, brain)
        assert scan.min() == 0
    assert 1.2 < brain.sum() * SPACING_MM**3 / 1e6 < 2.3  # litres


@pytest.mark.parametrize("index", FEW)
def test_label_is_in_the_brain_in_code_and_of_the_size_of_a_glioma(index: int) -> None:
    case = patient(index)
    assert case.label.dtype == np.uint8
    assert set(np.unique(case.label)) <= {0, *CODE_2017_TO_2021.names}
    assert (case.images[0][case.label > 0] > 0).all()
    whole, core, enhancing = CODE_2017_TO_2021.regions(case.label)
    assert 10 < whole.sum() * SPACING_MM**3 / 1e3 < 170  # millilitres
    assert not (core & ~whole).any()
    assert not (enhancing & ~core).any()
    assert core.any()
    assert enhancing.any() == (case.grade == "HGG")


def test_low_grade_tumour_has_no_enhancing_part() -> None:
    whole, core, enhancing = CODE_2017_TO_2021.regions(low_grade().label)
    assert whole.any()
    assert core.any()
    assert not enhancing.any()


@pytest.mark.parametrize("index", FEW)
def test_tumour_is_brighter_than_its_surroundings_in_flair(index: int) -> None:
    case = patient(index)
    whole = case.label > 0
    near = ndimage.binary_dilation(whole, iterations=3) & ~whole & (case.images[0] > 0)
    flair = case.images[FLAIR]
    assert flair[whole].mean() > 1.1 * flair[near].mean()


def test_rim_takes_up_contrast_agent() -> None:
    case = next(case for case in map(patient, FEW) if case.grade == "HGG")
    t1ce = case.images[T1CE]
    assert t1ce[case.label == 4].mean() > 1.3 * t1ce[case.label == 2].mean()


@pytest.mark.slow
def test_tumours_lie_in_both_hemispheres() -> None:
    left = [np.argwhere(patient(i).label > 0)[:, 0].mean() * SPACING_MM > 119.5 for i in range(10)]
    assert any(left)
    assert not all(left)


def test_patients_do_not_share_the_folds_of_one_brain() -> None:
    axes_mm = tuple(np.arange(0, extent, 2.0) for extent in FIELD_OF_VIEW_MM)
    brains = [
        draw_anatomy(np.random.default_rng(seed)).tissues(axes_mm, spacing_mm=2.0)
        for seed in range(5)
    ]
    # Below the surface, away from what all brains share; 1 would be one brain, 0.21 is the
    # template under smooth deformations alone.
    alike = [cortical_correlation(one, other) for one, other in combinations(brains, 2)]
    assert np.mean(alike) < 0.18


def cortical_correlation(one: Tissues, other: Tissues) -> float:
    """Correlate grey and white matter 3 to 18 mm below the surface, at equal depths."""
    cortex = np.logical_and.reduce(
        [t.brain & (t.depth_mm > 3) & (t.depth_mm < 18) for t in (one, other)]
    )
    depth = ((one.depth_mm + other.depth_mm)[cortex] / 3).astype(int)
    patterns = [t.white[cortex] - 2 * t.csf[cortex] for t in (one, other)]
    count = np.maximum(np.bincount(depth), 1)
    first, second = (x - (np.bincount(depth, x) / count)[depth] for x in patterns)
    return float(np.corrcoef(first, second)[0, 1])


def test_scanners_see_the_same_tissues_with_other_contrasts() -> None:
    scanners = [draw_scanner(np.random.default_rng(seed)) for seed in range(12)]
    ratios = [s.contrasts["t1"].grey / s.contrasts["t1"].white for s in scanners]
    assert np.std(ratios) > 0.04
    assert draw_scanner(np.random.default_rng(3)) == scanners[3]


def test_a_cohort_is_seen_by_several_scanners() -> None:
    ratios = []
    for case in map(patient, FEW):
        t1 = case.images[0][(case.label == 0) & (case.images[0] > 0)]
        ratios.append(np.percentile(t1, 30) / np.percentile(t1, 80))
    assert np.std(ratios) > 0.03  # 0.015 on one scanner


def test_follow_up_shares_the_brain_but_not_the_session_and_the_tumour_has_grown() -> None:
    before, after = patient(0), patient(0, time_point=1)
    assert before.patient == after.patient
    assert before.case != after.case
    assert before.grade == after.grade
    brains = [case.images[0] > 0 for case in (before, after)]
    assert np.mean(brains[0] == brains[1]) > 0.995
    far = brains[0] & brains[1] & ~ndimage.binary_dilation(after.label > 0, iterations=4)
    correlation = np.corrcoef(before.images[0][far], after.images[0][far])[0, 1]
    assert 0.6 < correlation < 0.999
    assert np.sum(after.label > 0) > 1.1 * np.sum(before.label > 0)
    stayed = np.mean(after.label[before.label > 0] > 0)
    assert stayed > 0.9


def test_one_patient_is_the_same_at_any_spacing() -> None:
    coarse, coarser = patient(0), synthesize_patient(0, seed=0, spacing_mm=8.0)
    litres = [np.sum(case.images[0] > 0) * mm**3 for case, mm in ((coarse, 4.0), (coarser, 8.0))]
    assert litres[1] == pytest.approx(litres[0], rel=0.05)
    assert coarse.grade == coarser.grade


# ------------------------------------------------------------------------------------- grid


@pytest.mark.parametrize(
    ("spacing_mm", "shape"), [(1, (240, 240, 155)), (2, (120, 120, 78)), (4, (60, 60, 39))]
)
def test_grid_covers_the_field_of_view_of_brats(
    spacing_mm: float, shape: tuple[int, int, int]
) -> None:
    assert grid_shape(spacing_mm) == shape
    np.testing.assert_array_equal(
        grid_affine(spacing_mm),
        [[-spacing_mm, 0, 0, 0], [0, -spacing_mm, 0, 239], [0, 0, spacing_mm, 0], [0, 0, 0, 1]],
    )


# ------------------------------------------------------------------------------------ files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cohort") / "phantoms"
    write_phantoms(out, cases=2, spacing_mm=SPACING_MM)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_files_are_named_as_brats_2021_names_them(folder: Path) -> None:
    expected = {"phantom.json"} | {
        f"BraTS2021_{i:05d}/BraTS2021_{i:05d}_{part}.nii.gz"
        for i in range(2)
        for part in (*MODALITIES, "seg")
    }
    assert set(contents(folder)) == expected


def test_files_open_with_the_right_type_and_geometry(folder: Path) -> None:
    case = patient(1)
    for part in (*MODALITIES, "seg"):
        image: Any = nibabel.load(folder / "BraTS2021_00001" / f"BraTS2021_00001_{part}.nii.gz")
        assert image.get_data_dtype() == (np.uint8 if part == "seg" else np.int16)
        assert image.header.get_xyzt_units()[0] == "mm"
        for transform in (image.affine, image.get_qform(), image.get_sform()):
            np.testing.assert_array_equal(transform, case.affine)
        voxels = case.label if part == "seg" else case.images[MODALITIES.index(part)]
        np.testing.assert_array_equal(image.dataobj, voxels)


@pytest.mark.slow
def test_files_do_not_depend_on_when_or_by_how_many_they_are_made(
    folder: Path, tmp_path: Path
) -> None:
    heard: list[str] = []
    cases = write_phantoms(
        tmp_path, cases=2, spacing_mm=SPACING_MM, workers=2, on_case=heard.append
    )
    assert cases == tuple(heard) == ("BraTS2021_00000", "BraTS2021_00001")
    assert contents(tmp_path) == contents(folder)


def test_rerun_keeps_whole_cases_and_mends_the_others(tmp_path: Path) -> None:
    write_phantoms(tmp_path, cases=2, spacing_mm=8)
    before = contents(tmp_path)
    kept = tmp_path / "BraTS2021_00000" / "BraTS2021_00000_t1.nii.gz"
    made_at = kept.stat().st_mtime_ns
    (tmp_path / "BraTS2021_00001" / "BraTS2021_00001_seg.nii.gz").unlink()
    assert len(write_phantoms(tmp_path, cases=2, spacing_mm=8)) == 2
    assert kept.stat().st_mtime_ns == made_at
    assert contents(tmp_path) == before


def test_nothing_unfinished_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_: object, **__: object) -> bytes:
        raise OSError("no space left on device")

    monkeypatch.setattr("segan_ray.data.phantom.dataset.gzip.compress", no_space)
    with pytest.raises(OSError, match="no space"):
        write_phantoms(tmp_path, cases=1, spacing_mm=8)
    assert [entry.name for entry in tmp_path.iterdir()] == ["phantom.json"]


# ----------------------------------------------------------------------------------- errors


def test_patients_made_in_an_older_way_are_not_mixed_with_new_ones(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "out", cases=1, spacing_mm=8.0)
    file = tmp_path / "out" / "phantom.json"
    settings = json.loads(file.read_text())
    del settings["version"]
    file.write_text(json.dumps(settings))
    with pytest.raises(DataError, match="version None there, 2 asked for"):
        write_phantoms(tmp_path / "out", cases=2, spacing_mm=8.0)


def test_other_settings_are_refused_and_the_difference_is_named(tmp_path: Path) -> None:
    write_phantoms(tmp_path, cases=1, spacing_mm=8, seed=3)
    assert json.loads((tmp_path / "phantom.json").read_text())["seed"] == 3
    with pytest.raises(DataError, match=r"seed 3 there, 4 asked for"):
        write_phantoms(tmp_path, cases=1, spacing_mm=8, seed=4)
    with pytest.raises(DataError, match=r"spacing_mm 8\.0 there, 4\.0 asked for"):
        write_phantoms(tmp_path, cases=1, spacing_mm=4, seed=3)


def test_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "BraTS2021_00000").mkdir()
    with pytest.raises(DataError, match="something other than phantoms"):
        write_phantoms(tmp_path, cases=1, spacing_mm=8)


def test_unknown_layout_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'brats21'.*brats2021.*Did you mean 'brats2021'\?"):
        write_phantoms(tmp_path, cases=1, layout="brats21")


@pytest.mark.parametrize("spacing_mm", [0.1, 0.0, -1.0, 8.5, float("nan")])
def test_spacing_out_of_range_is_refused(tmp_path: Path, spacing_mm: float) -> None:
    with pytest.raises(DataError, match=r"0\.5 to 8 mm"):
        write_phantoms(tmp_path, cases=1, spacing_mm=spacing_mm)
    with pytest.raises(DataError, match=r"0\.5 to 8 mm"):
        synthesize_patient(0, seed=0, spacing_mm=spacing_mm)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cases": 0}, "at least 1"),
        ({"cases": 1, "workers": 0}, "at least 1"),
        ({"cases": 1, "seed": -1}, "0 or more"),
    ],
)
def test_impossible_counts_are_refused(
    tmp_path: Path, arguments: dict[str, int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write_phantoms(tmp_path / "new", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()
