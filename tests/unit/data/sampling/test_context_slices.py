"""Slices with their context slices, and maps on the voxels that they came from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from segan_ray.brats import MODALITIES, as_written
from segan_ray.config import load_experiment
from segan_ray.data.sampling.slices import epoch_batches, slice_source
from segan_ray.data.store.opened_store import PreparedCase, TuningCases
from segan_ray.data.store.origin import write_origin
from segan_ray.evaluation.figures.overlays import draw_overlay
from segan_ray.evaluation.inference.packaged_model import load_model
from segan_ray.evaluation.inference.predict_box import BoxArrays, predict_box
from segan_ray.evaluation.inference.segment_volume import segment_case
from segan_ray.evaluation.inference.validation import validation_settings
from segan_ray.models.build import build_segmentor
from segan_ray.training.checkpoints.checkpoint import save_checkpoint
from segan_ray.training.state import new_state
from segan_ray.training.step import MicroBatch
from tests.unit.segmentors import settings as inference_settings
from tests.unit.stored import stored_case

CPU = torch.device("cpu")
ROW, COLUMN, SLICE = range(3)
SIDES = st.integers(1, 40)
SLOW = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def shifted(volume: np.ndarray, by: int) -> np.ndarray:
    """Return the slices ``by`` further on; 0 past the ends."""
    out = np.zeros_like(volume)
    for position in range(len(volume)):
        if 0 <= position + by < len(volume):
            out[position] = volume[position + by]
    return out


class Parity(nn.Module):
    """Marks voxels by their own row and column and by the lowest and highest neighbour's."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        low, high = image[:, :4], image[:, -4:]
        return torch.stack(
            [
                (low[:, ROW] % 3 == 1) & (low[:, SLICE] % 2 == 1),
                (high[:, COLUMN] % 3 == 1) & (high[:, SLICE] % 2 == 1),
                low[:, ROW] * 7 + high[:, COLUMN] * 5 > 100,
            ],
            dim=1,
        ).float()


@SLOW
@given(
    size=st.tuples(SIDES, SIDES, st.integers(1, 9)),
    origin=st.tuples(*[st.integers(0, 5)] * 3),
    downsampling_levels=st.integers(0, 5),
    context_slices=st.integers(0, 3),
    batch_size=st.integers(1, 10),
)
def test_a_map_lands_on_the_voxels_it_came_from(
    tmp_path: Path, size, origin, downsampling_levels: int, context_slices: int, batch_size: int
) -> None:
    case = stored_case(tmp_path, size, origin)
    asked = inference_settings(
        downsampling_levels=downsampling_levels,
        context_slices=context_slices,
        batch_size=batch_size,
    )
    actual = predict_box(Parity(), BoxArrays.of_case(case), asked).regions
    image = np.array(case.image()).astype(np.float32)
    low, high = shifted(image, -context_slices), shifted(image, context_slices)
    said = np.stack(
        [
            (low[:, ROW] % 3 == 1) & (low[:, SLICE] % 2 == 1),
            (high[:, COLUMN] % 3 == 1) & (high[:, SLICE] % 2 == 1),
            low[:, ROW] * 7 + high[:, COLUMN] * 5 > 100,
        ]
    )
    expected = as_written(said)
    np.testing.assert_array_equal(actual, expected)
    full = case.restore(actual)
    x, y, z = (slice(start, start + length) for start, length in zip(origin, size, strict=True))
    np.testing.assert_array_equal(full[:, x, y, z], np.moveaxis(expected, 1, -1))
    assert full.sum() == expected.sum()


