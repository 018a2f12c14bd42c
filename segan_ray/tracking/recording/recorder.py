"""Recording a sweep: first into an outbox on this disk, then into MLflow's runs.

::

    Recorder --append--> Outbox --Uploader's thread--> RunWriter --> MLflow
        |                   |
        +---- Ledger <------+    the state of each trial, also after a restart
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mlflow.entities import Run

from segan_ray.config import Experiment, flatten
from segan_ray.errors import StoreError, TrackingError
from segan_ray.home import Home
from segan_ray.redaction import mask
from segan_ray.search.results.ranking import EndedBy, SweepStatus, TrialStatus
from segan_ray.search.results.trial_state import TrialState
from segan_ray.tracking import tag_names
from segan_ray.tracking.client.connection import Check, always
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.description.facts import SweepFacts
from segan_ray.tracking.outbox import (
    OUTBOX,
    Kind,
    Outbox,
    is_stale,
    put_aside,
    read_outbox,
    record,
    tokens_of,
)
from segan_ray.tracking.reading.run_tags import (
    is_infeasible,
    read_objectives,
    read_score,
    read_whole,
    tagged,
)
from segan_ray.tracking.recording.checkpoints import CheckpointFolders
from segan_ray.tracking.recording.ledger import ENDS, Ledger
from segan_ray.tracking.recording.pictures import FOLDER as PICTURES
from segan_ray.tracking.recording.pictures import WaitingPictures
from segan_ray.tracking.recording.run_writer import RunWriter
from segan_ray.tracking.recording.runs import SweepRuns, reach
from segan_ray.tracking.recording.uploader import Uploader
from segan_ray.training.epoch_record import Mode

log = logging.getLogger(__name__)

PATIENCE_S: Final = 60.0
"""For how long ``close`` waits for MLflow while it fails."""
NOT_IN_NAMES: Final = re.compile(r"[^\w./ :-]")
CUT_OFF: Final = "The sweep ended before this trial did."
WAITING: Final = ("hours", "gpu_hours")
"""What may end a sweep whose trials have not all ended."""
Objectives = Sequence[tuple[str, Mode]]


@dataclass
class Recorder:
    """Records one sweep. Safe to call from several threads."""

    folder: Path
    facts: SweepFacts
    keep_checkpoints: int | None
    ledger: Ledger
    writer: RunWriter
    uploader: Uploader
    lock: threading.RLock
    check: Check
    token: str
    """The name of its outbox, by which homes tell theirs apart."""

    @classmethod
    def for_sweep(
        cls,
        home: Home,
        name: str,
        card: StoreCard,
        metric: str,
        mode: Mode,
        space_text: str,
        folder: Path,
        *,
        objectives: Objectives = (),
        keep_checkpoints: int = 10,
        resume: bool = False,
        check: Check = always,
    ) -> Recorder:
        """Open the records of a sweep in ``folder``, new or resumed.

        ``check`` runs before each request to MLflow and raises once another process has taken over
        the sweep.

        Raises:
            TrackingError: if MLflow cannot be reached, another process records there, or
                ``folder`` has records and ``resume`` is not set.
            StoreError: if ``folder`` cannot be written.
        """
        facts = SweepFacts(name, card, metric, mode, tuple(objectives))
        _refuse_records(folder, resume)
        runs = reach(home, facts, space_text, check)
        return open_recorder(runs, folder, home.checkpoints(name), keep_checkpoints, check)

    def begin(self) -> None:
        """Bring MLflow up to date, suspend the trials that a kill left open, and start uploading.

        Raises:
            TrackingError: if MLflow cannot be written.
        """
        runs = self.writer.runs.know_trials()
        keep = self.keep_checkpoints
        facts = self.facts.document()
        self._append("open", None, sweep=facts, keep_checkpoints=keep, outbox=self.token)
        for run in runs:
            # The outbox was lost with its disk, or stayed on another machine.
            if run.data.tags[tag_names.TRIAL] not in self.ledger.trials:
                self._append("known", run.data.tags[tag_names.TRIAL], **known_facts(run))
        for state in self.ledger.open:
            self._append("suspend", state.trial)
        self.uploader.replay()
        self.uploader.start()

    def start_trial(
        self,
        trial: str,
        experiment: Experiment,
        params: Mapping[str, Any],
        repeat_of: str | None = None,
    ) -> None:
        """Record that ``trial`` starts, or starts again, with the drawn ``params``.

        Raises:
            StoreError: if the disk does not take the record; so does every method that records.
        """
        settings = {path: str(value) for path, value in flatten(experiment).items()}
        self._append("start", trial, params=dict(params), settings=settings, repeat_of=repeat_of)

    def log_epoch(
        self,
        trial: str,
        epoch: int,
        metrics: Mapping[str, float],
        *,
        failed: bool = False,
        fold: tuple[int, int] | None = None,
        picture: bytes | None = None,
    ) -> None:
        """Record the metrics of an epoch that ended now, unless it is recorded already.

        After a ``failed`` epoch training cannot go on, and no checkpoint of it was saved. ``fold``
        is the fold that the epoch belongs to and which of its epochs it is, ``picture`` a PNG.
        """
        with self.lock:
            if self.ledger.has(trial, epoch):
                return
            values = {_metric_name(name): float(value) for name, value in metrics.items()}
            after = self.ledger.with_epoch(trial, epoch, values, failed=failed)
            tags = _epoch_tags(after, self.facts.objectives)
            facts: dict[str, Any] = {"failed": True} if failed else {}
            if fold is not None:
                facts["fold"] = fold
            if picture is not None:
                facts["picture"] = self.writer.pictures.put(trial, epoch, picture)
            self._append("epoch", trial, epoch=epoch, metrics=values, tags=tags, **facts)

    def pause_trial(self, trial: str) -> None:
        """Record that a trial waits at its last epoch, unless that is recorded already."""
        with self.lock:
            known = self.ledger.trials.get(trial)
            if known is not None and known.status != "paused":
                self._append("pause", trial)

    def hold(self, checkpoints: Mapping[str, str | None], infeasible: Collection[str] = ()) -> None:
        """Record that the unfinished trials wait for a resume, with their best ``checkpoints``.

        Those of the sweep's best trials go to MLflow; ``infeasible`` ones are not among them.
        """
        with self.lock:
            waiting = [state.trial for state in self.ledger.unfinished]
            for trial in infeasible:
                self._append("pause", trial, infeasible=True)
            best = self.ledger.best(self.keep_checkpoints)
            for trial in (each for each in waiting if each not in infeasible):
                checkpoint = checkpoints.get(trial) if trial in best else None
                self._append("pause", trial, checkpoint=checkpoint, infeasible=False)

    def end_trial(
        self,
        trial: str,
        status: TrialStatus,
        reason: str | None,
        checkpoint: str | None,
        *,
        infeasible: bool = False,
    ) -> None:
        """Record a trial's end, and drop the checkpoints that are not among the best any more."""
        clean = None if reason is None else mask(reason.replace("\0", ""))
        facts = {"status": status, "reason": clean, "infeasible": infeasible}
        with self.lock:
            self._append("end", trial, checkpoint=checkpoint, **facts)
            if self.keep_checkpoints is not None:
                for other in self.ledger.superfluous(self.keep_checkpoints):
                    self._append("drop", other)

    def end_unfinished(self, ends: Mapping[str, tuple[TrialStatus, str | None, bool]]) -> None:
        """Record the ends in ``ends`` of trials that have none yet.

        An end is a status, a reason, and whether the trial is infeasible.
        """
        for state in self.ledger.unfinished:
            if state.trial in ends:
                status, reason, infeasible = ends[state.trial]
                self._end_cut_off(state, status, reason, infeasible=infeasible)

    def suspend(self, *, patience_s: float = PATIENCE_S) -> None:
        """Record that the sweep was interrupted: its open trials wait for a resume."""
        self.close("interrupted", patience_s=patience_s)

    def close(
        self,
        status: SweepStatus,
        *,
        ended_by: EndedBy | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Record the sweep's end and wait until MLflow has every record.

        ``ended_by`` is what of its budget a finished sweep has used up.

        Open trials are suspended if the sweep was interrupted, left as they are if it has used up
        its hours (see ``hold``), and ended otherwise. Records that
        MLflow does not take in time stay on disk, with a warning. A second call does nothing.
        """
        if self.ledger.status != "running":
            return
        self.check()
        try:
            with self.lock:
                if ended_by not in WAITING:
                    self._close_trials(status)
                best = self.ledger.best_score
                self._append("close", None, status=status, best=best, ended_by=ended_by)
        finally:
            # Also when the disk is full: the records it took before still go to MLflow.
            left = self.uploader.finish(patience_s)
        if not left:
            self.writer.pictures.clear()
        else:
            self.check()
            log.warning(
                "%d records of '%s' wait in %s: MLflow did not answer. The next --resume of it "
                "writes them.",
                left, self.facts.name, self.uploader.path,
            )  # fmt: skip

    def abandon(self) -> None:
        """Write nothing more, since another process has taken over the sweep.

        The outbox is put aside: the other process does again what MLflow has not taken from it.
        """
        self.uploader.stop()
        try:
            put_aside(self.uploader.path)
        except StoreError as error:
            log.warning("%s", error)

    @property
    def unfinished(self) -> list[str]:
        """The trials that were started and whose end is not recorded."""
        with self.lock:
            return [state.trial for state in self.ledger.unfinished]

    def run_id(self, trial: str) -> str | None:
        """Return the MLflow run of ``trial``, or None while it has none."""
        return self.writer.runs.run_id(trial)

    def _append(self, kind: Kind, trial: str | None, **facts: Any) -> None:
        with self.lock:
            new = record(kind, trial, **facts)
            self.uploader.append(new)
            self.ledger.note(new)

    def _close_trials(self, status: SweepStatus) -> None:
        if status == "interrupted":
            for state in self.ledger.open:
                self._append("suspend", state.trial)
        else:
            for state in self.ledger.unfinished:
                self._end_cut_off(state, "stopped" if state.epoch else "failed", CUT_OFF)

    def _end_cut_off(
        self,
        state: TrialState,
        status: TrialStatus,
        reason: str | None,
        *,
        infeasible: bool = False,
    ) -> None:
        trial, checkpoints = state.trial, self.writer.checkpoints
        last = checkpoints.last_report(trial)
        if last is not None and last.epoch == state.epoch + 1:
            # The process was killed between saving this epoch and recording it.
            self.log_epoch(trial, last.epoch, last.metrics)
        best = checkpoints.best(trial)
        self.end_trial(trial, status, reason, best, infeasible=infeasible)


def open_recorder(
    runs: SweepRuns, folder: Path, checkpoints: str, keep: int | None, check: Check = always
) -> Recorder:
    """Open the outbox in ``folder``, made if need be, and bring MLflow up to date with it.

    An outbox that is out of date, since another home has gone on with the sweep, is put aside.

    Raises:
        TrackingError: if MLflow cannot be written.
        StoreError: if ``folder`` cannot be.
    """
    facts = runs.facts
    path = folder / OUTBOX
    if is_stale(path, runs.outbox()):
        log.warning(
            "Another home has gone on with '%s' since this one did. What MLflow has not taken from "
            "here is out of date and is not written: %s.taken-over", facts.name, path
        )  # fmt: skip
        put_aside(path)
    outbox = Outbox(path)
    records = [entry.record for entry in outbox.entries]
    token = min(tokens_of(records), default=secrets.token_hex(8))
    ledger = Ledger(facts.metric, facts.mode).note_all(records)
    lock = threading.RLock()
    pictures = WaitingPictures(folder / PICTURES)
    writer = RunWriter(runs, CheckpointFolders(checkpoints, ledger, lock), pictures, check)
    uploader = Uploader(outbox, writer.apply)
    recorder = Recorder(folder, facts, keep, ledger, writer, uploader, lock, check, token)
    recorder.begin()
    return recorder


def known_facts(run: Run) -> dict[str, Any]:
    """Return the state of a trial by its run, as a record of kind ``known`` has it.

    Raises:
        RunError: if a tag of the run is not as the recorder writes it.
    """
    trial = tagged(run)
    status = trial.tags.get(tag_names.STATUS)
    return {
        "status": status if status in ENDS else "pending",
        "epochs": read_whole(trial, tag_names.EPOCHS),
        "score": read_score(trial),
        "best_epoch": read_whole(trial, tag_names.BEST_EPOCH, "0"),
        "repeat_of": trial.tags.get(tag_names.REPEAT_OF),
        "objectives": read_objectives(trial),
        "infeasible": is_infeasible(trial),
    }


def _refuse_records(folder: Path, resume: bool) -> None:
    if not resume and read_outbox(folder / OUTBOX):
        raise TrackingError(
            f"{folder / OUTBOX} holds the records of an earlier sweep. Go on with it (--resume) "
            "or choose another --name."
        )


def _metric_name(name: str) -> str:
    """Return a name that MLflow takes: in ``param/loss.scale_weights[0]`` it refuses brackets."""
    return NOT_IN_NAMES.sub("_", name)[:250]


def _epoch_tags(after: TrialState, objectives: Objectives) -> dict[str, str]:
    """Return the tags of a trial's run after an epoch."""
    tags = {tag_names.EPOCHS: str(after.epoch)}
    if after.score is not None:
        tags |= {tag_names.SCORE: repr(after.score), tag_names.BEST_EPOCH: str(after.best_epoch)}
    best = after.best_metrics
    values = {name: best[name] for name, _ in objectives if name in best}
    if values:
        tags[tag_names.OBJECTIVES] = json.dumps(values)
    return tags
