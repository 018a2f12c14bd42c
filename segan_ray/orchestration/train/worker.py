"""What each Ray Train worker runs: take a trial, prepare networks and data, call ``fit``.

Everything that knows of Ray's worker group is here and in ``channel``: places, sharing
validation, hearing what becomes of a trial. A worker trains one trial after another, so what a
trial leaves behind must not reach the next: weights, generators and counts all begin from the
trial's own seed or checkpoint.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import ray.train
import torch
from ray.train.torch import get_device
from torch import nn

from segan_ray.config import Experiment, build
from segan_ray.data.sampling.slices import fitting_crop, slice_source
from segan_ray.data.store.cache import local_store
from segan_ray.data.store.opened_store import TuningCases, open_for_tuning
from segan_ray.errors import CheckpointError, TrialError, said
from segan_ray.evaluation.figures.overlays import draw_overlay
from segan_ray.evaluation.inference.validation import validate
from segan_ray.models.build import downsampling_levels
from segan_ray.orchestration.cluster.shared_folder import check_shared
from segan_ray.orchestration.train.epoch_result import EpochResult
from segan_ray.orchestration.train.trial_channel import Task, TrialChannelClient
from segan_ray.orchestration.train.usage import Usage
from segan_ray.training.checkpoints.checkpoint import restore
from segan_ray.training.checkpoints.remote_folder import (
    TrialCheckpoints,
    copied_near,
    trial_checkpoints,
)
from segan_ray.training.checkpoints.trial_folder import BestEpoch, SavedReport, go_back, read_report
from segan_ray.training.distributed import average, average_buffers, gather
from segan_ray.training.fit import DistributedContext, EpochReport, fit
from segan_ray.training.state import TrainingState, new_state
from segan_ray.training.validation_scores import Validation

WORST: Final = 1e9


def train_worker(config: dict[str, str]) -> None:
    """Train the tasks of a lane, one after another, until there are no more."""
    channel, lane = TrialChannelClient(config["mailbox"]), config["lane"]
    done = 0
    while (task := channel.task(lane, done)) is not None:
        with TemporaryDirectory(prefix="segan-ray-") as near:
            Trial.begin(task, channel, lane, Path(near)).train()
        done = task.number
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@dataclass
class Trial:
    """One trial on this worker."""

    task: Task
    channel: TrialChannelClient
    lane: str
    experiment: Experiment
    context: DistributedContext
    cases: TuningCases
    state: TrainingState
    checkpoints: TrialCheckpoints
    near: Path
    usage: Usage
    best: BestEpoch | None = None
    exploit: dict[str, Any] | None = None
    warning: str | None = None

    @classmethod
    def begin(cls, task: Task, channel: TrialChannelClient, lane: str, near: Path) -> Trial:
        """Set the trial up, to go on from its last checkpoint; copies of far ones go ``near``."""
        experiment = build(task.config["experiment"], f"trial {task.config['trial']}")
        check_shared(task.config["checkpoints"].rpartition("/")[0], ray.util.get_node_ip_address())
        here = ray.train.get_context()
        workers = here.get_world_size()
        resources = experiment.resources
        device = get_device() if resources.gpus_per_worker else torch.device("cpu")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        torch.set_num_threads(max(1, int(resources.cpus_per_worker)))
        cases = open_for_tuning(local_store(task.config["store"]), experiment.data.fold)
        state = new_state(experiment, device, synchronised=device.type == "cuda" and workers > 1)
        return cls(
            task,
            channel,
            lane,
            experiment,
            DistributedContext(device, here.get_world_rank(), workers, average),
            cases,
            state,
            trial_checkpoints(task.config["checkpoints"], near),
            near,
            Usage.begin(device),
        )

    def train(self) -> None:
        """Train to the last epoch, or until told to stop."""
        if self._restored_to_its_end():
            return
        while True:
            depth = downsampling_levels(self.experiment)
            fit(
                self.state,
                self.experiment,
                slice_source(self.cases.train),
                crop=fitting_crop(self.experiment.training.crop, self.cases.train, depth),
                context=self.context,
                validate=self._validate,
                report=self._report,
            )
            if self.exploit is None:
                return
            self._exploit(self.exploit)
            self.exploit = None

    def _restored_to_its_end(self) -> bool:
        """Go back to the last checkpoint, if any, and say again what its epoch came to.

        Whoever noted results may have died between the checkpoint and the note.
        """
        last, self.warning = go_back(self.checkpoints.newest_first(), self.state)
        self._check_together()
        if last is None:
            return False
        saved = read_report(last)
        self.best = saved.best
        stop = self._deliver(self._result(saved.epoch, saved.metrics))
        if self.exploit is not None:
            self._exploit(self.exploit)
            self.exploit = None
            return False
        return stop

    def _check_together(self) -> None:
        """Make sure that all workers go on from one epoch.

        Raises:
            TrialError: if not: they would average networks of different ages, without a word.
        """
        epochs = gather(self.state.epoch)
        if len(set(epochs)) > 1:
            raise TrialError(
                f"workers found checkpoints of different epochs ({epochs}, by rank) at "
                f"{self.task.config['checkpoints']}: their nodes do not see the same files. Set "
                "SEGAN_RAY_STORAGE to a URL or a folder that every node sees."
            )

    def _report(self, epoch: EpochReport) -> bool:
        """Save and hand on an epoch; return whether training stops there."""
        metrics = {**epoch.metrics, **self.usage.of_epoch()}
        objective, mode = self.task.config["metric"], self.task.config["mode"]
        if epoch.failure is not None:
            # A scheduler must find its objective, as a number: the worst there is.
            metrics[objective] = 0.0 if mode == "max" else WORST
            return self._deliver(self._result(epoch.epoch, metrics, epoch.failure))
        now = BestEpoch(epoch.epoch, metrics)
        self.best = self.best.or_better(now, objective, mode) if self.best else now
        if self.context.rank == 0:
            saved = SavedReport(epoch.epoch, metrics, self.best)
            overlay = self._overlay() if self.best.epoch == epoch.epoch else None
            self.checkpoints.save(self.state, self.experiment, self.cases.origin, saved, overlay)
        return self._deliver(self._result(epoch.epoch, metrics))

    def _deliver(self, result: EpochResult) -> bool:
        """Hand a result on and wait to hear what becomes of the trial; return whether it ends."""
        if self.context.rank == 0:
            self.channel.report(self.lane, self.task.number, result)
        self.warning = None
        if result.last:
            return True
        verdict = self.channel.verdict(self.lane, self.task.number, result.epoch)
        self.exploit = verdict.exploit
        return not verdict.go_on or self.exploit is not None

    def _result(
        self, epoch: int, metrics: Mapping[str, float], failure: str | None = None
    ) -> EpochResult:
        return EpochResult(
            epoch,
            self.experiment.training.epochs,
            metrics,
            self.best.epoch if self.best else None,
            self.best.metrics if self.best else {},
            failure,
            self.warning,
        )

    def _exploit(self, order: dict[str, Any]) -> None:
        """Go on from another trial's weights and optimizers, with new settings.

        The count of epochs and the best so far stay this trial's own; so do its weights where the
        other's are damaged.
        """
        epoch, best = self.state.epoch, self.state.best
        self.experiment = build(order["experiment"], f"trial {self.task.config['trial']}")
        if order["checkpoint"] is not None:
            try:
                restore(copied_near(order["checkpoint"], self.near), self.state)
            except CheckpointError as error:
                self.warning = f"goes on from its own weights, not another trial's: {said(error)}"
            if len(set(gather(self.warning is None))) > 1:
                raise TrialError(
                    f"not all workers could read {order['checkpoint']}, so they would average "
                    "different networks."
                )
        self.state.epoch, self.state.best, self.state.collapsed = epoch, best, 0

    def _validate(self, segmentor: nn.Module) -> Validation:
        average_buffers(segmentor)
        return validate(
            segmentor,
            self.cases.val,
            downsampling_levels=downsampling_levels(self.experiment),
            brain_mask=self.experiment.training.brain_mask,
            context_slices=self.experiment.data.neighbours,
            device=self.context.device,
            rank=self.context.rank,
            workers=self.context.workers,
            gather=gather,
        )

    def _overlay(self) -> Any:
        return draw_overlay(
            self.state.segmentor,
            self.cases.val,
            downsampling_levels=downsampling_levels(self.experiment),
            brain_mask=self.experiment.training.brain_mask,
            context_slices=self.experiment.data.neighbours,
            device=self.context.device,
        )
