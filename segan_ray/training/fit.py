"""THE loop: for each epoch train, validate, report.

It knows neither Ray nor MLflow. Its caller says how tensors are averaged over workers, how a
segmentor is validated, and what happens at an epoch's report (which also writes the
checkpoint).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import torch
from torch import nn

from segan_ray.config import Experiment
from segan_ray.data.sampling.augmentation import Augmentation
from segan_ray.data.sampling.slices import PackedBatch, SliceSource, epoch_batches
from segan_ray.errors import ConfigError
from segan_ray.models.build import downsampling_levels
from segan_ray.training.backend_flags import training_flags, validation_flags
from segan_ray.training.build_step import Step, make_step
from segan_ray.training.compiling import CompilePlan, compiled_passes, compiler_flags
from segan_ray.training.divergence import DivergenceWatch
from segan_ray.training.state import TrainingState
from segan_ray.training.step import EAGER, Average, MicroBatch, StepLosses, keep
from segan_ray.training.validation_scores import VALIDATION, Validation

Validate = Callable[[nn.Module], Validation]
CUDA_LOADERS: Final = 4
"""Threads that assemble slices for a GPU; a CPU has one, since its cores are for training."""


@dataclass(frozen=True)
class EpochReport:
    """One finished epoch: its metrics, whether it is the best, and why training fails, if so.

    ``warning`` is news for the user.
    """

    epoch: int
    metrics: Mapping[str, float]
    improved: bool
    failure: str | None = None
    warning: str | None = None


@dataclass(frozen=True)
class DistributedContext:
    """The rank of this process in its worker group, and how tensors are averaged there."""

    device: torch.device
    rank: int = 0
    workers: int = 1
    average: Average = keep


@dataclass(frozen=True)
class EpochLosses:
    """The mean losses of an epoch's steps, or why they broke off."""

    metrics: Mapping[str, float]
    failure: str | None = None


def fit(
    state: TrainingState,
    experiment: Experiment,
    source: SliceSource,
    *,
    crop: int,
    context: DistributedContext,
    validate: Validate,
    report: Callable[[EpochReport], bool | None],
) -> None:
    """Train ``state`` from its epoch to the last, reporting each; ``report`` returns True to stop.

    A loss that is no finite number ends training at once, and so do ``patience`` validations
    in a row that find every map empty or full: the last report has the worst scores, 0, and
    says why.

    Raises:
        ConfigError: if a part of a batch is too small for batch norm at the deepest level.
    """
    training = experiment.training
    _require_values_to_normalise(experiment, crop, context.workers)
    plan = CompilePlan.of(training, steps_per_epoch(experiment, source), context.device)
    warning = plan.obstacle and f"trains slower than it could, not compiled: {plan.obstacle}"
    parameters = float(sum(weights.numel() for weights in state.segmentor.parameters()))
    for epoch in range(state.epoch + 1, training.epochs + 1):
        started = perf_counter()
        state.set_learning_rates(experiment, epoch)
        with (
            closing(_batches(experiment, source, crop, context, epoch)) as batches,
            training_flags(training, context.device),
            compiler_flags(training) if plan.compiles(epoch) else nullcontext(),
        ):
            passes = compiled_passes() if plan.compiles(epoch) else EAGER
            step = make_step(experiment, context.device, passes)
            losses = train_epoch(state, experiment, batches, context, step)
        trained_s = perf_counter() - started

        failure, scores = losses.failure, dict.fromkeys(VALIDATION, 0.0)
        if failure is None:
            with validation_flags(training, context.device):
                validation = validate(state.in_use)
            state.collapsed = state.collapsed + 1 if validation.collapse else 0
            if state.collapsed < training.patience:
                scores = dict(validation.scores)
            else:
                failure = (
                    f"collapsed: {validation.collapse}, {state.collapsed} validations in a row"
                )

        slices = steps_per_epoch(experiment, source) * training.batch_size
        metrics = {
            **losses.metrics,
            **scores,
            "time/epoch_s": perf_counter() - started,
            "time/slices_per_s": slices / trained_s,
            "model/parameters": parameters,
        }
        improved = state.remember(epoch, scores)
        if report(EpochReport(epoch, metrics, improved, failure, warning)) or failure is not None:
            return
        warning = None


