"""What each Ray Train worker runs: take a task, prepare networks and data, call ``fit``.

All knowledge of Ray's worker group is here and in ``trial_channel``: the rank, sharing validation,
waiting for the driver's decisions. A worker trains one trial after another, and nothing of a trial
reaches the next: weights, generators and counts begin from the trial's own seed or checkpoint.
"""

from __future__ import annotations

import gc
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import ray.train
import torch
from PIL.Image import Image, Resampling
from ray.train.torch import get_device
from torch import nn

from segan_ray.config import Experiment
from segan_ray.data.sampling.slices import fitting_crop, slice_source
from segan_ray.data.store.cache import local_store
from segan_ray.data.store.opened_store import TuningCases, open_for_tuning
from segan_ray.errors import CheckpointError, TrialError, said
from segan_ray.evaluation.figures.overlays import draw_overlay
from segan_ray.evaluation.inference.validation import validate, validation_settings
from segan_ray.models.build import downsampling_levels
from segan_ray.orchestration.cluster.shared_folder import check_shared
from segan_ray.orchestration.train.folds import Folds
from segan_ray.orchestration.train.messages import (
    GO_ON,
    STOP,
    Decision,
    EpochResult,
    Task,
    worst,
)
from segan_ray.orchestration.train.trial_channel import TrialChannelClient
from segan_ray.orchestration.train.usage import Usage
from segan_ray.orchestration.train.worker_group_spec import WorkerGroupSpec
from segan_ray.training.checkpoints.checkpoint import restore
from segan_ray.training.checkpoints.remote_folder import (
    TrialCheckpoints,
    copied_near,
    trial_checkpoints,
)
from segan_ray.training.checkpoints.trial_folder import go_back, read_report
from segan_ray.training.compiling import GraphsOfOneArchitecture
from segan_ray.training.distributed import average, gather
from segan_ray.training.epoch_record import BestEpoch, EpochRecord
from segan_ray.training.fit import DistributedContext, EpochReport, fit
from segan_ray.training.memory import OutOfMemoryError, out_of_memory, ran_out
from segan_ray.training.state import TrainingState, new_state
from segan_ray.training.validation_scores import VALIDATION, Validation

NO_GPU: Final = (
    f"trains on the CPU: Ray gave it a GPU, but torch {torch.__version__} sees none. Install a "
    "torch that is built for CUDA, or set resources.gpus_per_worker=0"
)
PICTURES: Final = 20
"""Of how many epochs of a run, at most, MLflow shows a picture; one more if it is the last."""


def train_worker(config: dict[str, str]) -> None:
    """Train the tasks of a worker group, one after another, until there are no more."""
    channel, group = TrialChannelClient(config["channel"]), config["group"]
    graphs, said = GraphsOfOneArchitecture(), set[str]()
    done = 0
    while (task := channel.task(group, done)) is not None:
        graphs.come_to(task.config["experiment"])
        with TemporaryDirectory(prefix="segan-ray-") as near:
            TrialTraining.begin(task, channel, group, Path(near), said).train()
        done = task.number
        gc.collect()
        # Does nothing in a process that has not used CUDA.
        torch.cuda.empty_cache()


