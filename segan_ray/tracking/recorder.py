"""Writing a sweep into MLflow: one parent run, one child run a trial.

Records are put on a queue and written by one background thread, in order, so that nobody who
trains or schedules ever waits for the tracking store. A write that fails is tried again, with
growing pauses, before the record after it.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from segan_ray.config import Experiment, flatten
from segan_ray.data.places import absolute, is_url, place_name
from segan_ray.home import Home
from segan_ray.search.ranking import Mode, TrialStatus
from segan_ray.tracking import client as names
from segan_ray.tracking.card import StoreCard
from segan_ray.tracking.client import connect, experiment_id, version_tags

log = logging.getLogger(__name__)

RETRY_S: Final = (0.5, 1, 2, 5, 10, 20, 30)
"""Pauses between tries of one write, in seconds: a store away for a minute loses nothing."""


@dataclass
class _Trial:
    run: str
    score: float | None = None


@dataclass
class Recorder:
    """The records of one sweep, or of a single run (``parent`` is then None)."""

    client: MlflowClient
    experiment: str
    name: str
    store: StoreCard
    metric: str
    mode: Mode
    parent: str | None
    _trials: dict[str, _Trial] = field(default_factory=dict)
    _queue: queue.Queue[Callable[[], None] | None] = field(default_factory=queue.Queue)
    _thread: threading.Thread | None = None

    @classmethod
    def for_sweep(
        cls, home: Home, name: str, store: StoreCard, metric: str, mode: Mode, space: str
    ) -> Recorder:
        """Open the parent run of a new sweep; ``space`` is its file's text."""
        client = connect(home)
        experiment = experiment_id(client, home)
        tags = {
            **_common_tags(name, store),
            names.KIND: "sweep",
            names.STATUS: "running",
            names.METRIC: metric,
            names.MODE: mode,
        }
        run = client.create_run(experiment, run_name=name, tags=tags).info.run_id
        client.log_inputs(run, [_dataset(store)])
        client.log_text(run, space, "space.yaml")
        return cls(client, experiment, name, store, metric, mode, run).started()

    @classmethod
    def for_run(cls, home: Home, name: str, store: StoreCard, metric: str, mode: Mode) -> Recorder:
        """Prepare to record a single run without parent."""
        client = connect(home)
        experiment = experiment_id(client, home)
        return cls(client, experiment, name, store, metric, mode, None).started()

    def start_trial(self, trial: str, experiment: Experiment, params: Mapping[str, Any]) -> str:
        """Create the trial's run and return its id; ``params`` is what was drawn for it."""
        run_name = f"{self.name}-{trial}" if self.parent else self.name
        tags = {
            **_common_tags(self.name, self.store),
            names.KIND: "trial" if self.parent else "train",
            names.TRIAL: trial,
            names.STATUS: "running",
            names.EPOCHS: "0",
            names.PARAMS: json.dumps(params),
            **({names.PARENT: self.parent} if self.parent else {}),
        }
        run = self.client.create_run(self.experiment, run_name=run_name, tags=tags).info.run_id
        self._trials[trial] = _Trial(run)
        settings = [Param(path, str(value)) for path, value in flatten(experiment).items()]

        def write() -> None:
            self.client.log_batch(run, params=settings)
            self.client.log_inputs(run, [_dataset(self.store)])

        self._queue.put(write)
        return str(run)

    def log_epoch(self, trial: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one epoch, and the trial's best so far."""
        record = self._trials[trial]
        now = int(time.time() * 1000)
        values = [Metric(name, value, now, epoch) for name, value in metrics.items()]
        tags = [RunTag(names.EPOCHS, str(epoch))]
        score = metrics[self.metric]
        if record.score is None or (score - record.score) * self._sign >= 0:
            record.score = score
            tags += [RunTag(names.SCORE, repr(score)), RunTag(names.BEST_EPOCH, str(epoch))]

        def write() -> None:
            self.client.log_batch(record.run, metrics=values, tags=tags)

        self._queue.put(write)

    def end_trial(
        self, trial: str, status: TrialStatus, reason: str | None, checkpoint: Path | None
    ) -> None:
        """Close the trial's run, with its best checkpoint and overlays as artifacts."""
        run = self._trials[trial].run
        tags = [RunTag(names.STATUS, status)]
        if reason:
            tags.append(RunTag(names.REASON, reason[:4000]))

        def write() -> None:
            if checkpoint is not None and checkpoint.is_dir():
                for path in sorted(checkpoint.iterdir()):
                    folder = "overlays" if path.suffix == ".png" else "checkpoint"
                    self.client.log_artifact(run, str(path), folder)
            self.client.log_batch(run, tags=tags)
            self.client.set_terminated(run, "FAILED" if status == "failed" else "FINISHED")

        self._queue.put(write)

    def close(self, *, failed: bool) -> None:
        """Write everything that is queued, then close the parent run."""
        parent = self.parent

        def write() -> None:
            if parent is None:
                return
            self.client.set_tag(parent, names.STATUS, "failed" if failed else "finished")
            best = self._best()
            if best is not None:
                self.client.log_metric(parent, self.metric, best)
            self.client.set_terminated(parent, "FAILED" if failed else "FINISHED")

        self._queue.put(write)
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join()

    @property
    def _sign(self) -> int:
        return 1 if self.mode == "max" else -1

    def _best(self) -> float | None:
        scores = [trial.score for trial in self._trials.values() if trial.score is not None]
        return max(scores, key=lambda score: score * self._sign, default=None)

    def started(self) -> Recorder:
        """Begin to write what is queued."""
        self._thread = threading.Thread(target=self._drain, name="mlflow-recorder", daemon=True)
        self._thread.start()
        return self

    def _drain(self) -> None:
        while (write := self._queue.get()) is not None:
            _persist(write)


def _dataset(store: StoreCard) -> DatasetInput:
    where = absolute(store.path)
    dataset = Dataset(
        name=place_name(where),
        digest=store.fingerprint,
        source_type=where.partition("://")[0] if is_url(where) else "local",
        source=json.dumps({"uri": where}),
        profile=json.dumps({f"{split}_patients": n for split, n in store.patients.items()}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _persist(write: Callable[[], None]) -> None:
    for pause_s in (*RETRY_S, None):
        try:
            write()
            return
        except (MlflowException, OSError) as error:
            if pause_s is None:
                log.exception("MLflow lost a record.")
                return
            log.warning("MLflow does not answer (%s); trying again in %s s.", error, pause_s)
            time.sleep(pause_s)


def _common_tags(name: str, store: StoreCard) -> dict[str, str]:
    tags = {
        names.SWEEP: name,
        names.STORE: store.fingerprint,
        "mlflow.source.name": "segan-ray",
        **version_tags(),
    }
    with contextlib.suppress(OSError, KeyError):
        tags["mlflow.user"] = getpass.getuser()
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        here = Path(__file__).parent
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True
        )
        tags["mlflow.source.git.commit"] = commit.stdout.strip()
    return tags
