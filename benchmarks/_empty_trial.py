"""An empty trial as a plain script for ``torchrun``, and what every side of trial_overhead shares.

The work is that of ``orchestration/train/worker.py`` without Ray: open the store, build both
networks, one epoch of two tiny steps, validation, the overlay, a checkpoint.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SETTINGS: dict[str, Any] = {
    "segmentor": {"base_width": 4, "depth": 2},
    "critic": {"base_width": 4, "depth": 1},
    "training": {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "crop": 32},
    "resources": {"workers": 1, "cpus_per_worker": 1},
}


def stamp_first_steps(trial: str, stamps: Path) -> None:
    """Have the next trial of this process leave ``<stamps>/<trial>`` as its first step begins."""
    from segan_ray.training import build_step, fit

    def make_step(*arguments: Any) -> Callable[..., Any]:
        step = build_step.make_step(*arguments)

        def stamped(*batch: Any) -> Any:
            if not (stamps / trial).exists():
                (stamps / trial).write_text(repr(time.time()), encoding="utf-8")
            return step(*batch)

        return stamped

    fit.make_step = make_step


def train(store: Path, checkpoints: Path) -> None:
    """Train one empty trial in this process."""
    import torch

    from segan_ray.config import Experiment
    from segan_ray.data.sampling.slices import fitting_crop, slice_source
    from segan_ray.data.store.cache import local_store
    from segan_ray.data.store.opened_store import open_for_tuning
    from segan_ray.evaluation.figures.overlays import draw_overlay
    from segan_ray.evaluation.inference.validation import validate, validation_settings
    from segan_ray.models.build import downsampling_levels
    from segan_ray.training.checkpoints.trial_folder import TrialFolder
    from segan_ray.training.distributed import average, gather
    from segan_ray.training.epoch_record import BestEpoch, EpochRecord
    from segan_ray.training.fit import DistributedContext, EpochReport, fit
    from segan_ray.training.state import new_state

    experiment, device = Experiment.model_validate(SETTINGS), torch.device("cpu")
    torch.set_num_threads(1)
    cases = open_for_tuning(local_store(str(store)), experiment.data.fold)
    state, depth = new_state(experiment, device), downsampling_levels(experiment)
    settings = validation_settings(experiment, device)

    def judge(segmentor: Any) -> Any:
        return validate(segmentor, cases.val, settings, rank=0, workers=1, gather=gather)

    def report(epoch: EpochReport) -> None:
        best = BestEpoch(epoch.epoch, epoch.metrics)
        overlay = draw_overlay(state.segmentor, cases.val, settings)
        saved = EpochRecord(epoch.epoch, epoch.metrics, best)
        TrialFolder(checkpoints).save(state, experiment, cases.origin, saved, overlay)

    fit(
        state,
        experiment,
        slice_source(cases.train),
        crop=fitting_crop(experiment.training.crop, cases.train, depth),
        context=DistributedContext(device, 0, 1, average),
        validate=judge,
        report=report,
    )


def main() -> None:
    """Run as a rank of ``torchrun``: ``_empty_trial.py STORE CHECKPOINTS STAMPS TRIAL``."""
    import torch.distributed as dist

    store, checkpoints, stamps, trial = sys.argv[1:]
    dist.init_process_group("gloo")
    stamp_first_steps(trial, Path(stamps))
    train(Path(store), Path(checkpoints) / trial)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
