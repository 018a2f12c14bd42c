"""The records of trials, with a real study and a recorder that remembers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segan_ray.config import Experiment, load_experiment
from segan_ray.home import Home
from segan_ray.orchestration.train.messages import Decision, EpochResult
from segan_ray.orchestration.tune.trial_lifecycle import NO_EPOCH, TRIAL_STOPPED, TrialLifecycle
from segan_ray.search.points.points import Point
from segan_ray.search.results.trial_state import MoreTrials, TrialState
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.search.study.requests import ask
from segan_ray.search.study.sweep_study import Ended, SweepStudy
from segan_ray.tracking.outbox import record
from segan_ray.tracking.recording.ledger import Ledger
from segan_ray.training.checkpoints.trial_folder import TrialFolder
from segan_ray.training.epoch_record import BestEpoch, EpochRecord
from segan_ray.training.state import new_state
from tests.unit.search.study.test_study import space
from tests.unit.stored import ORIGIN

METRIC = "val/dice_mean"
EPOCHS = 3
BASE = {"training": {"epochs": EPOCHS}}
TINY = load_experiment(
    None,
    ["segmentor.base_width=2", "segmentor.depth=2", "critic.base_width=2", "critic.depth=1"],
)


@dataclass
class Records:
    """A recorder that only remembers."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    infeasible: set[str] = field(default_factory=set)

    def start_trial(self, trial: str, experiment: Experiment, params: Any, repeat_of: Any) -> None:
        self.calls.append(("start", trial, repeat_of))
        if trial not in self.unfinished:
            self.unfinished.append(trial)

    def log_epoch(
        self, trial: str, epoch: int, metrics: Any, *, failed: bool, fold: Any, picture: Any
    ) -> None:
        self.calls.append(("epoch", trial, epoch, dict(metrics)))

    def end_trial(
        self, trial: str, status: str, reason: str | None, checkpoint: Any, *, infeasible: bool
    ) -> None:
        self.calls.append(("end", trial, status, reason, checkpoint))
        self.infeasible |= {trial} if infeasible else set()
        self.unfinished = [each for each in self.unfinished if each != trial]

    def pause_trial(self, trial: str) -> None:
        self.calls.append(("pause", trial))

    def hold(self, checkpoints: dict[str, str | None], infeasible: list[str]) -> None:
        self.calls.append(("hold", checkpoints))
        self.infeasible |= set(infeasible)

    def suspend(self, *, patience_s: float) -> None:
        self.calls.append(("suspend",))

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == kind]


class Run:
    """One process of a sweep, at ``now`` seconds; ``again`` is the next one."""

    def __init__(
        self, folder: Path, searched: SearchSpace, study: SweepStudy | None = None
    ) -> None:
        self.now = 0.0
        self.folder, self.space = folder, searched
        self.study = study or SweepStudy.create("sweep", searched, open_storage(Home(folder)))
        self.records = Records()
        self.events: list[TrialState] = []
        self.book = TrialLifecycle(
            self.study,
            self.records,
            str(folder / "checkpoints"),
            self.events.append,
            gpus=2,
            clock=lambda: self.now,
        )

    def again(self) -> Run:
        return Run(
            self.folder, self.space,
            SweepStudy.open("sweep", self.space, open_storage(Home(self.folder))),
        )  # fmt: skip

    def begin(self, point: Point | None = None) -> str:
        point = point or self.study.ask()
        trial = f"{point.number:03d}"
        self.book.begin(trial, self.space.experiment(point.params), point.params)
        return trial


def result(epoch: int, score: float = 0.5, failure: str | None = None) -> EpochResult:
    metrics = {METRIC: score, "val/dice_core": score / 2}
    return EpochResult(epoch, EPOCHS, metrics, BestEpoch(epoch, metrics), failure)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path, space(base=BASE))


def save(run: Run, trial: str, epoch: int, best: int) -> str:
    state = new_state(TINY, torch.device("cpu"))
    state.epoch = epoch
    report = EpochRecord(epoch, {METRIC: 0.1}, BestEpoch(best, {METRIC: 0.5}))
    TrialFolder(run.folder / "checkpoints" / trial).save(state, TINY, ORIGIN, report, None)
    return str(run.folder / "checkpoints" / trial / f"epoch-{epoch:04d}")


