"""What a worker makes of a device without enough memory, and of a GPU that torch does not see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from segan_ray.config import load_experiment
from segan_ray.orchestration.train import worker
from segan_ray.orchestration.train.folds import Folds
from segan_ray.orchestration.train.messages import EpochResult, Task
from segan_ray.orchestration.train.usage import PEAK, Usage
from segan_ray.orchestration.train.worker import TrialTraining
from segan_ray.training.fit import DistributedContext
from segan_ray.training.memory import OutOfMemoryError
from segan_ray.training.state import new_state

CPU = torch.device("cpu")
TOLD = "CUDA out of memory. Tried to allocate 2.50 GiB."


class Channel:
    """Keeps what is reported."""

    def __init__(self) -> None:
        self.results: list[EpochResult] = []

    def report(self, group: str, task: int, result: EpochResult) -> None:
        self.results.append(result)


@pytest.fixture
def channel() -> Channel:
    return Channel()


def training(
    monkeypatch: pytest.MonkeyPatch, channel: Any, rank: int, workers: int
) -> TrialTraining:
    """A trial in its third epoch, whose next forward asks for too much."""

    def fit(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError(TOLD)

    small = ["segmentor.base_width=4", "segmentor.depth=2", "critic.kind=none"]
    experiment = load_experiment(None, small)
    state, nothing = new_state(experiment, CPU), None
    state.epoch = 2
    task = Task(7, {"metric": "val/dice_mean", "mode": "max"})
    begun = TrialTraining(
        task, channel, "group", experiment, DistributedContext(CPU, rank, workers), nothing, state,
        nothing, Path(), set(), Usage.begin(CPU), Folds(1, experiment.training.epochs),
    )  # type: ignore[arg-type]  # fmt: skip
    monkeypatch.setattr(worker.TrialTraining, "_fit", fit)
    monkeypatch.setattr(worker.TrialTraining, "_restore", lambda self: False)
    return begun


def test_a_trial_that_runs_out_ends_in_words_and_its_worker_goes_on(monkeypatch, channel) -> None:
    training(monkeypatch, channel, 0, 1).train()
    (result,) = channel.results
    assert result.last
    assert result.out_of_memory
    assert result.epoch == 3
    assert result.failure is not None
    assert result.failure.startswith("out of memory: asked for 2.50 GiB more. Lower training.batch")
    assert result.failure.endswith("(epoch 3)")
    assert result.metrics["val/dice_mean"] == 0
    assert result.metrics[PEAK] > 0


def test_any_worker_of_several_says_it_and_ends_the_group(monkeypatch, channel) -> None:
    """The others wait for its gradients."""
    with pytest.raises(OutOfMemoryError, match=r"2\.50 GiB"):
        training(monkeypatch, channel, 1, 2).train()
    assert [result.epoch for result in channel.results] == [3]


def test_other_errors_are_raised(monkeypatch, channel) -> None:
    begun = training(monkeypatch, channel, 0, 1)

    def fit(self: TrialTraining) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(worker.TrialTraining, "_fit", fit)
    with pytest.raises(RuntimeError, match="launch failure"):
        begun.train()
    assert channel.results == []


def test_the_peak_of_memory_is_that_since_the_last_epoch() -> None:
    usage = Usage.begin(CPU)
    usage.of_epoch()
    before = usage.of_epoch()[PEAK]
    held = torch.ones(50_000_000)
    with_more = usage.of_epoch()[PEAK]
    del held
    usage.of_epoch()
    assert with_more > before + 0.15
    assert usage.of_epoch()[PEAK] < with_more - 0.1
