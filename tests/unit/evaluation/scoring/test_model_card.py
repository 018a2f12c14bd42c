"""The card of a promoted model."""

from __future__ import annotations

import pytest
import torch

from segan_ray.brats import REGIONS
from segan_ray.config import load_experiment
from segan_ray.evaluation.inference.packaged_model import Model, TrainedSegmentor
from segan_ray.evaluation.metrics.region_metrics import RegionScores
from segan_ray.evaluation.metrics.scores import CaseScores
from segan_ray.evaluation.scoring.model_card import Judged, model_card
from tests.unit.stored import ORIGIN

SETTINGS = ["segmentor.network=segan", "segmentor.depth=2", "critic.depth=4", "data.neighbours=1"]


def scored(patients: int, dice: float = 0.8) -> list[CaseScores]:
    """The second patient's core is missed."""
    return [
        CaseScores(
            f"case{number}",
            f"patient{number}",
            {
                region: RegionScores(0.0 if (number, region) == (1, "core") else dice, 1, 1, 1, 2.5)
                for region in REGIONS
            },
        )
        for number in range(patients)
    ]


def card(patients: int = 8, members: int = 1, **judged: object) -> str:
    experiment = load_experiment(None, SETTINGS)
    member = TrainedSegmentor(torch.nn.Identity(), experiment)
    facts = {"verdict": "Dice is better by 0.1.", "optimistic": False, "tries": 3, **judged}
    return model_card(
        "segan",
        Model((member,) * members, ORIGIN),
        "From the sweep first, trial 003.",
        Judged(scored(patients), **facts),  # type: ignore[arg-type]
        "models:/segan@champion",
    )


def test_it_says_how_good_the_model_is_and_where_it_failed() -> None:
    text = card()
    assert "On 8 gate patients that no trial saw" in text
    rows = {line.split(" | ")[0]: line for line in text.splitlines() if line.startswith("| ")}
    assert "0.800 [0.800, 0.800] | 2.5 [2.5, 2.5]" in rows["| whole"]
    assert rows["| core"].endswith("| 1 of 8 |")
    assert "0.700 [" in rows["| core"]
    assert "Gate: Dice is better by 0.1. It was try 3 on these patients." in text


def test_it_says_what_it_is_for_what_it_saw_and_how_to_load_it() -> None:
    text = card()
    assert "no medical device" in text
    assert f"Store `{ORIGIN.store}`" in text
    assert 'mlflow.pyfunc.load_model("models:/segan@champion")' in text
    assert "with 1 more on each side" in text
    assert "| `critic.depth` | 4 |" in text
    assert "training.epochs" not in text  # a default


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"patients": 4}, "Too few for intervals (6)."),
        ({"optimistic": True}, "validation patients that chose it, so better than it is"),
        ({"members": 3}, "The mean of 3 networks (segan)"),
        ({"members": 3}, "Of the first member"),
    ],
)
def test_what_lessens_its_worth_is_said(facts: dict, words: str) -> None:
    assert words in card(**facts)
    assert "try" not in card(tries=None).partition("Gate:")[2].partition("\n")[0]
