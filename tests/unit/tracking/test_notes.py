"""What MLflow's UI says about sweeps, trials and model versions."""

from __future__ import annotations

import json

import pytest

from segan_ray.search.results.ranking import SweepRecord, TrialRecord
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.description.facts import SweepFacts
from segan_ray.tracking.description.notes import (
    drawn_by,
    sweep_note,
    sweep_result,
    trial_note,
    version_note,
    with_result,
)
from segan_ray.tracking.description.views import SWEEPS, view_page
from segan_ray.tracking.ui.server import front_page

FACTS = SweepFacts("s", StoreCard("/data/store", "abc", {"train": 8}), "val/x", "max")
SPACE = "name: s\nparameters:\n  segmentor.lr: {type: float}\n  critic.depth: {type: int}\n"


def record(*trials: TrialRecord) -> SweepRecord:
    return SweepRecord("s", "finished", "val/x", "max", "abc", "2026-01-01", trials)


def trial(name: str, score: float | None) -> TrialRecord:
    status = "failed" if score is None else "completed"
    return TrialRecord(name, status, 1, score, f"run-{name}", {})


def test_a_sweep_asks_for_what_it_draws() -> None:
    note = sweep_note(FACTS, SPACE, "1")
    assert note.startswith(
        "Which values of `segmentor.lr`, `critic.depth` give the highest **val/x**?"
    )
    assert "`store`, fingerprint `abc` (patients: 8 train)" in note
    assert "segan-ray tune store --space space.yaml" in note


@pytest.mark.parametrize("text", [None, "", "name: [", "- 1", "parameters: 3", "name: s"])
def test_a_space_that_cannot_be_read_draws_nothing(text: str | None) -> None:
    assert drawn_by(text) == []
    assert "Which values of the settings in its space" in sweep_note(FACTS, text, "1")


def test_the_result_names_the_best_and_takes_the_place_of_an_earlier_one() -> None:
    failed = sweep_result(record(trial("000", None)), "1")
    assert failed == "finished, 1 failed"
    note = with_result("Mine.\n\nStays.", failed)
    found = sweep_result(record(trial("001", 0.5), trial("000", None)), "1")
    assert "trial 001" in found
    assert "**0.5000**" in found
    assert "1 completed, 1 failed" in found
    again = with_result(note, found)
    assert again == f"**Result:** {found}\n\nMine.\n\nStays."
    assert with_result(again, found) == again
    below = with_result(f"A thought.\n\n{note}", found)
    assert below == f"A thought.\n\n**Result:** {found}\n\nMine.\n\nStays."


def test_a_trial_says_what_was_drawn_for_it() -> None:
    note = trial_note(FACTS, "parent", "1", {"loss.scale_weights": [1.0, 0.5]}, None)
    assert note.startswith("A trial of [s](#/experiments/1/runs/parent")
    assert "| `loss.scale_weights` | [1.0, 0.5] |" in note
    assert "settings of trial 000 again" in trial_note(FACTS, "parent", "1", {}, "000")


def test_a_version_says_its_score_and_verdict() -> None:
    tags = {
        "segan.sweep": "s", "segan.trial": "001", "segan.val/dice_mean": "0.71234567",
        "segan.verdict": "Better.", "segan.forced": "false",
    }  # fmt: skip
    said = "val/dice_mean 0.7123. Trial 001 of sweep s. Gate: Better."
    assert version_note(tags) == said
    assert version_note({}) == ""


def test_a_view_is_a_saved_view_as_mlflow_reads_it() -> None:
    key, value = SWEEPS.tag(["segmentor.lr"])
    assert f"mlflow.sharedViewState.{SWEEPS.key}" == key
    assert f"viewStateShareKey={SWEEPS.key}" in view_page("1", SWEEPS)
    state = json.loads(json.loads(value)["state"])
    chosen = state["selectedColumns"]
    assert chosen[0] == "metrics.`val/dice_mean`"
    assert "params.`segmentor.lr`" in chosen
    assert [name for name in state["columnOrder"] if name in chosen] == chosen
    assert len(value) < 5000, "MLflow takes no longer tag"


def test_the_front_page_is_mlflows_behind_a_script() -> None:
    page = front_page("<html><head><title>MLflow</title></head></html>", "#/x?y='</script>'")
    assert page.startswith("<html><head><script>")
    assert page.count("</script>") == 1
    assert page.endswith("<title>MLflow</title></head></html>")