def steps_per_epoch(experiment: Experiment, source: SliceSource) -> int:
    """Return the number of steps in the settings, or enough to show every slice once on average."""
    training = experiment.training
    return training.steps_per_epoch or math.ceil(len(source) / training.batch_size)


def train_epoch(
    state: TrainingState,
    experiment: Experiment,
    batches: Iterable[PackedBatch],
    context: DistributedContext,
    step: Step,
) -> EpochLosses:
    """Run one epoch of steps; return the mean of the losses over steps and workers."""
    state.segmentor.train()
    sums, count = torch.zeros(len(StepLosses._fields), device=context.device), 0
    watch = DivergenceWatch(context.device)
    for batch in batches:
        losses = torch.stack(step(state, split(batch, experiment, context), context.average))
        if experiment.training.ema is not None:
            state.update_mean(experiment.training.ema)
        # All workers must see the same losses, or one would wait for the others for ever.
        context.average([losses])
        if watch.diverged_before(losses):
            break
        sums += losses
        count += 1
    critic, segmentor, adversarial = (sums / count).tolist()
    metrics = {"train/loss_critic": critic, "train/loss_segmentor": segmentor}
    bad = [f"{name} is {value}" for name, value in metrics.items() if not math.isfinite(value)]
    if bad:
        return EpochLosses({}, f"diverged: {bad[0]} at step {count} of epoch {state.epoch + 1}")
    if segmentor > adversarial:
        # How much larger the critic's part is than Dice and cross-entropy together.
        metrics["train/adversarial_share"] = adversarial / (segmentor - adversarial)
    return EpochLosses(metrics)


def split(
    batch: PackedBatch, experiment: Experiment, context: DistributedContext
) -> list[MicroBatch]:
    """Move a worker's share of a batch to the device and cut it into ``accumulate`` parts."""
    training = experiment.training
    ready = batch.unpack(context.device)
    # The weight of one slice when parts are summed and workers averaged.
    slice_share = context.workers / training.batch_size
    return [
        MicroBatch(image, truth, brain if training.brain_mask else None, len(image) * slice_share)
        for image, truth, brain in zip(
            ready.image.tensor_split(training.accumulate),
            ready.truth.tensor_split(training.accumulate),
            ready.brain.tensor_split(training.accumulate),
            strict=True,
        )
    ]


def _batches(
    experiment: Experiment, source: SliceSource, crop: int, context: DistributedContext, epoch: int
) -> Generator[PackedBatch]:
    training, data = experiment.training, experiment.data
    on_cuda = context.device.type == "cuda"
    return epoch_batches(
        source,
        steps=steps_per_epoch(experiment, source),
        batch_size=training.batch_size,
        crop=crop,
        tumour_fraction=data.tumour_fraction,
        flip=data.flip,
        flip_front_back=data.flip_front_back,
        seed=experiment.seed,
        epoch=epoch,
        rank=context.rank,
        workers=context.workers,
        threads=CUDA_LOADERS if on_cuda else 1,
        pinned=on_cuda,
        context_slices=data.neighbours,
        augmentation=Augmentation(data.rotation_deg, data.scaling, data.intensity, data.bias),
    )


def _require_values_to_normalise(experiment: Experiment, crop: int, workers: int) -> None:
    training = experiment.training
    # Norms are over all workers' slices of a part.
    fewest = training.batch_size // (workers * training.accumulate) * workers
    grid = crop // 2 ** downsampling_levels(experiment)
    if fewest * grid * grid < 2:
        raise ConfigError(
            "training",
            [
                f"batch_size {training.batch_size} leaves parts of one slice, and at the deepest "
                f"level a crop of {crop} is one voxel: batch norm needs two values. Raise "
                "batch_size or crop, or lower the depths."
            ],
        )
