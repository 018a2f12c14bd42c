"""Raw arrays in, label maps out; what cannot be a case is refused in words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segan_ray.brats import CODE_2017_TO_2021, CODE_MSD, LabelCode
from segan_ray.config import Experiment
from segan_ray.data.io.volumes import Volume
from segan_ray.data.store.opened_store import PrepareSettings
from segan_ray.data.store.origin import Origin
from segan_ray.errors import DataError
from segan_ray.evaluation.inference import raw_cases
from segan_ray.evaluation.inference.packaged_model import Model, TrainedSegmentor
from segan_ray.evaluation.inference.raw_cases import predict_arrays
from segan_ray.evaluation.inference.segment_volume import probabilities_of_volume, segment_volume
from segan_ray.models.build import build_segmentor

EXPERIMENT = Experiment.model_validate({"segmentor": {"base_width": 4, "depth": 2}})
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])


def make(layout: str = "brats2021") -> Model:
    torch.manual_seed(0)
    origin = Origin(store="f", layout=layout, preparation=PrepareSettings(), seen={})
    return Model((TrainedSegmentor(build_segmentor(EXPERIMENT).eval(), EXPERIMENT),), origin)


def cases(count: int = 2, *, dtype: type = np.float32) -> np.ndarray:
    image = np.random.default_rng(0).integers(1, 400, size=(count, 4, 12, 10, 6))
    image[:, :, 0] = 0
    return image.astype(dtype)


@pytest.mark.parametrize(("layout", "code"), [("brats2021", CODE_2017_TO_2021), ("msd", CODE_MSD)])
def test_labels_are_the_regions_in_the_layout_s_code(layout: str, code: LabelCode) -> None:
    model, images = make(layout), cases()
    found = predict_arrays(model, images)
    assert (found.shape, found.dtype) == ((2, 12, 10, 6), np.uint8)
    for image, label in zip(images, found, strict=True):
        expected = code.labels(segment_volume(model, Volume(image, None, AFFINE)))
        np.testing.assert_array_equal(label, expected)
    assert not found[:, 0].any()


def test_probabilities_on_request() -> None:
    model, images = make(), cases(1)
    found = predict_arrays(model, images, output="probabilities")
    assert (found.shape, found.dtype) == ((1, 3, 12, 10, 6), np.float32)
    expected = probabilities_of_volume(model, Volume(images[0], None, AFFINE))
    np.testing.assert_array_equal(found[0], expected)


def test_one_case_and_cases_of_different_grids() -> None:
    model, images = make(), cases()
    together = predict_arrays(model, images)
    np.testing.assert_array_equal(predict_arrays(model, images[1]), together[1])
    ragged = np.empty(2, dtype=object)
    ragged[:] = [images[0], images[1, ..., :5]]
    found = predict_arrays(model, ragged)
    np.testing.assert_array_equal(found[0], together[0])
    assert found[1].shape == (12, 10, 5)


def test_whole_numbers_are_taken_as_files_hold_them() -> None:
    np.testing.assert_array_equal(
        predict_arrays(make(), cases(dtype=np.int16)), predict_arrays(make(), cases())
    )


def test_the_spacing_reaches_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def note(model: Model, volume: Volume) -> np.ndarray:
        seen.append(volume)
        return np.zeros((3, *volume.image.shape[1:]), dtype=bool)

    monkeypatch.setattr(raw_cases, "segment_volume", note)
    predict_arrays(make(), cases(1), spacing_mm=(1.0, 2.0, 5.0))
    assert seen[0].spacing_mm == (1.0, 2.0, 5.0)
    # x runs to the left and y to the back, where NIfTI's axes run right and to the front.
    assert np.sign(np.diag(seen[0].affine)).tolist() == [-1, -1, 1, 1]


def with_nan() -> np.ndarray:
    images = cases()
    images[1, 2, 3, 3, 3] = np.nan
    return images


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (with_nan(), "Case 1, t2: holds NaN or infinite voxels"),
        (np.zeros((2, 4, 5, 5, 5), np.float32), "Case 0, t1: every voxel is 0"),
        (cases()[:, :3], r"Case 0 has shape \(3, 12, 10, 6\).*order t1, t1ce, t2, flair"),
        (cases()[0, :3], r"The case has shape \(3, 12, 10, 6\)"),
        (cases()[0, 0], r"Case 0 has shape \(10, 6\)"),
        (cases(0), r"An array of shape \(0, 4, 12, 10, 6\) holds no case"),
        (np.array(1.0), r"An array of shape \(\) holds no case"),
        (np.array(["a"], dtype=object), "Case 0 has shape"),
        (cases().astype(complex), "complex128; expected numbers"),
    ],
)
def test_what_cannot_be_a_case_is_refused(images: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        predict_arrays(make(), images)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (1.0, 1.0, 0.0), (1.0, 1.0, np.nan)])
def test_a_spacing_is_three_sizes(spacing_mm: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="expected three sizes in mm above 0"):
        predict_arrays(make(), cases(), spacing_mm=spacing_mm)


def test_an_unknown_output_is_refused() -> None:
    with pytest.raises(DataError, match="'masks'; expected labels or probabilities"):
        predict_arrays(make(), cases(), output="masks")


def test_a_background_that_is_no_0_is_never_labelled() -> None:
    model, images = make(), np.zeros((2, 4, 16, 16, 16), np.float32)
    images[:, :, 4:-4, 4:-4, 4:-4] = np.random.default_rng(0).integers(100, 900, (2, 4, 8, 8, 8))
    brain = (images != 0).any(axis=1)
    about = predict_arrays(model, images)
    np.testing.assert_array_equal(predict_arrays(model, images - 1024), about)
    assert not about[~brain].any()
    noise = images + np.abs(np.random.default_rng(1).normal(50, 20, images.shape))
    noise[0] = images[0]
    with pytest.raises(DataError, match="Case 1: the scans fill 100% of the grid"):
        predict_arrays(model, noise)