@dataclass
class TrialTraining:
    """The training of one trial on this worker.

    ``ended`` holds the best epochs of the folds before the present ``fold``.
    """

    task: Task
    channel: TrialChannelClient
    group: str
    experiment: Experiment
    context: DistributedContext
    cases: TuningCases
    state: TrainingState
    checkpoints: TrialCheckpoints
    near: Path
    said: set[str]
    usage: Usage
    folds: Folds
    fold: int = 0
    ended: tuple[BestEpoch, ...] = ()
    best: BestEpoch | None = None
    decision: Decision = GO_ON
    warning: str | None = None

    @classmethod
    def begin(
        cls, task: Task, channel: TrialChannelClient, group: str, near: Path, said: set[str]
    ) -> TrialTraining:
        """Set the training up; copies of far checkpoints go below ``near``.

        ``said`` holds what the user was warned of, so that what holds of the process for all of
        its trials is said in one.
        """
        asked: Experiment = task.config["experiment"]
        folds = Folds(task.config["runs"], asked.training.epochs)
        experiment = folds.experiment(asked, 0)
        check_shared(task.config["checkpoints"].rpartition("/")[0], ray.util.get_node_ip_address())
        group_context = ray.train.get_context()
        workers = group_context.get_world_size()
        spec: WorkerGroupSpec = task.config["workers"]
        device = torch.device("cpu")
        if spec.gpus_per_worker and torch.cuda.is_available():
            device = get_device()
            torch.cuda.set_device(device)
        torch.set_num_threads(max(1, int(spec.cpus_per_worker)))
        cases = open_for_tuning(local_store(task.config["store"]), experiment.data.fold)
        state = new_state(experiment, device, synchronised=workers > 1)
        training = cls(
            task,
            channel,
            group,
            experiment,
            DistributedContext(device, group_context.get_world_rank(), workers, average),
            cases,
            state,
            trial_checkpoints(task.config["checkpoints"], near),
            near,
            said,
            Usage.begin(device),
            folds,
        )
        if spec.gpus_per_worker and device.type != "cuda" and NO_GPU not in said:
            training._warn(NO_GPU)
        return training

    def train(self) -> None:
        """Train from the last checkpoint to the last epoch, or until the driver says stop."""
        over = self._restore()
        while not over:
            try:
                self._fit()
            except Exception as error:
                if not ran_out(error):
                    raise
                self._run_out(out_of_memory(error, self.experiment, self.context.device))
                return
            over = self._obey()

    def _fit(self) -> None:
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

    def _run_out(self, error: OutOfMemoryError) -> None:
        """Report that the trial cannot go on: with the same settings it would run out again.

        Raises:
            OutOfMemoryError: if other workers wait for this one, so that their group ends.
        """
        metrics = dict.fromkeys(VALIDATION, 0.0)
        epoch = self._of_trial(self.state.epoch + 1)
        failure = f"{error} (epoch {epoch})"
        measured = {**metrics, **self.usage.of_epoch()}
        self._fail(epoch, measured, failure, out_of_memory=True)
        if self.context.workers > 1:
            raise error

    def _warn(self, warning: str | None) -> None:
        """Put a warning into the next result, with one that is there already."""
        if warning is not None:
            self.said.add(warning)
            self.warning = "; ".join(filter(None, (self.warning, warning)))

    def _restore(self) -> bool:
        """Go back to the last checkpoint, if any; return whether training is over there.

        Its epoch is reported again: the driver may have died before it recorded the epoch.
        """
        last, damaged = go_back(self.checkpoints.newest_first(), self.state)
        self._warn(damaged)
        saved = None if last is None else read_report(last)
        self._check_together(0 if saved is None else saved.epoch)
        if saved is None:
            return False
        self.best, self.ended = saved.best, saved.folds[:-1]
        if self.folds.of(saved.epoch) != self.fold:
            self._open_fold(self.folds.of(saved.epoch))
        ends = self._deliver(self._result(saved.epoch, saved.metrics))
        return (ends or self.state.epoch >= self.folds.epochs) and self._obey()

    def _obey(self) -> bool:
        """Do as the last decision says; return whether training is over.

        It is not where the trial exploits another, or has another fold to train on.
        """
        decision, self.decision = self.decision, GO_ON
        if decision.experiment is not None:
            self._exploit(decision.experiment, decision)
            return False
        if decision.stop or self.fold + 1 == self.folds.count:
            return True
        self._begin_next_fold()
        return False

    def _begin_next_fold(self) -> None:
        """Begin anew, with other networks, on the next fold."""
        assert self.best is not None, "a fold that ended has a best epoch"
        self.ended, self.best = (*self.ended, self.best), None
        self.state = new_state(
            self.experiment, self.context.device, synchronised=self.context.workers > 1
        )
        self._open_fold(self.fold + 1)

    def _open_fold(self, fold: int) -> None:
        self.fold, self.experiment = fold, self.folds.experiment(self.experiment, fold)
        self.cases = open_for_tuning(
            local_store(self.task.config["store"]), self.experiment.data.fold
        )

    def _of_trial(self, epoch: int) -> int:
        """Return the epoch of the trial that is that ``epoch`` of the present fold."""
        return self.fold * self.folds.epochs + epoch

    def _check_together(self, epoch: int) -> None:
        """Make sure that all workers go on from one epoch.

        Raises:
            TrialError: if not: they would average networks of different ages, without a word.
        """
        epochs = gather(epoch)
        if len(set(epochs)) > 1:
            raise TrialError(
                f"workers found checkpoints of different epochs ({epochs}, by rank) at "
                f"{self.task.config['checkpoints']}: their nodes do not see the same files. Set "
                "SEGAN_RAY_STORAGE to a URL or a folder that every node sees."
            )

    def _report(self, epoch: EpochReport) -> bool:
        """Save and report an epoch; return whether the loop is to end there."""
        number, measured = self._of_trial(epoch.epoch), {**epoch.metrics, **self.usage.of_epoch()}
        if epoch.warning not in self.said:
            self._warn(epoch.warning)
        objective, mode = self.task.config["metric"], self.task.config["mode"]
        if epoch.failure is not None:
            if self.context.rank == 0:
                self._fail(number, measured, epoch.failure)
            self.decision = STOP
            return True
        now = BestEpoch(number, measured)
        self.best = self.best.or_better(now, objective, mode) if self.best else now
        metrics = self.folds.metrics(number, measured, self._bests, objective)
        picture = None
        if self.context.rank == 0:
            of_folds = self._bests if self.folds.count > 1 else ()
            record = EpochRecord(number, metrics, self.best, of_folds)
            overlay, picture = self._pictures(epoch.epoch, best=self.best.epoch == number)
            self.checkpoints.save(self.state, self.experiment, self.cases.origin, record, overlay)
        return self._deliver(replace(self._result(number, metrics), picture=picture))

    def _pictures(self, epoch: int, *, best: bool) -> tuple[Image | None, bytes | None]:
        """Return the picture of an epoch for its checkpoint, if it is the best, and for MLflow."""
        shown = is_pictured(epoch, self.folds.epochs)
        if not shown and not best:
            return None, None
        settings = validation_settings(self.experiment, self.context.device)
        overlay = draw_overlay(self.state.in_use, self.cases.val, settings)
        return overlay if best else None, small_png(overlay) if shown else None

    @property
    def _bests(self) -> tuple[BestEpoch, ...]:
        """The best epoch of each fold so far."""
        return self.ended if self.best is None else (*self.ended, self.best)

    def _fail(
        self, epoch: int, metrics: dict[str, float], failure: str, *, out_of_memory: bool = False
    ) -> None:
        objective, mode = self.task.config["metric"], self.task.config["mode"]
        metrics[objective] = worst(mode)
        result = replace(self._result(epoch, metrics, failure), out_of_memory=out_of_memory)
        self.channel.report(self.group, self.task.number, result)

    def _deliver(self, result: EpochResult) -> bool:
        """Report a result and wait for the decision; return whether the loop is to end there."""
        if self.context.rank == 0:
            self.channel.report(self.group, self.task.number, result)
        self.warning = None
        if result.last:
            return True
        self.decision = self.channel.decision(self.group, self.task.number, result.epoch)
        return self.decision.stop or self.decision.experiment is not None

    def _result(
        self, epoch: int, metrics: Mapping[str, float], failure: str | None = None
    ) -> EpochResult:
        best = self.folds.best(self._bests)
        return EpochResult(epoch, self.folds.in_all, metrics, best, failure, self.warning)

    def _exploit(self, experiment: Experiment, decision: Decision) -> None:
        """Go on with new settings, from another trial's weights and optimizers.

        The count of epochs and the best so far stay this trial's own; so do its weights if the
        other's are damaged.
        """
        epoch, best = self.state.epoch, self.state.best
        self.experiment = experiment
        if decision.checkpoint is not None:
            try:
                restore(copied_near(decision.checkpoint, self.near), self.state)
            except CheckpointError as error:
                self.warning = f"goes on from its own weights, not another trial's: {said(error)}"
            if len(set(gather(self.warning is None))) > 1:
                raise TrialError(
                    f"not all workers could read {decision.checkpoint}, so they would average "
                    "different networks."
                )
        self.state.epoch, self.state.best, self.state.collapsed = epoch, best, 0

    def _validate(self, segmentor: nn.Module) -> Validation:
        return validate(
            segmentor,
            self.cases.val,
            validation_settings(self.experiment, self.context.device),
            rank=self.context.rank,
            workers=self.context.workers,
            gather=gather,
        )


def small_png(picture: Image) -> bytes:
    """Return a picture at half its size, since there may be twenty of each trial, as a PNG."""
    png = io.BytesIO()
    small = (picture.width // 2, picture.height // 2)
    picture.resize(small, Resampling.LANCZOS).save(png, "PNG")
    return png.getvalue()


def is_pictured(epoch: int, epochs: int) -> bool:
    """Tell whether an epoch, of so many, is one of at most ``PICTURES`` that are pictured."""
    every = -(-epochs // PICTURES)
    return epoch == epochs or epoch % every == 1 % every