@SLOW
@given(
    size=st.tuples(SIDES, SIDES, st.integers(2, 9)),
    crop=st.integers(1, 48),
    context_slices=st.integers(0, 2),
    flip=st.booleans(),
)
def test_the_voxels_of_a_crop(
    tmp_path: Path, size, crop: int, context_slices: int, flip: bool
) -> None:
    source = slice_source([stored_case(tmp_path, size)])
    (packed,) = epoch_batches(
        source, steps=1, batch_size=3, crop=crop, tumour_fraction=0.5, flip=flip, seed=0, epoch=1,
        context_slices=context_slices,
    )  # fmt: skip
    batch = packed.unpack(CPU)
    for where, stack, brain in zip(batch.slices, batch.image, batch.brain, strict=True):
        centre = stack[4 * context_slices :][:4].numpy().astype(int)
        inside = brain[0].numpy() > 0
        assert (centre[SLICE] == (where.position + 1) * inside).all()
        for axis, side in enumerate(size[:2]):
            lines = np.flatnonzero(inside.any(axis=1 - axis))
            # As much as fits, in one piece, in the middle where there is room.
            assert len(lines) == min(side, crop)
            assert lines[0] in {(crop - len(lines)) // 2, (crop - len(lines) + 1) // 2}
            shown = centre[axis].max(axis=1 - axis)[lines]
            steps = set(np.diff(shown).tolist())
            assert steps <= ({1, -1} if axis == 0 and flip else {1})
            assert len(steps) <= 1
        for index, modalities in enumerate(stack.numpy().astype(int).reshape(-1, 4, crop, crop)):
            position = where.position + index - context_slices
            exists = 0 <= position < size[2]
            assert (modalities[SLICE] == (position + 1) * inside * exists).all()
            assert (modalities[ROW] == centre[ROW] * exists).all()


def test_the_centre_of_a_stack_is_the_slice_alone(tuning_cases: TuningCases) -> None:
    options = {
        "steps": 3, "batch_size": 4, "crop": 48, "tumour_fraction": 0.7, "flip": True, "seed": 1,
        "epoch": 1,
    }  # fmt: skip
    source = slice_source(tuning_cases.train)
    alone, stacked = (
        [batch.unpack(CPU) for batch in epoch_batches(source, context_slices=k, **options)]
        for k in (0, 2)
    )
    for one, many in zip(alone, stacked, strict=True):
        assert many.image.shape[1] == 5 * len(MODALITIES)
        part = MicroBatch(many.image, many.truth, many.brain)
        assert torch.equal(part.centre, one.image)
        assert torch.equal(MicroBatch(one.image, one.truth, None).centre, one.image)
        assert torch.equal(many.truth, one.truth)


def test_a_store_of_more_arrays_than_open_files(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    case = stored_case(tmp_path, (4, 4, 2))
    source = slice_source([case] * 150)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Other tests of this process leave files of their own open.
    spare = 100 + max(int(entry.name) for entry in Path("/dev/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, spare), hard))
    try:
        batches = epoch_batches(
            source, steps=100, batch_size=8, crop=4, tumour_fraction=None, flip=False, seed=0,
            epoch=1,
        )  # fmt: skip
        seen = {where.case for batch in batches for where in batch.slices}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(seen) > 130


@pytest.mark.parametrize("variant", ["s1-1c", "s1-3c", "s3-3c", "unet"])
def test_a_checkpoint_restores_a_network_with_context_slices(
    tuning_cases: TuningCases, tmp_path: Path, variant: str
) -> None:
    experiment = load_experiment(
        None,
        [
            f"variant={variant}", "data.neighbours=2", "segmentor.depth=2",
            "segmentor.base_width=4", "critic.depth=2", "critic.base_width=4",
            "training.precision=float32",
        ],
    )  # fmt: skip
    assert next(build_segmentor(experiment).parameters()).shape[1] == 20
    state = new_state(experiment, CPU)
    save_checkpoint(tmp_path, state, experiment)
    write_origin(tmp_path, tuning_cases.origin)
    case: PreparedCase = tuning_cases.val[0]
    actual = segment_case(load_model(tmp_path), case)
    asked = validation_settings(experiment, CPU)
    assert asked.context_slices == 2
    in_training = predict_box(state.segmentor, BoxArrays.of_case(case), asked).regions
    np.testing.assert_array_equal(actual, in_training)
    picture = draw_overlay(state.segmentor, [case], asked)
    assert picture.size[0] > 0
