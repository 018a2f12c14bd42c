from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import TrialState

from segan_ray.search.optuna_adapters import make_pruner
from segan_ray.search.space.search_space import SearchSpace

EPOCHS = 27


def space(scheduler: dict[str, Any], **more: Any) -> SearchSpace:
    return SearchSpace.model_validate(
        {
            "name": "test",
            "base": {"training": {"epochs": EPOCHS}},
            "parameters": {"segmentor.lr": {"type": "float", "low": 1e-4, "high": 1e-2}},
            "scheduler": scheduler,
            **more,
        }
    )


def study_of(space: SearchSpace) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    direction = "maximize" if space.objective.mode == "max" else "minimize"
    return optuna.create_study(study_name="s", direction=direction, pruner=make_pruner(space))


def epochs_run(space: SearchSpace, study: optuna.Study, value: float) -> int:
    """Run one trial that scores ``value`` in every epoch, its pruner made anew each time."""
    trial = study.ask()
    for epoch in range(1, EPOCHS + 1):
        trial.report(value, epoch)
        study.pruner = make_pruner(space)
        if epoch < EPOCHS and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return epoch
    study.tell(trial, value)
    return EPOCHS


@pytest.mark.parametrize(
    ("scheduler", "kind"),
    [
        ("asha", SuccessiveHalvingPruner),
        ("hyperband", HyperbandPruner),
        ("median", MedianPruner),
        ("pbt", NopPruner),
        ("none", NopPruner),
    ],
)
def test_the_pruner_is_the_one_asked_for(scheduler: str, kind: type) -> None:
    assert isinstance(make_pruner(space({"type": scheduler})), kind)


def test_asha_stops_at_rungs_and_keeps_the_best_of_three() -> None:
    searched = space({"type": "asha", "grace_period": 3, "reduction_factor": 3})
    study = study_of(searched)
    run = [epochs_run(searched, study, value) for value in (0.5, 0.4, 0.3, 0.6, 0.1, 0.45)]
    # The first has nothing to be held against; 0.6 is the best of four, then of two.
    assert run == [EPOCHS, 3, 3, EPOCHS, 3, 3]


def test_asha_follows_a_metric_that_falls() -> None:
    searched = space(
        {"type": "asha", "grace_period": 2},
        objective={"metric": "train/loss_segmentor", "mode": "min"},
    )
    study = study_of(searched)
    assert [epochs_run(searched, study, value) for value in (0.5, 0.6, 0.4)] == [EPOCHS, 2, EPOCHS]


def test_median_waits_for_its_first_trials_and_its_epochs() -> None:
    searched = space({"type": "median", "grace_period": 4, "startup_trials": 3})
    study = study_of(searched)
    run = [epochs_run(searched, study, value) for value in (0.5, 0.1, 0.9, 0.4, 0.6)]
    assert run == [EPOCHS, EPOCHS, EPOCHS, 4, EPOCHS]


def test_hyperband_has_several_grace_periods_and_none_shorter_than_asked() -> None:
    searched = space({"type": "hyperband", "grace_period": 3, "reduction_factor": 3})
    study = study_of(searched)
    # Ever worse, so that each is stopped at the first rung of its bracket.
    run = [epochs_run(searched, study, 1 / (1 + number)) for number in range(40)]
    assert set(run) == {3, 9, EPOCHS}


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median"])
@pytest.mark.parametrize("grace_period", [1, 2, 5])
def test_nothing_is_stopped_before_its_grace_period(scheduler: str, grace_period: int) -> None:
    searched = space({"type": scheduler, "grace_period": grace_period})
    study = study_of(searched)
    run = [epochs_run(searched, study, 1 / (1 + number)) for number in range(30)]
    assert min(run) == grace_period


@pytest.mark.parametrize("scheduler", ["none", "pbt"])
def test_these_stop_nothing(scheduler: str) -> None:
    searched = space({"type": scheduler})
    study = study_of(searched)
    assert {epochs_run(searched, study, 1 / (1 + number)) for number in range(12)} == {EPOCHS}