def test_a_trial_to_its_end(run: Run) -> None:
    trial = run.begin()
    for epoch in range(1, EPOCHS + 1):
        assert run.book.epoch(trial, result(epoch)) == Decision(stop=False)
    run.book.end(trial)
    assert [call[0] for call in run.records.calls] == ["start", "epoch", "epoch", "epoch", "end"]
    assert run.records.of("end") == [("000", "completed", None, None)]
    assert [(event.status, event.epoch, event.score) for event in run.events] == [
        ("running", 0, None), ("running", 1, 0.5), ("running", 2, 0.5), ("running", 3, 0.5),
        ("completed", 3, 0.5),
    ]  # fmt: skip
    ended = run.book.ended[trial]
    assert (ended.status, ended.epoch, ended.best_epoch) == ("completed", 3, 3)
    assert run.study.trials.ended() == {0: Ended("completed", None)}
    # A late event belongs to no trial any more.
    assert run.book.epoch(trial, result(3)) == Decision(stop=True)
    run.book.end(trial)
    assert len(run.records.of("end")) == 1


def test_an_epoch_that_comes_again_is_noted_once(run: Run) -> None:
    trial = run.begin()
    for epoch in (1, 2, 2, 1):
        run.book.epoch(trial, result(epoch))
    assert [call[1] for call in run.records.of("epoch")] == [1, 2]
    assert run.study.study.trials[0].intermediate_values == {1: 0.5, 2: 0.5}


def test_a_trial_that_is_stopped_early(tmp_path: Path) -> None:
    asha = {"type": "asha", "grace_period": 1, "reduction_factor": 2}
    run = Run(tmp_path, space(base=BASE, scheduler=asha))
    first, second = run.begin(), run.begin()
    assert not run.book.epoch(first, result(1, 0.9)).stop
    assert run.book.epoch(second, result(1, 0.1)).stop
    run.book.end(second)
    assert run.records.of("end") == [("001", "stopped", None, None)]
    assert run.events[-1].status == "stopped"


def test_why_trials_fail(run: Run) -> None:
    crashed, silent, diverged = run.begin(), run.begin(), run.begin()
    run.book.epoch(crashed, result(1))
    run.book.end(crashed, "a training process died.")
    run.book.end(silent)
    run.book.epoch(diverged, result(1, 0.0, "the loss is not finite"))
    run.book.end(diverged)
    assert [call[:3] for call in run.records.of("end")] == [
        ("000", "failed", "a training process died."),
        ("001", "failed", NO_EPOCH),
        ("002", "failed", "the loss is not finite"),
    ]
    # A sampler learns from settings that diverge; a crash says nothing about settings.
    assert [trial.state.name for trial in run.study.study.trials] == ["FAIL", "FAIL", "PRUNED"]


def test_why_trials_cannot_win(tmp_path: Path) -> None:
    bounds = [{"metric": "val/dice_core", "min": 0.2}]
    run = Run(tmp_path, space(base=BASE, constraints=bounds, budget={"trials": 4, "hours": 1}))
    weak, full, waiting, well = (run.begin() for _ in range(4))
    run.book.epoch(weak, result(EPOCHS, 0.3))
    run.book.end(weak)
    out = replace(result(1, 0.0, "out of memory: asked for 9 GiB more"), out_of_memory=True)
    run.book.epoch(full, out)
    run.book.end(full)
    broken = "constraint broken: val/dice_core at least 0.2, found 0.15"
    assert [call[:3] for call in run.records.of("end")] == [
        (weak, "completed", broken),
        (full, "failed", out.failure),
    ]
    assert run.records.infeasible == {weak, full}
    assert [event.infeasible for event in run.events if event.reason] == [True, True]
    # When the hours are used up, what waits may not win either.
    run.now = 3601
    run.book.epoch(waiting, result(1, 0.3))
    run.book.epoch(well, result(1, 0.9))
    run.book.pause_open()
    assert run.records.infeasible == {weak, full, waiting}
    # Another process notes what only the study knows.
    again = run.again()
    again.records.unfinished = [weak]
    again.book.reconcile()
    assert again.records.infeasible == {weak}


def test_a_lost_trial_begins_again_as_the_same(run: Run) -> None:
    trial = run.begin()
    run.book.epoch(trial, result(1))
    run.book.retry(trial)
    assert run.events[-1].retries == 1
    run.book.begin(trial, TINY, {})
    run.book.epoch(trial, result(1))
    run.book.epoch(trial, result(2))
    assert [call[1] for call in run.records.of("epoch")] == [1, 2]
    run.book.end(trial, "lost again")
    assert (run.events[-1].retries, run.events[-1].reason) == (1, "lost again")
    assert len(run.study.trials.ended()) == 1


