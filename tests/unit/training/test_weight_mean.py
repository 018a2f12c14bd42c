"""The exponential mean of the segmentor's weights: how it moves, and that it is what is kept."""

from __future__ import annotations

from pathlib import Path

import torch

from segan_ray.config import load_experiment
from segan_ray.data.store.opened_store import TuningCases
from segan_ray.training.checkpoints.checkpoint import load_segmentor, save_checkpoint
from segan_ray.training.state import TrainingState, new_state
from tests.unit.training.test_fit import CPU, SMALL, train

EMA = load_experiment(None, [*SMALL, "training.ema=0.75"])


def first_weights(network: torch.nn.Module) -> torch.Tensor:
    return next(network.parameters()).detach()


def moved(state: TrainingState, value: float) -> None:
    with torch.no_grad():
        for tensor in state.segmentor.state_dict().values():
            tensor.fill_(value)
    state.update_mean(0.75)


def test_the_mean_begins_as_a_copy_and_then_lags_behind() -> None:
    state = new_state(EMA, CPU)
    assert state.in_use is state.mean is not state.segmentor
    moved(state, 4)
    assert (first_weights(state.in_use) == 4).all(), "in the first epoch it is a copy"
    state.epoch = 1
    moved(state, 8)
    assert (first_weights(state.in_use) == 5).all()
    buffers = state.in_use.state_dict()
    assert {tensor.unique().item() for tensor in buffers.values()} == {5, 8}, "counts are copied"


def test_without_a_mean_the_segmentor_is_in_use() -> None:
    state = new_state(load_experiment(None, SMALL), CPU)
    assert state.mean is None
    assert state.in_use is state.segmentor


def test_the_mean_is_validated_and_kept_and_does_not_change_training(
    tuning_cases: TuningCases, tmp_path: Path
) -> None:
    state, plain = new_state(EMA, CPU), new_state(load_experiment(None, SMALL), CPU)
    with_mean = train(EMA, tuning_cases, state)
    without = train(load_experiment(None, SMALL), tuning_cases, plain)
    assert torch.equal(first_weights(state.segmentor), first_weights(plain.segmentor))
    assert not torch.equal(first_weights(state.segmentor), first_weights(state.in_use))
    loss, score = "train/loss_segmentor", "val/dice_mean"
    assert [each.metrics[loss] for each in with_mean] == [each.metrics[loss] for each in without]
    assert with_mean[0].metrics[score] == without[0].metrics[score]
    assert with_mean[-1].metrics[score] != without[-1].metrics[score]
    save_checkpoint(tmp_path / "checkpoint", state, EMA)
    kept, _ = load_segmentor(tmp_path / "checkpoint")
    assert torch.equal(first_weights(kept), first_weights(state.in_use))
