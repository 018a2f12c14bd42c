"""What each Ray Train worker runs: prepare networks and data, then call ``fit``.

Everything that knows of the worker group is here: averaging gradients, sharing validation,
handing checkpoints to Ray Train.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import ray.train
import torch
import torch.distributed as dist
from torch import nn

from segan_ray.config import build
from segan_ray.data.slices import fitting_crop, slice_source
from segan_ray.data.store import open_for_tuning
from segan_ray.evaluation.overlays import draw_overlay
from segan_ray.evaluation.validation import validate
from segan_ray.models.build import halvings
from segan_ray.training.checkpoint import restore, save_checkpoint
from segan_ray.training.fit import EpochReport, Place, fit
from segan_ray.training.state import new_state

OVERLAY: Final = "validation.png"
WORST: Final = 1e9


def train_worker(config: dict[str, Any]) -> None:
    """Train one experiment on this worker's share; ``config`` holds it, nested."""
    experiment = build(config["experiment"], "trial")
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    resources = experiment.resources
    device = torch.device("cuda" if resources.gpus_per_worker else "cpu")
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))

    cases = open_for_tuning(Path(config["store"]))
    depth = halvings(experiment)
    state = new_state(experiment, device)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            restore(Path(folder), state)

    def validate_segmentor(segmentor: nn.Module) -> dict[str, float]:
        average_buffers(segmentor)
        return validate(
            segmentor,
            cases.val,
            halvings=depth,
            brain_mask=experiment.training.brain_mask,
            device=device,
            rank=rank,
            workers=workers,
            gather=gather,
        )

    def report(epoch: EpochReport) -> None:
        metrics = {
            "epoch": epoch.epoch,
            "epochs": experiment.training.epochs,
            "diverged": epoch.diverged,
            **epoch.metrics,
        }
        if epoch.diverged:
            # A scheduler must find its objective, as a number: the worst there is.
            metrics[config["metric"]] = 0.0 if config["mode"] == "max" else WORST
        if rank != 0:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            save_checkpoint(path, state, experiment)
            if epoch.improved:
                draw_overlay(
                    state.segmentor,
                    cases.val,
                    halvings=depth,
                    brain_mask=experiment.training.brain_mask,
                    device=device,
                ).save(path / OVERLAY, optimize=True)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    fit(
        state,
        experiment,
        slice_source(cases.train),
        crop=fitting_crop(experiment.training.crop, cases.train, depth),
        place=Place(device, rank, workers, average_gradients),
        validate=validate_segmentor,
        report=report,
    )


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients over the group in one all-reduce; nothing to do when alone.

    Done by hand rather than by DistributedDataParallel: two networks that are frozen in turn,
    and one forward that serves two backwards, are what its reducer does not expect.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, averaged in zip(
        gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True
    ):
        gradient.copy_(averaged.view_as(gradient))


def average_buffers(network: nn.Module) -> None:
    """Average running statistics over the group, so that all workers hold one network."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    for buffer in network.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer.div_(dist.get_world_size())


def gather(mine: Any) -> list[Any]:
    """Collect one object from every worker."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return [mine]
    collected: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(collected, mine)
    return collected
