"""Applying records to MLflow's runs. Applying a record twice changes nothing.

MLflow keeps one row per metric (run, name, step, time, value), and the time is the record's. A run
is looked up by its tags before it is made. Files are written over. All else is set.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from segan_ray.data.store.origin import ORIGIN
from segan_ray.errors import RunError
from segan_ray.tracking import tag_names
from segan_ray.tracking.client.artifacts import delete_artifacts
from segan_ray.tracking.client.connection import Check, always
from segan_ray.tracking.description.notes import NOTE, sweep_result, with_result
from segan_ray.tracking.outbox import Record
from segan_ray.tracking.reading.sweeps import sweep_record
from segan_ray.tracking.recording.checkpoints import (
    CHECKPOINT,
    CheckpointFolders,
    near_copy,
    parts_of,
)
from segan_ray.tracking.recording.pictures import WaitingPictures
from segan_ray.tracking.recording.runs import SweepRuns
from segan_ray.tracking.registry.model_versions import versions_of

log = logging.getLogger(__name__)

MOST_METRICS: Final = 900
MOST_PARAMS: Final = 90
"""MLflow takes a thousand and a hundred in one request."""
ENDED_AS: Final = {"failed": "FAILED", "interrupted": "KILLED"}
Item = TypeVar("Item")


@dataclass(frozen=True)
class RunWriter:
    """Writes the records of one sweep into its runs."""

    runs: SweepRuns
    checkpoints: CheckpointFolders
    pictures: WaitingPictures
    check: Check = always

    def apply(self, records: Sequence[Record]) -> None:
        """Write ``records``, which are epochs or a single other record, into their runs.

        A ``known`` record came from MLflow, so nothing is written for it.
        """
        self.check()
        first = records[0]
        if first.kind == "epoch":
            self._epochs(records)
        elif first.kind == "open":
            self._open(first)
        elif first.kind == "close":
            self._close(first)
        elif first.kind == "start":
            self._start(first)
        elif first.kind == "end":
            self._end(first)
        elif first.kind == "drop":
            self._drop(str(first.trial))
        elif first.kind == "suspend":
            self._suspend(first)
        elif first.kind == "pause":
            self._pause(first)

    @property
    def _client(self) -> MlflowClient:
        return self.runs.client

    def _open(self, record: Record) -> None:
        parent = self.runs.parent
        self._client.update_run(parent, status="RUNNING")
        tags = {tag_names.STATUS: "running", tag_names.OUTBOX: record.facts["outbox"]}
        self._client.log_batch(parent, tags=_tags(tags))

    def _start(self, record: Record) -> None:
        trial = str(record.trial)
        existing = self.runs.find(trial)
        logged: Mapping[str, str] = {}
        if existing is None:
            run = self.runs.create(trial, record)
        else:
            run, logged = existing.info.run_id, existing.data.params
            self._client.update_run(run, status="RUNNING")
            self._client.set_tag(run, tag_names.STATUS, "running")
            if existing.data.tags.get(tag_names.INFEASIBLE):
                self._client.set_tag(run, tag_names.INFEASIBLE, "")
        # MLflow changes no parameter. Settings that change during a trial are metrics.
        settings = record.facts["settings"]
        missing = [Param(key, value) for key, value in settings.items() if key not in logged]
        for some in _parts(missing, MOST_PARAMS):
            self._client.log_batch(run, params=some)
        self._client.log_inputs(run, [self.runs.facts.dataset()])

    def _epochs(self, records: Sequence[Record]) -> None:
        by_trial: dict[str, list[Record]] = {}
        for record in records:
            by_trial.setdefault(str(record.trial), []).append(record)
        for trial, epochs in by_trial.items():
            run = self.runs.of(trial)
            metrics = [metric for epoch in epochs for metric in _metrics(epoch)]
            for some in _parts(metrics, MOST_METRICS):
                self._client.log_batch(run, metrics=some)
            for epoch in epochs:
                if "picture" in epoch.facts:
                    fold, step = _fold(epoch)
                    name = str(epoch.facts["picture"])
                    self.pictures.log(self._client, run, name, step, epoch.at, fold)
            # After the metrics, so that no reader sees an epoch in the tags without its metrics.
            self._client.log_batch(run, tags=_tags(epochs[-1].facts["tags"]))

    def _end(self, record: Record) -> None:
        trial, facts = str(record.trial), record.facts
        run = self.runs.of(trial)
        self._checkpoint(run, record)
        tags = {tag_names.STATUS: facts["status"], **_feasibility(facts)}
        if facts["reason"]:
            tags[tag_names.REASON] = facts["reason"][:4000]
        self._client.log_batch(run, tags=_tags(tags))
        self._client.set_terminated(run, ENDED_AS.get(facts["status"], "FINISHED"), record.at)
        self.runs.delete_doubles(trial)

    def _checkpoint(self, run: str, record: Record) -> None:
        """Upload the checkpoint that a record names, if it names one."""
        trial, checkpoint = str(record.trial), record.facts.get("checkpoint")
        if checkpoint is not None:
            # A checkpoint that is to be dropped is not uploaded first.
            whole = not self.checkpoints.is_dropped(trial)
            self._upload(run, self.checkpoints.here(trial, checkpoint), whole=whole)

    def _upload(self, run: str, checkpoint: str, *, whole: bool) -> None:
        """Log the files of a checkpoint, or its pictures alone, if it still exists.

        Of a trial that trained on folds they are the best checkpoints of its folds, laid out as the
        members of an ensemble, with what they have in common beside them.
        """
        with contextlib.suppress(FileNotFoundError):
            for inside, part in parts_of(checkpoint):
                with near_copy(part) as folder_of:
                    self._log_files(run, folder_of, inside, whole=whole)
                    if inside != CHECKPOINT and whole:
                        self._client.log_artifact(run, str(folder_of / ORIGIN), CHECKPOINT)

    def _log_files(self, run: str, folder_of: Path, inside: str, *, whole: bool) -> None:
        """Log the files of a folder.

        Links are left out: checkpoints hold none, and a link could publish any file in MLflow.
        """
        for path in sorted(path for path in folder_of.iterdir() if not path.is_symlink()):
            if path.suffix == ".png":
                self._client.log_artifact(run, str(path), "overlays")
            elif whole:
                self._client.log_artifact(run, str(path), inside)

    def _drop(self, trial: str) -> None:
        """Delete a trial's checkpoint, in MLflow only if no registered version needs it."""
        self.checkpoints.delete(trial)
        run = self.runs.of(trial)
        if not versions_of(self._client, run):
            delete_artifacts(self._client, run, CHECKPOINT)

    def _suspend(self, record: Record) -> None:
        run = self.runs.of(str(record.trial))
        self._client.set_tag(run, tag_names.STATUS, "pending")
        self._client.set_terminated(run, "KILLED", record.at)

    def _pause(self, record: Record) -> None:
        run = self.runs.of(str(record.trial))
        self._checkpoint(run, record)
        tags = {tag_names.STATUS: "paused", **_feasibility(record.facts)}
        self._client.log_batch(run, tags=_tags(tags))
        self._client.update_run(run, status="SCHEDULED")

    def _close(self, record: Record) -> None:
        parent = self.runs.parent
        status, best = record.facts["status"], record.facts["best"]
        # Records of earlier versions do not say it.
        ended_by = record.facts.get("ended_by") or ""
        tags = {tag_names.STATUS: status, tag_names.ENDED_BY: ended_by}
        self._client.log_batch(parent, tags=_tags(tags))
        if best is not None:
            self._client.log_metric(parent, self.runs.facts.metric, best, record.at)
        self._describe(parent)
        self._client.set_terminated(parent, ENDED_AS.get(status, "FINISHED"), record.at)

    def _describe(self, parent: str) -> None:
        """Put the result of the sweep into its description, unless its tags were changed."""
        run = self._client.get_run(parent)
        try:
            record = sweep_record(self._client, run)
        except RunError as error:
            log.warning("%s", error)
            return
        result = sweep_result(record, self.runs.experiment)
        note = with_result(run.data.tags.get(NOTE, ""), result)
        self._client.set_tag(parent, NOTE, note)


def _feasibility(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the tag of an infeasible trial; one that may yet win has none, or an empty one."""
    # Records of earlier versions do not say it.
    known = facts.get("infeasible")
    return {} if known is None else {tag_names.INFEASIBLE: "true" if known else ""}


def _parts(items: Sequence[Item], most: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), most):
        yield items[start : start + most]


def _metrics(record: Record) -> list[Metric]:
    epoch = record.facts["epoch"]
    # Folds are drawn above one another rather than one after another.
    _, of_fold = _fold(record)
    return [
        Metric(name, value, record.at, of_fold if name.startswith("fold/") else epoch)
        for name, value in record.facts["metrics"].items()
    ]


def _fold(record: Record) -> tuple[int | None, int]:
    """Return the fold that an epoch belongs to, if to one, and which of its epochs it is."""
    fold, epoch = record.facts.get("fold") or (None, record.facts["epoch"])
    return fold, epoch


def _tags(tags: Mapping[str, Any]) -> list[RunTag]:
    return [RunTag(name, value) for name, value in tags.items()]
