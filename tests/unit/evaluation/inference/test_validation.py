"""Validation: scores over whole volumes, shared out among workers."""

from __future__ import annotations

import numpy as np
import pytest

from segan_ray.brats import as_written
from segan_ray.config import load_experiment
from segan_ray.data.store.opened_store import BRAIN_BIT, TuningCases
from segan_ray.evaluation.inference.inference_settings import InferenceSettings
from segan_ray.evaluation.inference.predict_box import BoxArrays, predict_box
from segan_ray.evaluation.inference.validation import validate, validation_settings
from segan_ray.evaluation.scoring.score_cases import score_cases
from tests.unit.segmentors import CPU, PLAIN, BrightFlair, Unnested


def test_validation_equals_the_scores_in_the_original_grid(tuning_cases: TuningCases) -> None:
    found = validate(BrightFlair(), tuning_cases.val, PLAIN).scores
    scores = score_cases(
        lambda case: predict_box(BrightFlair(), BoxArrays.of_case(case), PLAIN).regions,
        tuning_cases.val,
    )
    for region in ("whole", "core", "enhancing"):
        expected = np.mean([case.regions[region].dice for case in scores])
        assert found[f"val/dice_{region}"] == pytest.approx(expected)
    assert found["val/dice_mean"] == pytest.approx(
        np.mean([found[f"val/dice_{name}"] for name in ("whole", "core", "enhancing")])
    )


def test_workers_share_validation_and_agree(tuning_cases: TuningCases) -> None:
    alone = validate(BrightFlair(), tuning_cases.val, PLAIN)
    shares: list = []
    validate(
        BrightFlair(), tuning_cases.val, PLAIN, rank=1, workers=2,
        gather=lambda mine: shares.append(mine) or [mine],
    )  # fmt: skip
    together = validate(
        BrightFlair(), tuning_cases.val, PLAIN, rank=0, workers=2,
        gather=lambda mine: [mine, *shares],
    )  # fmt: skip
    assert together == pytest.approx(alone)


def test_validation_shows_what_is_written(tuning_cases: TuningCases) -> None:
    case = tuning_cases.val[0]
    raw = (np.moveaxis(np.array(case.image()[:, :3]), 1, 0) > 1) & (case.mask() & BRAIN_BIT != 0)
    assert not np.array_equal(raw, as_written(raw))
    found = validate(Unnested(), [case], PLAIN).scores
    (scores,) = score_cases(lambda _: raw, [case])
    for region, of_region in scores.regions.items():
        assert found[f"val/dice_{region}"] == of_region.dice
        assert found[f"val/precision_{region}"] == of_region.precision


@pytest.mark.parametrize(
    "changes",
    [(), ("variant=unet",), ("data.neighbours=2",), ("training.precision=bfloat16",)],
    ids=str,
)
def test_validation_differs_from_a_model_in_the_batch_alone(changes: tuple[str, ...]) -> None:
    """Scores of old checkpoints hold to the last digit, for which the batch must stay."""
    experiment = load_experiment(None, [*changes])
    expected = InferenceSettings.of((experiment,), CPU, batch_size=32)
    assert validation_settings(experiment, CPU) == expected
