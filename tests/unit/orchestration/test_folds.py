"""A trial over several folds: its epochs, metrics and score, and going on after a kill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from segan_ray.config import load_experiment
from segan_ray.data.store.opened_store import open_for_tuning
from segan_ray.orchestration.train import worker
from segan_ray.orchestration.train.folds import Folds
from segan_ray.orchestration.train.messages import GO_ON, STOP, Decision, EpochResult, Task
from segan_ray.orchestration.train.usage import Usage
from segan_ray.orchestration.train.worker import TrialTraining
from segan_ray.training.checkpoints.trial_folder import TrialFolder
from segan_ray.training.epoch_record import BestEpoch
from segan_ray.training.fit import DistributedContext, EpochReport
from segan_ray.training.state import TrainingState, new_state
from tests.unit.promotable import SMALL, write_store

CPU = torch.device("cpu")
DICE = "val/dice_mean"
SCORES = {0: (0.1, 0.4, 0.3), 1: (0.5, 0.6, 0.2), 2: (0.2, 0.3, 0.9)}
"""Of each epoch of each fold, as the patched loop finds them."""


@given(st.integers(1, 7), st.integers(1, 9))
def test_epochs_count_on_from_fold_to_fold(count: int, epochs: int) -> None:
    folds = Folds(count, epochs)
    every = [folds.of(epoch) for epoch in range(1, folds.in_all + 1)]
    assert every == [fold for fold in range(count) for _ in range(epochs)]
    within = [folds.epoch_of(epoch) for epoch in range(1, folds.in_all + 1)]
    assert within == [*range(1, epochs + 1)] * count


def test_a_single_split_is_reported_as_it_is() -> None:
    folds, best = Folds(1, 3), BestEpoch(2, {DICE: 0.4})
    measured = {DICE: 0.3, "time/epoch_s": 2.0}
    assert folds.metrics(3, measured, [best], DICE) == measured
    assert folds.best([best]) == best
    assert folds.best([]) is None


class Channel:
    """Keeps what is reported, and decides by ``decide``."""

    def __init__(self, decide: Callable[[int], Decision] = lambda _: GO_ON) -> None:
        self.results: list[EpochResult] = []
        self.decide = decide

    def report(self, group: str, task: int, result: EpochResult) -> None:
        self.results.append(result)

    def decision(self, group: str, task: int, epoch: int) -> Decision:
        return self.decide(epoch)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folds") / "store"
    write_store(folder, {"train": 6, "val": 6, "gate": 0, "test": 2}, folds=True)
    return folder


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int | None, int]]:
    """Replaces the loop by one that knows the scores; returns the folds and epochs it trained."""
    trained: list[tuple[int | None, int]] = []

    def fit(state: TrainingState, experiment: Any, *_: Any, report: Any, **__: Any) -> None:
        for epoch in range(state.epoch + 1, 4):
            trained.append((experiment.data.fold, epoch))
            with torch.no_grad():
                next(state.segmentor.parameters()).add_(1.0)
            score = SCORES[experiment.data.fold][epoch - 1]
            metrics = {DICE: score, "val/dice_whole": score / 2, "time/epoch_s": 1.0}
            state.remember(epoch, metrics)
            failure = "it diverged" if score == -1 else None
            if report(EpochReport(epoch, metrics, True, failure)) or failure:
                return

    monkeypatch.setattr(worker, "fit", fit)
    monkeypatch.setattr(worker, "open_for_tuning", opened)
    monkeypatch.setattr(TrialTraining, "_pictures", lambda *_, **__: (None, None))
    return trained


def opened(folder: Path, fold: int) -> Any:
    """The third fold has the first one's patients: the store has two."""
    return open_for_tuning(folder, fold % 2)


def training(store: Path, folder: Path, channel: Channel, count: int = 3) -> TrialTraining:
    experiment = load_experiment(None, [*SMALL, "critic.kind=none", "training.epochs=3"])
    folds = Folds(count, 3)
    task = Task(1, {"metric": DICE, "mode": "max", "store": str(store), "runs": count})
    return TrialTraining(
        task, channel, "group", folds.experiment(experiment, 0), DistributedContext(CPU),
        opened(store, 0), new_state(experiment, CPU), TrialFolder(folder), folder, set(),
        Usage.begin(CPU), folds,
    )  # type: ignore[arg-type]  # fmt: skip


