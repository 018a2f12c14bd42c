"""What each Ray Train worker runs: prepare networks and data, then call ``fit``.

Everything that knows of Ray's worker group is here: places, sharing validation, handing
checkpoints to Ray Train.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import ray.train
import torch
from ray.train.torch import get_device
from torch import nn

from segan_ray.config import build
from segan_ray.data.cache import local_store
from segan_ray.data.slices import fitting_crop, slice_source
from segan_ray.data.store import open_for_tuning
from segan_ray.evaluation.overlays import draw_overlay
from segan_ray.evaluation.validation import validate
from segan_ray.models.build import halvings
from segan_ray.training.checkpoint import restore, save_checkpoint
from segan_ray.training.fit import EpochReport, Place, fit
from segan_ray.training.group import average, average_buffers, gather
from segan_ray.training.scores import Validation
from segan_ray.training.state import new_state

OVERLAY: Final = "validation.png"
WORST: Final = 1e9


def train_worker(config: dict[str, Any]) -> None:
    """Train one experiment on this worker's share; ``config`` holds it, nested."""
    experiment = build(config["experiment"], "trial")
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    resources = experiment.resources
    device = get_device() if resources.gpus_per_worker else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(max(1, int(resources.cpus_per_worker)))

    cases = open_for_tuning(local_store(config["store"]), experiment.data.fold)
    depth = halvings(experiment)
    state = new_state(experiment, device, synchronised=device.type == "cuda" and workers > 1)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            restore(Path(folder), state)

    def validate_segmentor(segmentor: nn.Module) -> Validation:
        average_buffers(segmentor)
        return validate(
            segmentor,
            cases.val,
            halvings=depth,
            brain_mask=experiment.training.brain_mask,
            neighbours=experiment.data.neighbours,
            device=device,
            rank=rank,
            workers=workers,
            gather=gather,
        )

    def report(epoch: EpochReport) -> None:
        metrics = {
            "epoch": epoch.epoch,
            "epochs": experiment.training.epochs,
            "failure": epoch.failure,
            **epoch.metrics,
        }
        if epoch.failure is not None:
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
                    neighbours=experiment.data.neighbours,
                    device=device,
                ).save(path / OVERLAY, optimize=True)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    fit(
        state,
        experiment,
        slice_source(cases.train),
        crop=fitting_crop(experiment.training.crop, cases.train, depth),
        place=Place(device, rank, workers, average),
        validate=validate_segmentor,
        report=report,
    )
