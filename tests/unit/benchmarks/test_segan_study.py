"""The stores of the study: truths that are wrong by a tenth, and nested all the same."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from segan_ray.brats import CODE_2017_TO_2021
from segan_ray.data.phantom.dataset import synthesize_patient

FOLDER = Path(__file__).parents[3] / "benchmarks" / "segan_study"


@pytest.fixture(scope="module")
def regions() -> np.ndarray:
    return CODE_2017_TO_2021.regions(synthesize_patient(0, seed=21, spacing_mm=4.0).label)


def test_a_tenth_of_each_truth_is_wrong(
    regions: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    from stores import WRONG_SHARE, wrong_region, wrong_regions  # type: ignore[import-not-found]

    rng = np.random.default_rng(0)
    wrong = wrong_regions(regions, [4.0, 4.0, 4.0], rng)
    whole = np.count_nonzero(wrong[0] ^ regions[0]) / np.count_nonzero(regions[0])
    assert whole == pytest.approx(WRONG_SHARE, abs=0.02)
    # Lost here, won there: the volume says little of it.
    assert np.count_nonzero(wrong[0] & ~regions[0])
    assert np.count_nonzero(regions[0] & ~wrong[0])
    assert not (wrong[2] & ~wrong[1]).any()
    assert not (wrong[1] & ~wrong[0]).any()
    nothing = np.zeros_like(regions[2])
    everywhere = np.ones(nothing.shape)
    assert not wrong_region(nothing, [4.0, 4.0, 4.0], everywhere, within=everywhere > 0).any()


def test_no_two_patients_have_the_same_errors(
    regions: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    from stores import write_wrong

    label = CODE_2017_TO_2021.labels(regions)
    made = []
    for name in ("BraTS2021_00001_seg.nii.gz", "BraTS2021_00087_seg.nii.gz"):
        nibabel.Nifti1Image(label, np.diag([4.0, 4.0, 4.0, 1.0])).to_filename(tmp_path / name)
        write_wrong(tmp_path / name, tmp_path / f"wrong-{name}")
        made.append(np.asarray(nibabel.load(tmp_path / f"wrong-{name}").dataobj))
    assert (made[0] != made[1]).any()