EVERY = [(fold, epoch) for fold in range(3) for epoch in (1, 2, 3)]
MEAN = (0.4 + 0.6 + 0.9) / 3


def test_folds_are_trained_one_after_another_and_scored_by_their_mean(
    store: Path, tmp_path: Path, seen: list[tuple[int | None, int]]
) -> None:
    channel = Channel()
    training(store, tmp_path / "000", channel).train()
    assert seen == EVERY
    results = channel.results
    assert [result.epoch for result in results] == list(range(1, 10))
    assert [result.last for result in results] == [False] * 8 + [True]
    # Each fold has metrics of its own; there is no score before the last fold.
    assert results[4].metrics["fold/1/val/dice_mean"] == 0.6
    assert not any(DICE in result.metrics or result.best for result in results[:6])
    ends = {name: v for result in results for name, v in result.metrics.items() if "best" in name}
    assert ends == {"fold/0/best": 0.4, "fold/1/best": 0.6, "fold/2/best": 0.9}
    assert [round(result.metrics[DICE], 9) for result in results[6:]] == [
        round((0.4 + 0.6 + best) / 3, 9) for best in (0.2, 0.3, 0.9)
    ]
    best = results[-1].best
    assert best is not None
    assert (best.epoch, best.metrics[DICE]) == (9, pytest.approx(MEAN))
    assert best.metrics["val/dice_whole"] == pytest.approx(MEAN / 2)
    # Of every fold the best checkpoint is there, with the fold in its settings.
    kept = sorted(path.name for path in (tmp_path / "000").iterdir())
    assert kept == ["epoch-0002", "epoch-0005", "epoch-0009"]


def test_every_fold_begins_with_the_same_fresh_networks(
    store: Path, tmp_path: Path, seen: list[tuple[int | None, int]]
) -> None:
    channel, first = Channel(), []

    def decide(epoch: int) -> Decision:
        if epoch in (1, 4, 7):
            first.append(next(run.state.segmentor.parameters()).detach().clone())
        return GO_ON

    channel.decide = decide
    run = training(store, tmp_path / "000", channel)
    run.train()
    assert torch.equal(first[0], first[1])
    assert torch.equal(first[1], first[2])


@pytest.mark.parametrize("killed", range(1, 10))
def test_a_trial_that_was_killed_anywhere_ends_as_if_it_had_not(
    store: Path, tmp_path: Path, seen: list[tuple[int | None, int]], killed: int
) -> None:
    class Killed(Exception):
        pass

    def dies(epoch: int) -> Decision:
        if epoch == killed:
            raise Killed
        return GO_ON

    whole, before, after = Channel(), Channel(dies), Channel()
    training(store, tmp_path / "whole", whole).train()
    if killed < 9:  # after the last epoch nothing is decided
        with pytest.raises(Killed):
            training(store, tmp_path / "cut", before).train()
    else:
        training(store, tmp_path / "cut", before).train()
    seen.clear()
    training(store, tmp_path / "cut", after).train()
    # The last epoch is reported again, in case the driver does not know it.
    assert seen == EVERY[killed:]
    assert comparable(after) == comparable(whole)[killed - 1 :]
    assert kept(tmp_path / "cut") == kept(tmp_path / "whole")


def comparable(channel: Channel) -> list[EpochResult]:
    return [
        replace(result, metrics=without_usage(result.metrics), best=of(result.best))
        for result in channel.results
    ]


def of(best: BestEpoch | None) -> BestEpoch | None:
    return best and BestEpoch(best.epoch, without_usage(best.metrics))


def without_usage(metrics: Any) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if not k.startswith(("system/", "memory/"))}


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("epoch", [2, 3, 5])
def test_a_trial_that_is_stopped_begins_no_other_fold(
    store: Path, tmp_path: Path, seen: list[tuple[int | None, int]], epoch: int
) -> None:
    channel = Channel(lambda each: STOP if each == epoch else GO_ON)
    training(store, tmp_path / "000", channel).train()
    assert seen == EVERY[:epoch]


def test_a_trial_that_fails_in_one_fold_begins_no_other(
    store: Path,
    tmp_path: Path,
    seen: list[tuple[int | None, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(SCORES, 1, (0.5, -1, 0.2))
    channel = Channel()
    training(store, tmp_path / "000", channel).train()
    assert seen == EVERY[:5]
    assert channel.results[-1].failure == "it diverged"
    assert channel.results[-1].epoch == 5
