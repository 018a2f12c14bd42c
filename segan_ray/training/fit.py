"""THE loop: for each epoch train, validate, report.

It knows neither Ray nor MLflow. Whoever calls it says how gradients are averaged over
workers, how a segmentor is validated, and what becomes of an epoch's report (which is also
where checkpoints are written).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import nn

from segan_ray.config import Experiment
from segan_ray.data.slices import Batch, SliceSource, epoch_batches
from segan_ray.training.state import TrainingState
from segan_ray.training.step import (
    AverageGradients,
    StepLosses,
    adversarial_step,
    keep_gradients,
    supervised_step,
)

Validate = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch: its metrics, whether it is the best, and why training ends, if so."""

    epoch: int
    metrics: Mapping[str, float]
    improved: bool
    diverged: str | None = None


@dataclass(frozen=True)
class Place:
    """Where this process stands in its group of workers, and how gradients are shared."""

    device: torch.device
    rank: int = 0
    workers: int = 1
    average_gradients: AverageGradients = keep_gradients


def fit(
    state: TrainingState,
    experiment: Experiment,
    source: SliceSource,
    *,
    crop: int,
    place: Place,
    validate: Validate,
    report: Callable[[EpochReport], None],
) -> None:
    """Train ``state`` from its epoch to the last, reporting each; stop if a loss diverges."""
    training, data = experiment.training, experiment.data
    steps = steps_per_epoch(experiment, source, place.workers)
    for epoch in range(state.epoch + 1, training.epochs + 1):
        started = perf_counter()
        state.set_learning_rates(experiment, epoch)
        batches = epoch_batches(
            source,
            steps=steps,
            batch_size=training.batch_size,
            crop=crop,
            tumour_fraction=data.tumour_fraction,
            flip=data.flip,
            seed=experiment.seed,
            epoch=epoch,
            rank=place.rank,
        )
        losses = train_epoch(state, experiment, batches, place)
        trained_s = perf_counter() - started
        diverged = _divergence(losses)
        scores = dict(validate(state.segmentor))
        if diverged:
            scores = dict.fromkeys(scores, 0.0)
        metrics = {
            **({} if diverged else losses),
            **scores,
            "time/epoch_s": perf_counter() - started,
            "time/slices_per_s": steps * training.batch_size * place.workers / trained_s,
        }
        report(EpochReport(epoch, metrics, state.remember(epoch, scores), diverged))
        if diverged:
            return


def steps_per_epoch(experiment: Experiment, source: SliceSource, workers: int) -> int:
    """Return the asked number of steps, or as many as show every slice once on average."""
    asked = experiment.training.steps_per_epoch
    return asked or math.ceil(len(source) / (experiment.training.batch_size * workers))


def train_epoch(
    state: TrainingState, experiment: Experiment, batches: Iterable[Batch], place: Place
) -> dict[str, float]:
    """Run one epoch of steps and return the mean of both losses."""
    state.segmentor.train()
    sums = torch.zeros(2, device=place.device)
    count = 0
    for batch in batches:
        sums += torch.stack(step(state, experiment, batch, place))
        count += 1
    critic, segmentor = (sums / count).tolist()
    return {"train/loss_critic": critic, "train/loss_segmentor": segmentor}


def step(state: TrainingState, experiment: Experiment, batch: Batch, place: Place) -> StepLosses:
    """Move a batch to the device and update the networks once, as the variant asks."""
    layout = torch.channels_last
    image = batch.image.to(place.device, memory_format=layout)
    truth = batch.truth.to(place.device, memory_format=layout)
    brain = batch.brain.to(place.device) if experiment.training.brain_mask else None
    if state.critic is None or state.critic_optimizer is None:
        return supervised_step(
            state.segmentor,
            state.segmentor_optimizer,
            image,
            truth,
            brain,
            dice_smoothing=experiment.loss.dice_smoothing,
            average_gradients=place.average_gradients,
        )
    scales = experiment.critic.depth + 1
    return adversarial_step(
        state.segmentor,
        state.critic,
        state.segmentor_optimizer,
        state.critic_optimizer,
        image,
        truth,
        brain,
        scale_weights=experiment.loss.scale_weights or (1.0,) * scales,
        dice_weight=experiment.loss.dice_weight,
        dice_smoothing=experiment.loss.dice_smoothing,
        clamp=experiment.critic.clamp,
        average_gradients=place.average_gradients,
    )


def _divergence(losses: Mapping[str, float]) -> str | None:
    bad = [f"{name} is {value}" for name, value in losses.items() if not math.isfinite(value)]
    return f"diverged: {bad[0]}" if bad else None
