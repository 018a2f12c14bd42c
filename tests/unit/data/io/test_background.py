"""Backgrounds of every value, and scans that cannot be of a brain."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segan_ray.brats import CODE_2017_TO_2021, MODALITIES
from segan_ray.data.inspection.inspect_folder import inspect_case
from segan_ray.data.io.background import (
    Background,
    brain_of,
    find_background,
    foreground,
    head_problem,
    misplaced_truth,
)
from segan_ray.data.io.volumes import Volume
from segan_ray.data.layouts.cases import discover
from segan_ray.data.store.arrays import boxed_arrays
from segan_ray.data.store.manifest import PrepareSettings
from segan_ray.data.store.prepare import prepare
from segan_ray.data.store.splits import SplitSettings
from segan_ray.errors import DataError
from tests.unit.malformed import BRAIN, GRID, HEAD, SHAPE, label, scans, write_case

SPACING_MM = (2.0, 2.0, 3.0)
RNG = np.random.default_rng(7)
NOISE = RNG.normal(size=(4, *SHAPE)).astype(np.float32)


def sound(seed: int = 1) -> np.ndarray:
    """Return four scans of 200 to 1000 in a brain, 0 about it."""
    image = np.random.default_rng(seed).integers(200, 1000, (4, *SHAPE)) * BRAIN
    return image.astype(np.float32)


def z_scored(image: np.ndarray) -> np.ndarray:
    axes = (1, 2, 3)
    return (image - image.mean(axes, keepdims=True)) / image.std(axes, keepdims=True)


def half_padded(image: np.ndarray) -> np.ndarray:
    """Z-score with the background, then fill up the grid with zeros on one side."""
    image = z_scored(image)
    image[:, :, :, :2] = 0
    return image


def brain(image: np.ndarray) -> np.ndarray:
    return brain_of(dict(zip(MODALITIES, image, strict=True)), SPACING_MM)


def boxed(image: np.ndarray):
    return boxed_arrays(Volume(image, None, np.diag([-2.0, -2.0, 3.0, 1.0])), PrepareSettings())


BACKGROUNDS = {
    "z-scored with the background": z_scored,
    "-1024": lambda image: image - 1024,
    "-1024 through a header's scale": lambda image: (image - 1024) * np.float32(0.99999994),
    "a constant": lambda image: np.where(BRAIN, image, np.float32(7)),
    "a constant above the brain": lambda image: 2000 - image,
    "noise of 1e-6": lambda image: image + NOISE * np.float32(1e-6),
    "noise about -0.4": lambda image: z_scored(image) + NOISE * np.float32(1e-6),
    "noise of a thousandth": lambda image: image + NOISE,
    "whole numbers of noise": lambda image: np.rint(image + 0.7 * NOISE),
    "noise, and 0 at two ends": lambda image: image + NOISE * (GRID[2] > -0.9) * (GRID[2] < 0.9),
    "each its own": lambda image: np.stack(
        [image[0], z_scored(image)[1], image[2] - 1024, image[3] + NOISE[3] * 1e-6]
    ),
    "padded on one side": half_padded,
    "-0.0": lambda image: -image,
}


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_a_background_that_is_not_0_is_background(kind: str) -> None:
    """The brain is found, and its normalised voxels equal those around background 0."""
    image = BACKGROUNDS[kind](sound()).astype(np.float32)
    ours, usual = boxed(image), boxed(sound())
    np.testing.assert_array_equal(ours.mask, usual.mask)
    assert ours.box == usual.box
    sign = -1 if kind in ("-0.0", "a constant above the brain") else 1
    np.testing.assert_allclose(sign * ours.image, usual.image, atol=0.05)
    assert not ours.image[np.broadcast_to(ours.mask[:, None] == 0, ours.image.shape)].any()


def test_ringing_of_b_splines_is_background() -> None:
    """B-splines overshoot next to the brain, so that a shell of ringing stays."""
    wide = np.pad(sound(), ((0, 0), (16, 16), (16, 16), (16, 16)))
    inside = np.pad(BRAIN, 16)
    ringing = np.stack([ndimage.shift(scan, 0.4, order=3) for scan in wide]).astype(np.float32)
    assert (ringing != 0).mean() > 0.9
    actual = brain(ringing)
    assert actual[inside].mean() > 0.98
    assert actual[~ndimage.binary_dilation(inside, iterations=8)].mean() < 0.01


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    radius=st.floats(0.3, 0.95),
    cut=st.booleans(),
    scale=st.sampled_from([1e-4, 1.0, 1e4]),
)
def test_around_0_the_brain_is_every_voxel_that_is_not_0(
    seed: int, radius: float, cut: bool, scale
) -> None:
    """This holds for every form and crop, as before other backgrounds were recognised."""
    rng = np.random.default_rng(seed)
    inside = np.linalg.norm(GRID - rng.uniform(-0.2, 0.2, (3, 1, 1, 1)), axis=0) < radius
    image = rng.integers(100, 1000, (4, *SHAPE)) * inside * (rng.random((4, *SHAPE)) < 0.98)
    if cut:
        image = image[:, 4:-4, 4:-4, 4:-4]
    image = (image * scale).astype(np.float32)
    expected = (image != 0).any(axis=0)
    if expected.mean() < 0.9:
        np.testing.assert_array_equal(brain(image), expected)


FULL = {
    "noise": (lambda image: image + 30 * np.abs(NOISE) + 1, "fill 100% of the grid"),
    "noise in whole numbers": (
        lambda image: np.rint(image + 30 * np.abs(NOISE)),
        r"fill (9\d|100)% of the grid",
    ),
    "one modality alone": (
        lambda image: np.concatenate([image[:3], image[3:] + 99 + 30 * np.abs(NOISE[3:])]),
        r"fill 100% of the grid, flair most;.* The commonest border value is \S+, in 0% of the bor",
    ),
    "noise of one percent": (lambda image: image + 12 * NOISE, "fill 100% of the grid"),
    "half noise, half 0": (
        lambda image: image + 8 * NOISE * (GRID[0] > -0.3),
        "background is noise .* of the border is further than",
    ),
    "a cut from within": (lambda image: image[:, 7:-7, 8:-8, 5:-5], r"fill (9\d|100)% of the grid"),
}


@pytest.mark.parametrize("kind", FULL)
def test_scans_that_fill_the_grid_are_refused_with_their_share(kind: str) -> None:
    damage, words = FULL[kind]
    with pytest.raises(DataError, match=words):
        brain(damage(sound()).astype(np.float32))


def test_a_frame_of_0_about_noise_is_no_brain() -> None:
    """A box of seven litres is refused; a box of a few millilitres is not."""
    image = np.zeros((4, 40, 40, 40), np.float32)
    image[:, 4:-4, 4:-4, 4:-4] = RNG.integers(1, 99, (4, 32, 32, 32))
    named = dict(zip(MODALITIES, image, strict=True))
    with pytest.raises(DataError, match=r"fill 100% of a box of 7\.1 litres"):
        brain_of(named, (6.0, 6.0, 6.0))
    assert brain_of(named, (1.0, 1.0, 1.0)).sum() == 32**3


@pytest.mark.parametrize("skulls", [2, 3])
def test_a_skull_in_two_or_three_modalities_is_refused(tmp_path: Path, skulls: int) -> None:
    files = write_case(tmp_path, "BraTS2021_00001", 1)
    head = np.random.default_rng(0).integers(1, 900, SHAPE) * HEAD
    for modality in MODALITIES[:skulls]:
        files.change(modality, lambda voxels: np.where(BRAIN, voxels, head))
    report = inspect_case(discover(tmp_path).cases[0], "brats2021")
    (problem,) = report.problems
    assert f"{', '.join(MODALITIES[:skulls])} show up to 2." in problem
    assert report.refused


def test_modalities_scanned_in_part_are_no_skulls() -> None:
    image = sound()
    image[:2, :, :, :11] = 0
    np.testing.assert_array_equal(brain(image), BRAIN)
    image[0, :, :, 15:] = 0
    np.testing.assert_array_equal(brain(image), BRAIN)


def test_a_head_in_all_modalities_is_too_large_for_a_brain() -> None:
    whole = np.ones((20, 20, 20), dtype=bool)
    assert head_problem(whole, (6.0, 6.0, 6.0)) is None
    assert "show 2.7 litres" in str(head_problem(whole, (7.0, 7.0, 7.0)))


def test_the_constants_of_one_scan() -> None:
    image = np.full((12, 12, 12), -1024, np.float32)
    image[3:9, 3:9, 3:9] = np.arange(216).reshape(6, 6, 6) - 80
    assert find_background(image) == Background((-1024.0,), 0.0, 1.0)
    assert foreground(image).sum() == 216
    assert foreground(np.full((3, 3, 3), 5, np.float32)).all()
    assert not foreground(np.zeros((3, 3, 3), np.float32)).any()


def test_a_truth_outside_the_brain_or_all_over_it() -> None:
    tumour = np.linalg.norm(GRID, axis=0) < 0.3
    voxels = np.count_nonzero(BRAIN)
    assert misplaced_truth(tumour, BRAIN, voxels) is None
    assert misplaced_truth(np.zeros(SHAPE, bool), BRAIN, voxels) is None
    outside = misplaced_truth(np.roll(tumour, 12, axis=0), BRAIN, voxels)
    assert "100% of the segmentation" in str(outside)
    assert "covers 100% of the brain" in str(misplaced_truth(BRAIN, BRAIN, voxels))
    edge = np.argwhere(ndimage.binary_dilation(BRAIN) & ~BRAIN)[: tumour.sum() // 5]
    tumour[tuple(edge.T)] = True
    assert misplaced_truth(tumour, BRAIN, voxels) is None


BAD_CASES = {
    "noise": (
        lambda files: [
            files.change(name, lambda voxels: voxels + 30 * np.abs(NOISE[0]) + 1)
            for name in MODALITIES
        ],
        "fill 100% of the grid",
    ),
    "outside": (
        label(lambda voxels: np.where(~HEAD & (GRID[0] > 0.5), 2, 0)),
        "100% of the segmentation",
    ),
    "everywhere": (label(lambda voxels: np.full(SHAPE, 2)), "of the segmentation"),
    "all of the brain": (label(lambda voxels: np.where(BRAIN, 2, 0)), "covers 100% of the brain"),
}


@pytest.mark.parametrize("kind", BAD_CASES)
def test_prepare_refuses_the_cases_that_inspect_calls_bad(tmp_path: Path, kind: str) -> None:
    """With ``skip_bad`` it leaves them out, and prepares the good cases."""
    damage, words = BAD_CASES[kind]
    for seed in range(6):
        files = write_case(tmp_path / "data", f"BraTS2021_{seed:05}", seed)
    damage(files)
    discovery = discover(tmp_path / "data")
    reports = [inspect_case(case, "brats2021") for case in discovery.cases]
    assert [report.ok for report in reports] == [True] * 5 + [False]
    assert reports[-1].refused
    assert words in reports[-1].problems[0]
    options = {"settings": PrepareSettings(), "split_settings": SplitSettings(gate=0)}
    with pytest.raises(DataError, match=words):
        prepare(discovery, tmp_path / "store", **options)
    manifest = prepare(discovery, tmp_path / "store", skip_bad=True, **options)
    assert [(case.case, words in case.problem) for case in manifest.skipped] == [
        ("BraTS2021_00005", True)
    ]


def test_duplicate_scans_are_recognised_by_their_brains(tmp_path: Path) -> None:
    """This holds for every background and type, with a truth that reaches out or without truth."""
    image = scans(3).astype(np.float32)
    first = boxed(image)
    wider = np.pad(image, ((0, 0), (2, 5), (0, 3), (1, 1)))
    assert boxed(wider).voxels_sha256 == first.voxels_sha256
    assert boxed(np.asfortranarray(image)).voxels_sha256 == first.voxels_sha256
    truth = np.zeros(SHAPE, np.uint8)
    truth[8:14, 0:16, 8:12] = BRAIN[8:14, 0:16, 8:12]
    truth[10, 1, 10] = 1
    volume = Volume(image, truth, np.eye(4))
    reaching = boxed_arrays(volume, PrepareSettings(), CODE_2017_TO_2021)
    assert reaching.box != first.box
    assert reaching.voxels_sha256 == first.voxels_sha256
    image[0][BRAIN] += 1
    assert boxed(image).voxels_sha256 != first.voxels_sha256


def test_spacing_and_truth_are_in_the_fingerprint(tmp_path: Path) -> None:
    """The same voxels at 1 and 2 mm, with a truth and without: four stores."""
    seen = set()
    for size in (1.0, 2.0):
        for blind in (False, True):
            data = tmp_path / f"{size}-{blind}"
            for seed in range(6):
                files = write_case(data, f"BraTS2021_{seed:05}", seed)
                for path in files.folder.iterdir():
                    voxels = np.asarray(nib.load(path).dataobj)
                    nib.save(nib.Nifti1Image(voxels, np.diag([-size, -size, size, 1])), path)
                label(lambda voxels: voxels * 0)(files)
            if blind:
                files["seg"].unlink()
            manifest = prepare(
                discover(data),
                tmp_path / f"store-{size}-{blind}",
                settings=PrepareSettings(),
                split_settings=SplitSettings(gate=0),
            )
            seen.add(manifest.fingerprint)
    assert len(seen) == 4
