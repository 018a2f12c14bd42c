"""Raw arrays of cases → label maps or probabilities: how a registered model predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, get_args

import numpy as np
from jaxtyping import Float, Float32, Num, UInt8

from segan_ray.brats import MODALITIES
from segan_ray.data.io.volumes import Volume
from segan_ray.data.io.voxel_checks import intensity_problems
from segan_ray.data.layouts.cases import layout_named
from segan_ray.errors import DataError
from segan_ray.evaluation.inference.packaged_model import Model
from segan_ray.evaluation.inference.segment_volume import probabilities_of_volume, segment_volume

OutputKind = Literal["labels", "probabilities"]
OUTPUTS: Final[tuple[OutputKind, ...]] = get_args(OutputKind)
SPACING_MM: Final = (1.0, 1.0, 1.0)


def predict_arrays(
    model: Model,
    cases: Num[np.ndarray, "*case modality x y z"],
    *,
    output: str = "labels",
    spacing_mm: Sequence[float] = SPACING_MM,
) -> np.ndarray:
    """Return label maps of raw cases in the code of the model's layout, or probabilities.

    ``cases`` holds intensities as files do, modalities in the order t1, t1ce, t2, flair, axes to
    the left, back and head, a constant outside the brain. It is an array of cases, or one case
    without the axis of cases. Cases whose grids differ are the elements of an array of dtype
    object. ``spacing_mm`` is the size of a voxel along x, y and z.

    Labels are uint8 ``(case, x, y, z)``. Probabilities are float32 ``(case, region, x, y, z)``,
    regions in the order whole, core, enhancing. The result lacks the axis of cases if ``cases``
    does, and is an array of dtype object if ``cases`` is.

    Raises:
        DataError: if the array cannot hold cases, or a case cannot be a scan.
    """
    if output not in OUTPUTS:
        raise DataError(f"output is '{output}'; expected {' or '.join(OUTPUTS)}.")
    affine = _affine(spacing_mm)
    predict = _labels if output == "labels" else probabilities_of_volume
    results = []
    for name, image in _images(cases).items():
        try:
            results.append(predict(model, Volume(image, None, affine)))
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
    if cases.dtype == object:
        ragged = np.empty(len(results), dtype=object)
        ragged[:] = results
        return ragged
    return results[0] if cases.ndim == 4 else np.stack(results)


def _labels(model: Model, volume: Volume) -> UInt8[np.ndarray, "x y z"]:
    code = layout_named(model.origin.layout).code
    return code.labels(segment_volume(model, volume))


def _affine(spacing_mm: Sequence[float]) -> Float[np.ndarray, "4 4"]:
    """Return the affine of voxels of ``spacing_mm`` whose axes run to the left, back and head."""
    spacing = np.asarray(spacing_mm, dtype=float)
    if spacing.shape != (3,) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise DataError(
            f"spacing_mm is {spacing.tolist()}; expected three sizes in mm above 0, along x, y, z."
        )
    return np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])


def _images(
    cases: Num[np.ndarray, "*case modality x y z"],
) -> dict[str, Float32[np.ndarray, "modality x y z"]]:
    """Return ``{name of the case in messages: its image}``."""
    single = cases.dtype != object and cases.ndim == 4
    images = [cases] if single else list(cases) if cases.ndim else []
    if not images:
        raise DataError(
            f"An array of shape {cases.shape} holds no case; expected (case, modality, x, y, z)."
        )
    named = {"The case" if single else f"Case {n}": image for n, image in enumerate(images)}
    return {name: _image(image, name) for name, image in named.items()}


def _image(image: np.ndarray, name: str) -> Float32[np.ndarray, "modality x y z"]:
    """Return the image of one case in float32, after checking its shape, type and intensities."""
    array = np.asarray(image)
    if array.ndim != 4 or array.shape[0] != len(MODALITIES) or array.dtype.kind not in "iuf":
        raise DataError(
            f"{name} has shape {array.shape} and type {array.dtype}; expected numbers of shape "
            f"(4, x, y, z), the modalities in the order {', '.join(MODALITIES)}."
        )
    numbers = array.astype(np.float32, copy=False)
    for modality, voxels in zip(MODALITIES, numbers, strict=True):
        for problem in intensity_problems(voxels):
            raise DataError(f"{name}, {modality}: {problem}")
    return numbers