@pytest.fixture
def promoting(tmp_path: Path) -> Run:
    scheduler = {"type": "asha", "reduction_factor": 2, "promote": True}
    return Run(tmp_path, space(base=BASE, scheduler=scheduler, budget={"trials": 4}))


def test_a_trial_waits_and_goes_on_when_it_is_among_the_best(promoting: Run) -> None:
    book, study = promoting.book, promoting.study
    first = promoting.begin()
    assert book.epoch(first, result(1, 0.5)).stop
    book.end(first)
    assert promoting.records.calls[-1] == ("pause", first)
    assert promoting.events[-1] == TrialState(
        first, "paused", 1, EPOCHS, score=0.5, best_epoch=1, best_metrics=result(1, 0.5).metrics,
        gpus=2,
    )  # fmt: skip
    assert book.knows(first)
    assert study.promote() is None

    second = promoting.begin()
    assert not book.epoch(second, result(1, 0.6)).stop
    assert book.epoch(second, result(2, 0.65)).stop
    # The third of four cannot come to be among the best two.
    third = promoting.begin()
    assert book.epoch(third, result(1, 0.4)).stop
    assert promoting.records.of("end") == [(third, "stopped", None, None)]
    assert study.promote() is None
    promoting.begin()
    assert book.epoch("003", result(1, 0.3)).stop
    assert promoting.records.of("end")[1:] == [("003", "stopped", None, None)]

    assert promoting.begin(study.promote()) == first
    assert promoting.events[-1].status == "running"
    # Its worker reports the epoch of its checkpoint first.
    for epoch in range(1, EPOCHS + 1):
        assert not book.epoch(first, result(epoch, 0.5 + epoch / 10)).stop
    book.end(first)
    assert promoting.records.of("end")[-1] == (first, "completed", None, None)
    assert [epoch for trial, epoch, _ in promoting.records.of("epoch") if trial == first] == [
        *range(1, EPOCHS + 1)
    ]


def test_pauses_that_only_the_study_knows_are_recorded(promoting: Run) -> None:
    number = promoting.study.ask().number
    assert promoting.study.report(number, 1, 0.5) == "pause"
    later = promoting.again()
    later.records.unfinished = ["000"]
    assert later.study.reopen() == []
    later.book.reconcile()
    assert later.records.of("pause") == [("000",)]
    # No more are drawn, so it ends.
    later.book.stop_paused()
    assert later.records.of("end") == [("000", "stopped", None, None)]
    assert later.study.trials.paused() == {}


def test_a_sweep_that_is_stopped_ends_what_is_paused(promoting: Run) -> None:
    trial = promoting.begin()
    promoting.book.epoch(trial, result(1))
    promoting.book.stop_open()
    assert promoting.records.of("end") == [(trial, "stopped", "Stopped by segan-ray stop.", None)]


def test_trials_wait_with_their_checkpoints_when_the_hours_are_used_up(tmp_path: Path) -> None:
    run = Run(tmp_path, space(base=BASE, budget={"trials": 4, "hours": 1}))
    first, second = run.begin(), run.begin()
    run.now = 1800
    assert not run.book.epoch(first, result(1)).stop
    run.now = 3000
    third = run.begin()
    best = save(run, first, 1, 1)
    run.now = 3601
    assert run.book.epoch(first, result(2)).stop
    run.book.end(first)
    assert (run.events[-1].status, run.events[-1].epoch) == ("paused", 2)
    assert run.study.ended_by == "hours"
    run.now = 7200
    assert run.book.epoch(second, result(1)).stop
    run.book.pause_open()
    assert run.records.calls[-1] == ("hold", {first: best, second: None, third: None})
    assert run.records.of("end") == []
    assert [event.status for event in run.events[-2:]] == ["paused", "paused"]
    assert [trial.state.name for trial in run.study.study.trials] == ["WAITING"] * 3
    # Two trials with two GPUs each for 3000 s, three for 601 s, two for 3599 s.
    spent = run.again().study.budget.spent
    assert spent.hours == pytest.approx(2)
    assert spent.gpu_hours == pytest.approx((2 * 2 * 3000 + 3 * 2 * 601 + 2 * 2 * 3599) / 3600)


