"""What a new sweep learns from an earlier one."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage

from segan_ray.errors import SweepError
from segan_ray.home import Home
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.search.storage.warm_start import EarlierTrials, earlier_trials
from segan_ray.search.study.sweep_study import SweepStudy
from tests.unit.search.study.test_study import LR, WEIGHTS, space

ASHA = {"type": "asha", "grace_period": 1, "reduction_factor": 2}


@pytest.fixture
def storage(studies: None, tmp_path: Path) -> BaseStorage:
    return open_storage(Home(tmp_path))


def run(
    storage: BaseStorage, name: str = "earlier", trials: int = 6, **changes: object
) -> SweepStudy:
    study = SweepStudy.create(name, space(**changes), storage, store="f")
    for number in range(trials):
        point = study.ask()
        study.report(point.number, 1, 0.1 * number)
        study.tell(point.number, ("completed", "stopped", "failed")[number % 3])
    study.ask()
    return study


def begin(storage: BaseStorage, name: str = "later", **changes: object) -> SweepStudy:
    new = space(warm_start="earlier", **changes)
    earlier = earlier_trials(new, storage, "f")
    return SweepStudy.create(name, new, storage, store="f", earlier=earlier.trials)


def test_nothing_is_learned_unasked(storage: BaseStorage) -> None:
    assert earlier_trials(space(), storage, "f") == EarlierTrials()


def test_trials_that_ended_well_are_learned_from(storage: BaseStorage) -> None:
    before = run(storage)
    earlier = earlier_trials(space(warm_start="earlier"), storage, "f")
    assert earlier.said == ("Learning from 4 trials of 'earlier'.",)
    wanted = [before.study.trials[number] for number in (0, 1, 3, 4)]
    assert [trial.params for trial in earlier.trials] == [trial.params for trial in wanted]
    assert [trial.state for trial in earlier.trials] == [trial.state for trial in wanted]
    assert [trial.intermediate_values for trial in earlier.trials] == [
        trial.intermediate_values for trial in wanted
    ]


def test_what_lies_outside_the_new_space_is_left(storage: BaseStorage) -> None:
    before = run(storage)
    depths = [before.study.trials[number].params["critic.depth"] for number in (0, 1, 3, 4)]
    narrow = {"segmentor.lr": LR, "critic.depth": {"type": "int", "low": 1, "high": 2}}
    inside = sum(depth <= 2 for depth in depths)
    assert 0 < inside < 4
    earlier = earlier_trials(space(warm_start="earlier", parameters=narrow), storage, "f")
    assert earlier.said == (
        f"Learning from {inside} trials of 'earlier'; {4 - inside} others lie outside this space.",
    )
    assert len(earlier.trials) == inside
    # Another parameter that earlier trials lack, or one that they had and this space has not.
    for parameters in ({**narrow, "critic.lr": LR}, {"segmentor.lr": LR}):
        assert not earlier_trials(
            space(warm_start="earlier", parameters=parameters), storage, "f"
        ).trials


def test_lists_are_points_too(storage: BaseStorage) -> None:
    parameters = {
        "critic.depth": {"type": "int", "low": 1, "high": 3},
        "loss.scale_weights": WEIGHTS,
    }
    run(storage, parameters=parameters)
    new = space(warm_start="earlier", parameters=parameters)
    assert len(earlier_trials(new, storage, "f").trials) == 4


def test_a_warm_sweep_counts_its_own_trials(storage: BaseStorage) -> None:
    run(storage)
    study = begin(storage, scheduler=ASHA, sampler={"type": "tpe", "seed": 1, "startup_trials": 2})
    assert (study.asked, study.left(), study.trials.repeats, study.trials.ended()) == (0, 20, 0, {})
    first = study.ask()
    assert first.number == 0
    # Earlier trials stop none of these: no trial of this sweep was at this rung before.
    assert study.report(0, 1, 0.0) == "continue"
    study.tell(0, "completed")
    again = SweepStudy.reopened("later", storage)
    assert (again.asked, list(again.trials.ended())) == (1, [0])
    second = again.ask()
    assert SweepStudy.reopened("later", storage).reopen() == [second]
    assert again.enqueue_repeats(1, 1) == 1
    repeat = again.ask()
    assert (repeat.repeat_of, repeat.params) == (0, first.params)


def test_a_sampler_learns_from_earlier_trials(storage: BaseStorage) -> None:
    sampler = {"type": "tpe", "seed": 1, "startup_trials": 4}
    run(storage, trials=30, sampler=sampler)
    cold = SweepStudy.create("cold", space(sampler=sampler), storage, store="f")
    warm = begin(storage, sampler=sampler)
    # Its first draws are no random ones any more.
    assert warm.ask().params != cold.ask().params


@pytest.mark.parametrize(
    ("changes", "store", "words"),
    [
        ({"warm_start": "earlie"}, "f", r"no sweep is called 'earlie'. Did you mean 'earlier'\?"),
        ({"warm_start": "earlier"}, "g", "scored on another store or by another objective"),
        (
            {"warm_start": "earlier", "objective": {"metric": "val/dice_core"}},
            "f",
            "scored on another store or by another objective",
        ),
        ({"warm_start": "others"}, "f", "none that this segan-ray began"),
    ],
)
def test_what_cannot_be_learned_from(storage, changes: dict, store: str, words: str) -> None:
    run(storage)
    optuna.create_study(study_name="others", storage=storage)
    with pytest.raises(SweepError, match=words):
        earlier_trials(space(**changes), storage, store)
