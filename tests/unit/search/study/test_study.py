"""A sweep's study in a real database, opened again and again as restarted processes would."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from segan_ray.errors import SweepError
from segan_ray.home import Home
from segan_ray.search.points.points import REUSED
from segan_ray.search.points.same_points import count_points
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.storage.study_record import READY, SPACE, is_half_made
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.search.study.study_budget import Limits
from segan_ray.search.study.sweep_study import (
    Ended,
    Exploit,
    SweepStudy,
    delete_study,
    study_exists,
)

pytestmark = pytest.mark.usefixtures("studies")

LR = {"type": "float", "low": 1e-5, "high": 1e-2, "log": True}
WEIGHTS = {"type": "floats", "length": "critic.depth + 1", "low": 0.1, "high": 4}


def space(**changes: object) -> SearchSpace:
    tree = {
        "name": "test",
        "base": {"training": {"epochs": 9}},
        "parameters": {"segmentor.lr": LR, "critic.depth": {"type": "int", "low": 1, "high": 3}},
        "sampler": {"type": "random", "seed": 0},
        "scheduler": {"type": "none"},
        "enqueue": [],
        **changes,
    }
    return SearchSpace.model_validate(tree)


class Sweep:
    """The study of one sweep; ``again`` opens it as a process does that was started anew."""

    def __init__(self, home: Path, space: SearchSpace) -> None:
        self.home, self.space = Home(home), space
        self.study = SweepStudy.create("sweep", space, self.storage, store="f")

    @property
    def storage(self) -> BaseStorage:
        """A new connection each time."""
        return open_storage(self.home)

    def again(self) -> SweepStudy:
        self.study = SweepStudy.open("sweep", self.space, self.storage, store="f")
        return self.study

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        return optuna.load_study(study_name="sweep", storage=self.storage).trials

    @property
    def states(self) -> list[str]:
        return [trial.state.name for trial in self.trials]

    def train(self, *values: float, outcome: str = "completed") -> int:
        number = self.study.ask().number
        for epoch, value in enumerate(values, start=1):
            self.study.report(number, epoch, value)
        self.study.tell(number, outcome)
        return number


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path, space())


def test_trials_are_told_as_what_they_were(sweep: Sweep) -> None:
    sweep.train(0.2, 0.7, 0.5)
    sweep.train(0.1, outcome="stopped")
    sweep.train(0.6, outcome="failed")
    sweep.train()
    diverged = sweep.study.ask().number
    sweep.study.report(diverged, 1, 0.0)
    sweep.study.tell(diverged, "failed", "the loss is not finite", learn=True)
    assert sweep.states == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "PRUNED"]
    # A completed trial has the value of its best epoch, not of a later one.
    assert sweep.trials[0].value == 0.7
    assert sweep.trials[0].intermediate_values == {1: 0.2, 2: 0.7, 3: 0.5}
    assert sweep.trials[diverged].value == 0
    ended = sweep.again().trials.ended()
    assert ended[1] == Ended("stopped", None)
    assert ended[diverged] == Ended("failed", "the loss is not finite", learn=True)
    assert not sweep.study.trials.all_failed
    assert sweep.study.trials.first_reason == "the loss is not finite"


def test_of_a_least_objective_the_least_epoch_counts(tmp_path: Path) -> None:
    lowest = Sweep(tmp_path, space(objective={"metric": "time/epoch_s", "mode": "min"}))
    lowest.train(0.5, 0.2, 0.9)
    assert lowest.trials[0].value == 0.2


def test_nothing_ended_is_not_all_failed(sweep: Sweep) -> None:
    assert not sweep.study.trials.all_failed
    assert sweep.study.trials.first_reason == "No trial was started."
    sweep.train(outcome="failed")
    assert sweep.study.trials.all_failed


def test_open_trials_go_on_with_their_numbers_and_params(sweep: Sweep) -> None:
    points = [sweep.study.ask() for _ in range(3)]
    sweep.study.report(1, 1, 0.4)
    sweep.study.tell(0, "stopped")
    before = sweep.study
    reopened = sweep.again().reopen()
    assert reopened == points[1:]
    assert sweep.study.reopen() == []
    assert sweep.study.asked == 3
    # An epoch that the earlier process reported is not reported again.
    sweep.study.report(1, 1, 0.9)
    assert sweep.trials[1].intermediate_values == {1: 0.4}
    assert sweep.study.ask().number == 3
    assert before.asked == 3


def test_suspended_trials_wait_and_nothing_runs(sweep: Sweep) -> None:
    points = [sweep.study.ask() for _ in range(2)]
    sweep.study.tell(0, "stopped")
    sweep.study.suspend()
    assert sweep.states == ["FAIL", "WAITING"]
    # A process that is cut off before it reopens a trial leaves nothing running either.
    sweep.again().reopen()
    sweep.again().suspend()
    assert sweep.states == ["FAIL", "WAITING"]
    assert sweep.again().reopen() == points[1:]
    assert sweep.states == ["FAIL", "RUNNING"]


def test_a_trial_killed_while_it_was_drawn_is_drawn(sweep: Sweep) -> None:
    expected = sweep.study.ask()
    other = SweepStudy.create("other", sweep.space, sweep.storage)
    other.study.sampler = optuna.samplers.RandomSampler(seed=9)
    other.study.ask()
    opened = SweepStudy.open("other", sweep.space, sweep.storage)
    assert opened.asked == 1
    (point,) = opened.reopen()
    assert (point.number, point.params) == (0, expected.params)
    assert opened.ask().number == 1


def test_an_end_that_was_decided_and_not_told_is_told(sweep: Sweep) -> None:
    sweep.study.ask()
    sweep.study.report(0, 1, 0.3)
    sweep.study.ask()
    sweep.study.study.tell = lambda *_, **__: (_ for _ in ()).throw(OSError("disk full"))
    for number, outcome in enumerate(("completed", "failed")):
        with pytest.raises(OSError, match="disk full"):
            sweep.study.tell(number, outcome, "reason")
    sweep.study.suspend()
    assert sweep.states == ["WAITING", "WAITING"]
    assert sweep.again().reopen() == []
    assert sweep.states == ["COMPLETE", "FAIL"]
    assert sweep.study.trials.ended()[1] == Ended("failed", "reason")


def test_the_budget_can_be_raised_and_counts_what_is_left(sweep: Sweep) -> None:
    assert (sweep.study.budget.trials, sweep.study.left()) == (20, 20)
    sweep.study.take_budget(Limits(4))
    sweep.train(0.1)
    sweep.study.ask()
    assert sweep.again().budget.trials == 4
    assert (sweep.study.asked, sweep.study.left(), sweep.study.left(repeats=2)) == (2, 3, 5)


def test_a_budget_that_the_file_changed_counts(sweep: Sweep) -> None:
    def again(trials: int, given: int | None = None) -> int:
        opened = SweepStudy.open(
            "sweep", space(budget={"trials": trials}), sweep.storage, store="f"
        )
        opened.take_budget(Limits(given))
        return opened.budget.trials

    assert again(20) == 20
    assert again(20, given=5) == 5
    assert again(20) == 5, "the file says what it did"
    assert again(30) == 30
    assert again(30, given=40) == 40
    assert again(30) == 40
    sweep.study.ask()
    sweep.study.ask()
    with pytest.raises(SweepError, match=r"has 2 trials already; budget\.trials: 1 cannot take"):
        again(1)
    with pytest.raises(SweepError, match=r"has 2 trials already; --trials 1 cannot take any away"):
        again(30, given=1)
    assert again(2) == 2


FEW = {
    "critic.depth": {"type": "int", "low": 1, "high": 2},
    "loss.dice_weight": {"type": "choice", "values": [0, 1]},
}


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_no_point_is_trained_twice_while_others_are_left(tmp_path: Path, sampler: str) -> None:
    few = Sweep(tmp_path, space(parameters=FEW, sampler={"type": sampler, "seed": 0}))
    points = []
    for number in range(4):
        point = few.again().ask()
        points.append(point)
        few.study.report(point.number, 1, 0.1 * number)
        few.study.tell(point.number, "completed" if number % 2 else "stopped")
    assert len({tuple(point.params.items()) for point in points}) == 4
    assert [point.seed for point in points] == [None] * 4
    assert few.study.trials.searched == len(few.study.trials.ended()) == 4
    assert few.study.left() == 16
    for trial in few.trials:
        twin = trial.user_attrs.get(REUSED)
        if twin is not None:
            told = few.trials[twin]
            assert (trial.state, trial.value) == (told.state, told.value)
            assert trial.intermediate_values == told.intermediate_values

    # All have been tried: the next comes with a seed of its own, and so after a restart.
    again = few.again().ask()
    assert again.params in [point.params for point in points]
    assert again.seed is not None
    few.study.suspend()
    assert few.again().reopen() == [again]


def test_a_point_that_is_under_way_is_not_begun_again(tmp_path: Path) -> None:
    few = Sweep(tmp_path, space(parameters=FEW))
    open_points = [few.study.ask() for _ in range(4)]
    assert len({tuple(point.params.items()) for point in open_points}) == 4
    few.study.tell(open_points[0].number, "failed")
    # Nothing is known of a point whose trial failed, so that it may be trained as it was.
    drawn = few.study.ask()
    assert (drawn.seed is None) == (drawn.params == open_points[0].params)


@pytest.mark.parametrize(
    ("parameters", "points"),
    [
        (FEW, 4),
        ({"segmentor.lr": LR}, None),
        ({"segmentor.lr": {**LR, "low": 1e-3, "high": 1e-3}}, 1),
        ({"segmentor.lr": {**LR, "points": 3}}, None),
        (
            {"critic.depth": {"type": "int", "low": 1, "high": 3}, "loss.scale_weights": WEIGHTS},
            None,
        ),
        (
            {
                **FEW,
                "loss.dice_smoothing": {
                    "type": "choice",
                    "values": [1, 2, 3],
                    "when": {"critic.depth": 2},
                },
            },
            8,
        ),
        ({"training.steps_per_epoch": {"type": "int", "low": 1, "high": 5000}}, None),
    ],
)
def test_points_are_counted_where_they_can_be(parameters: dict, points: int | None) -> None:
    assert count_points(space(parameters=parameters)) == points


def test_a_grid_has_only_so_many_trials(tmp_path: Path) -> None:
    depths = {"critic.depth": {"type": "int", "low": 1, "high": 3}}
    gridded = Sweep(tmp_path, space(parameters=depths, sampler={"type": "grid", "seed": 1}))
    assert gridded.study.most_trials == 3
    drawn = []
    for _ in range(3):
        drawn.append(gridded.again().ask().params["critic.depth"])
        gridded.study.tell(len(drawn) - 1, "failed")
    assert sorted(drawn) == [1, 2, 3]


def test_known_points_come_first_and_once(tmp_path: Path) -> None:
    entries = [{"critic.depth": 3, "segmentor.lr": 1e-4}, {"critic.depth": 2}, {"critic.depth": 9}]
    known = Sweep(tmp_path, space(enqueue=entries))
    assert "entry 3 of enqueue is not tried" in known.study.skipped[0]
    assert known.study.ask().params == entries[0]
    assert known.again().ask().params["critic.depth"] == 2
    assert known.study.ask().number == 2
    assert len(known.trials) == 3


def test_a_sweep_goes_on_only_with_what_it_began_with(sweep: Sweep) -> None:
    wider = space(
        parameters={"segmentor.lr": LR, "critic.depth": {"type": "int", "low": 1, "high": 4}}
    )
    with pytest.raises(
        SweepError, match=r"searched something else: critic\.depth: high was 3 and is 4"
    ):
        SweepStudy.open("sweep", wider, sweep.storage, store="f")
    with pytest.raises(SweepError, match="store with fingerprint f, this one has g"):
        SweepStudy.open("sweep", sweep.space, sweep.storage, store="g")
    # A budget is no part of what is searched.
    SweepStudy.open("sweep", space(budget={"trials": 3}), sweep.storage, store="f")


def test_two_sweeps_of_one_name_do_not_mix(sweep: Sweep) -> None:
    with pytest.raises(SweepError, match="exists already"):
        SweepStudy.create("sweep", space(), sweep.storage)


def test_a_study_cut_off_while_it_was_made_is_none(sweep: Sweep) -> None:
    assert study_exists("sweep", sweep.storage)
    for name, attributes in (("nothing", {}), ("begun", {SPACE: "{}"})):
        made = optuna.create_study(study_name=name, storage=sweep.storage)
        for key, value in attributes.items():
            made.set_user_attr(key, value)
        assert not study_exists(name, sweep.storage)
        assert is_half_made(name, sweep.storage)
    assert not study_exists("unknown", sweep.storage)
    assert not is_half_made("unknown", sweep.storage)
    assert not is_half_made("sweep", sweep.storage)
    assert delete_study("sweep", sweep.storage)
    assert not delete_study("sweep", sweep.storage)


def test_a_study_that_somebody_else_made_is_left_alone(sweep: Sweep) -> None:
    others = optuna.create_study(study_name="others", storage=sweep.storage)
    others.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert study_exists("others", sweep.storage)
    assert not is_half_made("others", sweep.storage)
    assert READY not in others.user_attrs
    with pytest.raises(SweepError, match="none that this segan-ray began"):
        SweepStudy.open("others", sweep.space, sweep.storage)
    assert len(others.trials) == 1


def test_a_study_is_opened_without_its_space_file(sweep: Sweep) -> None:
    sweep.train(0.1)
    opened = SweepStudy.reopened("sweep", sweep.storage)
    assert (opened.space, opened.asked) == (sweep.space, 1)
    with pytest.raises(SweepError, match="No study of a sweep 'swept'"):
        SweepStudy.reopened("swept", sweep.storage)


def test_ending_a_sweep_ends_all_that_did_not(sweep: Sweep) -> None:
    sweep.train(0.1)
    points = [sweep.study.ask() for _ in range(3)]
    sweep.study.report(points[0].number, 1, 0.4)
    sweep.study.suspend()
    sweep.again().reopen()
    ended = SweepStudy.reopened("sweep", sweep.storage).end("Stopped.")
    assert [each.outcome for each in ended.values()] == ["completed", "stopped", "failed", "failed"]
    assert ended[1].reason == "Stopped."
    assert sweep.states == ["COMPLETE", "PRUNED", "FAIL", "FAIL"]


def test_asha_stops_the_same_trials_again(tmp_path: Path) -> None:
    halving = Sweep(
        tmp_path, space(scheduler={"type": "asha", "grace_period": 1, "reduction_factor": 3})
    )
    for value in (0.5, 0.6):
        halving.train(*[value] * 9)
    stopped = []
    for value in (0.1, 0.9, 0.2):
        number = halving.study.ask().number
        stopped.append(halving.study.report(number, 1, value))
        # Killed between the report and what follows from it: the same again, however often.
        for _ in range(2):
            halving.again().reopen()
            assert halving.study.report(number, 1, value) == stopped[-1]
    assert stopped == ["stop", "continue", "stop"]
    assert halving.study.report(3, 2, 0.1) == "continue"
    # At its last epoch there is nothing to stop.
    assert halving.study.report(3, 9, 0.0) == "continue"


OBJECTIVES = [{"metric": "val/dice_mean"}, {"metric": "time/epoch_s", "mode": "min"}]
NSGA = {"type": "nsga2", "seed": 1, "population": 4}


def test_several_objectives_are_all_told_of_stopped_trials_too(tmp_path: Path) -> None:
    none = {"type": "none"}
    several = Sweep(tmp_path, space(objective=OBJECTIVES, sampler=NSGA, scheduler=none))
    several.study.ask()
    several.study.report(0, 1, 0.6, 3.0)
    several.again().reopen()
    assert several.study.report(0, 2, 0.4, 1.0) == "continue"
    several.study.tell(0, "completed")
    several.study.ask()
    several.study.report(1, 1, 0.2, 9.0)
    several.study.tell(1, "stopped")
    several.study.ask()
    several.study.tell(2, "failed", "crash")
    assert several.states == ["COMPLETE", "COMPLETE", "FAIL"]
    # What a stopped trial reached is told: Optuna's samplers pass pruned ones over.
    assert [trial.values for trial in several.trials[:2]] == [[0.6, 3.0], [0.2, 9.0]]


@pytest.mark.parametrize("promote", [False, True])
def test_of_several_objectives_what_others_dominate_ends_early(
    tmp_path: Path, promote: bool
) -> None:
    asha = {"type": "asha", "reduction_factor": 2, "promote": promote}
    several = Sweep(tmp_path, space(objective=OBJECTIVES, sampler=NSGA, scheduler=asha))
    reported = [(0.5, 5.0), (0.9, 9.0), (0.4, 9.0), (0.2, 1.0), (0.1, 9.5)]
    verdicts = []
    for values in reported:
        number = several.study.ask().number
        verdicts.append(several.study.report(number, 1, *values))
        # The worker was lost and reports the epoch again.
        if verdicts[-1] != "pause":
            assert several.study.report(number, 1, *values) == verdicts[-1]
    if promote:
        # One is no half of one; of four, the best and the unlikest to it go on.
        assert verdicts == ["pause", "continue", "pause", "continue", "pause"]
        assert several.again().trials.paused() == {0: 1, 2: 1, 4: 1}
    else:
        assert verdicts == ["continue", "continue", "stop", "continue", "stop"]


def test_what_a_population_decided_stays_decided(tmp_path: Path) -> None:
    pbt = space(scheduler={"type": "pbt", "interval": 2, "quantile": 0.5})
    population = Sweep(tmp_path, pbt)
    for value in (0.9, 0.8, 0.3, 0.1):
        number = population.study.ask().number
        assert population.study.exploit(number, 1) is None
        for epoch in (1, 2):
            assert population.study.report(number, epoch, value) == "continue"
    drawn = population.study.ask().params
    population.study.report(4, 2, 0.95)
    first = {number: population.study.exploit(number, 2) for number in (0, 3)}
    assert first[0] is None
    assert isinstance(first[3], Exploit)
    assert first[3].source in (0, 1, 4)
    # Others come to the epoch later: who was among the strong stays as it is.
    for value in (0.99, 0.98, 0.97):
        population.study.report(population.study.ask().number, 2, value)
    points = {point.number: point for point in population.again().reopen()}
    assert {number: population.study.exploit(number, 2) for number in (0, 3)} == first
    # It goes on with the settings it took over, until it takes over others.
    assert points[3].params == first[3].params
    assert points[4].params == drawn
    assert population.study.changing(3) == pytest.approx(
        {name: float(value) for name, value in first[3].params.items()}
    )
    assert population.trials[3].state == TrialState.RUNNING