def test_trials_make_room_where_fewer_may_train_and_go_on(run: Run) -> None:
    trials = [run.begin() for _ in range(3)]
    limits = {"max_concurrent": 2, "trials": 23}
    ask("sweep", open_storage(Home(run.folder)), "set_limits", limits)
    assert not run.book.epoch(trials[2], result(1)).stop
    run.book.take_requests()
    assert run.events[-1] == MoreTrials(3)
    assert run.book.epoch(trials[1], result(1)).stop
    run.book.end(trials[1])
    assert run.events[-1].status == "paused"
    assert run.records.calls[-1] == ("pause", trials[1])
    # Two are left, so these go on.
    assert not run.book.epoch(trials[0], result(1)).stop
    run.book.epoch(trials[0], result(EPOCHS))
    run.book.end(trials[0])
    (point,) = run.study.reopen()
    assert run.begin(point) == trials[1]
    assert not run.book.epoch(trials[1], result(1)).stop
    assert [trial.state.name for trial in run.study.study.trials] == [
        "COMPLETE", "RUNNING", "RUNNING"
    ]  # fmt: skip


def test_a_sweep_that_is_stopped_ends_what_waits_for_room_or_was_cut_off(run: Run) -> None:
    first, second = run.begin(), run.begin()
    ask("sweep", open_storage(Home(run.folder)), "set_limits", {"max_concurrent": 1})
    run.book.take_requests()
    assert run.book.epoch(first, result(1)).stop
    run.book.end(first)
    # The process is killed; the next one has taken up the first again, and began neither.
    next_run = run.again()
    next_run.records.unfinished = [first, second]
    assert len(next_run.study.reopen()) == 2
    next_run.book.stop_open()
    assert [call[:2] for call in next_run.records.of("end")] == [
        (first, "stopped"), (second, "stopped")
    ]  # fmt: skip
    assert next_run.study.unfinished == []
    assert next_run.again().study.reopen() == []


def test_a_trial_that_is_to_end_ends_with_its_epoch_or_while_it_waits(promoting: Run) -> None:
    paused, running = promoting.begin(), promoting.begin()
    assert promoting.book.epoch(paused, result(1, 0.4)).stop
    for number in (0, 1):
        ask("sweep", open_storage(Home(promoting.folder)), "stop_trial", {"trial": number})
    promoting.book.take_requests()
    assert promoting.records.of("end") == [(paused, "stopped", TRIAL_STOPPED, None)]
    assert promoting.events[-1].status == "stopped"
    assert promoting.book.epoch(running, result(1, 0.9)).stop
    promoting.book.end(running)
    assert promoting.records.of("end")[1:] == [(running, "stopped", TRIAL_STOPPED, None)]
    assert [trial.state.name for trial in promoting.study.study.trials] == ["PRUNED", "PRUNED"]
    # Asked once, told once.
    promoting.book.take_requests()
    assert len(promoting.records.of("end")) == 2


def test_suspended_trials_are_pending_and_go_on(run: Run) -> None:
    ended, open_ = run.begin(), run.begin()
    run.book.end(ended, "crash")
    run.book.epoch(open_, result(1))
    run.book.suspend()
    assert run.records.calls[-1] == ("suspend",)
    assert [(event.trial, event.status) for event in run.events][-1] == (open_, "pending")
    next_run = run.again()
    (point,) = next_run.study.reopen()
    next_run.book.begin("001", next_run.space.experiment(point.params), point.params)
    next_run.book.epoch("001", result(1))
    # The study has it; whether the outbox has it too, the recorder knows.
    assert [call[:2] for call in next_run.records.of("epoch")] == [("001", 1)]
    assert next_run.study.study.trials[1].intermediate_values == {1: 0.5}


def test_a_sweep_that_is_stopped_ends_what_is_open(run: Run) -> None:
    for _ in range(2):
        run.begin()
    run.book.epoch("001", result(1))
    run.book.stop_open()
    assert [call[:3] for call in run.records.of("end")] == [
        (trial, "stopped", "Stopped by segan-ray stop.") for trial in ("000", "001")
    ]
    assert [event.status for event in run.events[-2:]] == ["stopped", "stopped"]
    assert [trial.state.name for trial in run.study.study.trials] == ["FAIL", "PRUNED"]


def test_ends_that_only_the_study_knows_are_noted(run: Run) -> None:
    trials = [run.begin() for _ in range(3)]
    for trial in trials[:2]:
        run.book.epoch(trial, result(1))
    saved = save(run, "000", 1, 1)
    # The process was killed between the writes to the study and to the outbox.
    run.study.tell(0, "stopped", "because")
    run.study.tell(1, "failed", "crash")
    next_run = run.again()
    next_run.records.unfinished = ["000", "001", "002"]
    next_run.book.reconcile()
    assert next_run.records.of("end") == [
        ("000", "stopped", "because", saved), ("001", "failed", "crash", None),
    ]  # fmt: skip


