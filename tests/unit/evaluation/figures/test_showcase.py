"""Pictures of best, median and worst case: which cases, which slice, what is drawn."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segan_ray.brats import REGIONS
from segan_ray.data.store.opened_store import PreparedCase, TuningCases
from segan_ray.evaluation.figures.palette import COLOURS
from segan_ray.evaluation.figures.showcase import (
    FOOT,
    HEAD,
    PANEL,
    RANKS,
    Slice,
    draw_showcase,
    draw_slice,
    fullest_slice,
    pick_cases,
)
from segan_ray.evaluation.metrics.region_metrics import RegionScores
from segan_ray.evaluation.metrics.scores import CaseScores
from segan_ray.evaluation.scoring.score_cases import score_cases
from segan_ray.home import Home


def scored(case: str, patient: str, dice: float) -> CaseScores:
    region = RegionScores(dice=dice, precision=1, sensitivity=1, specificity=1, hd95=0)
    return CaseScores(case, patient, dict.fromkeys(REGIONS, region))


def truth(case: PreparedCase) -> np.ndarray:
    return np.stack([case.mask() & (1 << bit) != 0 for bit in range(3)])


def nothing(case: PreparedCase) -> np.ndarray:
    return np.zeros_like(truth(case))


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"))


def drawn(picture: Image.Image, region: str) -> int:
    """Count the pixels near a region's colour in the panels, legend and numbers aside."""
    panels = pixels(picture)[HEAD + 24 : HEAD + PANEL].astype(int)
    return int((np.abs(panels - COLOURS[region]).max(axis=-1) < 40).sum())


def test_places_go_to_patients_by_their_mean_dice() -> None:
    scores = [
        scored("a1", "a", 0.9), scored("a2", "a", 0.1), scored("a3", "a", 0.6),
        scored("b", "b", 0.7), scored("c", "c", 0.4), scored("d", "d", 0.55), scored("e", "e", 0.2),
    ]  # fmt: skip
    picked = {place: one.case for place, one in pick_cases(scores).items()}
    # Patient a has a mean of 0.533, so d is second and a the median, by its most typical case.
    assert picked == {"best": "b", "median": "a3", "worst": "e"}


@pytest.mark.parametrize(
    ("dices", "expected"), [([0.5], "aaa"), ([0.5, 0.6], "baa"), ([0.5, 0.5, 0.5], "abc")]
)
def test_few_patients_take_more_than_one_place(dices: list[float], expected: str) -> None:
    scores = [scored(name, name, dice) for name, dice in zip("abc", dices, strict=False)]
    assert "".join(one.case for one in pick_cases(scores).values()) == expected


def test_the_fullest_slice_counts_what_is_missed_and_what_is_made_up() -> None:
    true, made_up = np.zeros((2, 3, 4, 5, 5), dtype=bool)
    true[0, 1, :2] = True
    assert fullest_slice(true, made_up) == 1
    made_up[0, 3] = True
    assert fullest_slice(true, made_up) == 3


def square_slice(true: bool, predicted: bool, spacing_mm: tuple[float, float] = (1, 1)) -> Slice:
    region = np.zeros((3, 40, 40), dtype=bool)
    region[0, 10:30, 10:30] = True
    empty = np.zeros_like(region)
    return Slice(
        image=np.full((4, 40, 40), -2.5, dtype=np.float32),
        brain=np.ones((40, 40), dtype=bool),
        truth=region if true else empty,
        predicted=region if predicted else empty,
        spacing_mm=spacing_mm,
    )


def test_truth_is_solid_and_prediction_dashed() -> None:
    dice = dict.fromkeys(REGIONS, 0.5)
    solid = draw_slice(square_slice(true=True, predicted=False), "case", dice)
    dashed = draw_slice(square_slice(true=False, predicted=True), "case", dice)
    neither = draw_slice(square_slice(true=False, predicted=False), "case", dice)
    assert drawn(neither, "whole") == 0
    side = {
        name: (np.abs(pixels(one)[HEAD + 75, 60:240].astype(int) - COLOURS["whole"]).max(axis=-1))
        for name, one in (("solid", solid), ("dashed", dashed))
    }
    along = slice(30, 150)  # clear of the rounded corners
    assert (side["solid"][along] < 130).all()
    assert 0.2 < (side["dashed"][along] < 130).mean() < 0.8


def test_a_slice_is_true_to_mm() -> None:
    dice = dict.fromkeys(REGIONS, 0.5)
    shown = square_slice(true=True, predicted=False, spacing_mm=(1.0, 0.5))
    panel = pixels(draw_slice(shown, "case", dice))[HEAD : HEAD + PANEL, :PANEL].astype(int)
    rows, columns = np.nonzero(np.abs(panel - COLOURS["whole"]).max(axis=-1) < 60)
    assert np.ptp(columns) == pytest.approx(2 * np.ptp(rows), rel=0.05)


def test_a_long_name_stays_in_its_half() -> None:
    dice = dict.fromkeys(REGIONS, 0.5)
    short, long = (
        pixels(draw_slice(square_slice(true=True, predicted=True), name, dice))
        for name in ("case", "very-long-name-of-a-case-" * 9)
    )
    np.testing.assert_array_equal(short[:, 2 * PANEL :], long[:, 2 * PANEL :])


def test_every_place_has_a_small_picture_of_four_panels(tuning_cases: TuningCases) -> None:
    cases = tuning_cases.train
    pictures = dict(draw_showcase(truth, cases, score_cases(truth, cases)))
    assert tuple(pictures) == RANKS
    for picture in pictures.values():
        assert picture.size == (4 * PANEL, HEAD + PANEL + FOOT)
        assert drawn(picture, "whole") > 200
        encoded = io.BytesIO()
        picture.save(encoded, format="PNG", optimize=True)
        assert len(encoded.getvalue()) < 300_000


def test_a_missed_tumour_is_drawn_as_far_as_it_is_true(tuning_cases: TuningCases) -> None:
    cases = tuning_cases.val
    for _, picture in draw_showcase(nothing, cases, score_cases(nothing, cases)):
        assert drawn(picture, "whole") > 100


@pytest.mark.slow
def test_pictures_come_back_from_the_run_they_were_logged_to(
    tuning_cases: TuningCases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segan_ray.tracking.client.connection import connect, experiment_id
    from segan_ray.workflows.case_pictures import log_showcase, read_showcase

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = Home.at(tmp_path / "home")
    client = connect(home)
    run = client.create_run(experiment_id(client, home)).info.run_id
    assert read_showcase(client, run) == {}
    cases = tuning_cases.val
    log_showcase(client, run, truth, cases, score_cases(truth, cases))
    found = read_showcase(client, run)
    assert tuple(found) == RANKS
    assert {Image.open(io.BytesIO(png)).format for png in found.values()} == {"PNG"}
