"""What a new sweep learns from an earlier one."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.storages import BaseStorage
from optuna.trial import TrialState, create_trial

from segan_ray.errors import SweepError
from segan_ray.home import Home
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.search.storage.warm_start import EarlierTrials, earlier_trials
from segan_ray.search.study.sampler_view import by_rank, sampler_view
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


def test_of_another_store_the_ranks_count(storage: BaseStorage) -> None:
    sampler = {"type": "tpe", "seed": 1, "startup_trials": 4}
    scheduler = {"type": "median", "startup_trials": 2}
    before = run(storage, trials=7, sampler=sampler)
    new = space(warm_start="earlier", sampler=sampler, scheduler=scheduler)
    earlier = earlier_trials(new, storage, "g")
    assert earlier.by_rank
    assert earlier.said[1].startswith("'earlier' was trained on another store")
    # Their levels would stop this sweep's trials.
    assert [trial.intermediate_values for trial in earlier.trials] == [{}] * 5
    begun = {"store": "g", "earlier": earlier.trials, "by_rank": True}
    SweepStudy.create("later", new, storage, **begun)
    study = SweepStudy.open("later", new, storage, store="g")
    for score in (0.001, 0.003, 0.002):
        number = study.ask().number
        assert study.report(number, 1, score) == "continue"
        study.tell(number, "completed")
    seen = sampler_view(study.study, len(earlier.trials)).get_trials(deepcopy=False)
    assert [trial.values for trial in seen if trial.state == TrialState.COMPLETE] == [
        [pytest.approx(value)] for value in (1 / 6, 3 / 6, 5 / 6, 1 / 6, 5 / 6, 3 / 6)
    ]
    assert [trial.params for trial in seen[:3]] == [
        before.study.trials[number].params for number in (0, 1, 3)
    ]
    assert [trial.intermediate_values for trial in seen[:5]] == [
        {}, {1: pytest.approx(1 / 4)}, {}, {1: pytest.approx(3 / 4)}, {}
    ]  # fmt: skip
    # In the study the scores are as they were.
    assert study.study.trials[-1].values == [0.002]
    # A sweep that learns from this one leaves out what that learnt by rank.
    assert len(earlier_trials(space(warm_start="later"), storage, "g").trials) == 3


@given(st.lists(st.floats(allow_infinity=False), min_size=1, max_size=12))
def test_ranks_keep_the_order(values: list[float]) -> None:
    trials = [create_trial(value=0.0, intermediate_values={1: value}) for value in values]
    ranked = [each.intermediate_values[1] for each in by_rank(trials)]
    for (a, rank_a), (b, rank_b) in product(zip(values, ranked, strict=True), repeat=2):
        assert (a < b) == (rank_a < rank_b)
        assert math.isnan(a) == math.isnan(rank_a)
    assert all(math.isnan(rank) or 0 < rank < 1 for rank in ranked)
    assert [each.intermediate_values[1] for each in trials] == pytest.approx(values, nan_ok=True)


@pytest.mark.parametrize(
    ("changes", "store", "words"),
    [
        ({"warm_start": "earlie"}, "f", r"no sweep is called 'earlie'. Did you mean 'earlier'\?"),
        (
            {"warm_start": "earlier", "objective": {"metric": "val/dice_core"}},
            "f",
            "scored by another objective",
        ),
        ({"warm_start": "others"}, "f", "none that this segan-ray began"),
    ],
)
def test_what_cannot_be_learned_from(storage, changes: dict, store: str, words: str) -> None:
    run(storage)
    optuna.create_study(study_name="others", storage=storage)
    with pytest.raises(SweepError, match=words):
        earlier_trials(space(**changes), storage, store)