@pytest.mark.parametrize("whole", [True, False], ids=["", "lost"])
def test_the_checkpoint_of_the_best_epoch_is_recorded(run: Run, whole: bool) -> None:
    trial = run.begin()
    best = save(run, trial, 1, 1)
    last = save(run, trial, 2, 1)
    if not whole:
        Path(best).rename(Path(best).with_name("gone"))
    run.book.epoch(trial, result(1))
    run.book.end(trial)
    assert run.records.of("end")[0][3] == (best if whole else last)


def test_settings_that_change_are_metrics(tmp_path: Path) -> None:
    run = Run(tmp_path, space(base=BASE, scheduler={"type": "pbt", "interval": 1}))
    for _ in range(4):
        run.begin()
    decisions = [
        run.book.epoch(f"{n:03d}", result(1, score)) for n, score in enumerate((0.9, 0.8, 0.7, 0.1))
    ]
    assert [decision.experiment is not None for decision in decisions] == [False] * 3 + [True]
    assert set(run.records.of("epoch")[0][2]) == {
        METRIC, "val/dice_core", "param/segmentor.lr", "param/critic.depth",
    }  # fmt: skip
    # At its last epoch a trial exploits no other.
    assert run.book.epoch("003", result(EPOCHS, 0.1)).experiment is None


def test_several_objectives_are_judged_in_their_order(tmp_path: Path) -> None:
    both = [{"metric": METRIC}, {"metric": "val/dice_core"}]
    run = Run(tmp_path, space(base=BASE, objective=both, sampler={"type": "nsga2", "seed": 0}))
    trial = run.begin()
    run.book.epoch(trial, result(EPOCHS, 0.8))
    run.book.end(trial)
    assert run.study.study.trials[0].values == [0.8, 0.4]


def test_a_trial_goes_on_from_the_checkpoint_of_the_one_that_it_exploits(tmp_path: Path) -> None:
    run = Run(tmp_path, space(base=BASE, scheduler={"type": "pbt", "interval": 1}))
    for _ in range(4):
        run.begin()
    saved = [save(run, f"{n:03d}", 1, 1) for n in range(4)]
    for number, score in enumerate((0.9, 0.8, 0.7)):
        run.book.epoch(f"{number:03d}", result(1, score))
    decision = run.book.epoch("003", result(1, 0.1))
    assert not decision.stop
    assert decision.checkpoint == str(Path(saved[3]).with_name("taken-0001"))
    weights = "segmentor.safetensors"
    taken = (Path(decision.checkpoint) / weights).read_bytes()
    assert taken == (Path(saved[0]) / weights).read_bytes()
    exploited = run.study.study.trials[3].user_attrs["taken_over"]["1"]
    assert exploited["source"] == 0
    lr = exploited["params"]["segmentor.lr"]
    assert decision.experiment.segmentor.lr == lr


def test_the_values_of_the_best_epoch_are_those_of_one_epoch(tmp_path: Path) -> None:
    """Optuna, the kept checkpoint and MLflow's tags speak of one epoch: the later of equals."""
    both = [{"metric": METRIC}, {"metric": "val/dice_core"}]
    run = Run(tmp_path, space(base=BASE, objective=both, sampler={"type": "nsga2", "seed": 0}))
    trial = run.begin()
    best = None
    for epoch, core in enumerate((0.3, 0.2, 0.1), start=1):
        metrics = {METRIC: 0.5, "val/dice_core": core}
        now = BestEpoch(epoch, metrics)
        best = now if best is None else best.or_better(now, METRIC, "max")
        run.book.epoch(trial, EpochResult(epoch, EPOCHS, metrics, best))
    run.book.end(trial)
    assert run.study.study.trials[0].values == [0.5, 0.1]
    assert run.book.ended[trial].best_epoch == 3
    ledger = Ledger(METRIC, "max")
    for _, epoch, metrics in run.records.of("epoch"):
        ledger.note(record("epoch", trial, epoch=epoch, metrics=metrics))
    assert ledger.trials[trial].best_epoch == 3
    assert ledger.trials[trial].best_metrics == {METRIC: 0.5, "val/dice_core": 0.1}
