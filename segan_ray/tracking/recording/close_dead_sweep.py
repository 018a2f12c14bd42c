"""The recorded state of a sweep, and ending a sweep whose process is gone."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from segan_ray.errors import SweepError
from segan_ray.home import Home
from segan_ray.search.results.ranking import SweepStatus, TrialStatus
from segan_ray.tracking import tag_names
from segan_ray.tracking.client.connection import Check, always, connect, search
from segan_ray.tracking.client.retries import said_in_words
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.description.facts import SweepFacts
from segan_ray.tracking.outbox import DAMAGED, OUTBOX, is_stale, read_outbox
from segan_ray.tracking.reading.run_tags import TaggedRun, epochs_if_told, read_sweep_tags, tagged
from segan_ray.tracking.recording.ledger import Ledger
from segan_ray.tracking.recording.recorder import open_recorder
from segan_ray.tracking.recording.runs import SweepRuns, reach

Ends = Mapping[str, tuple[TrialStatus, str | None, bool]]
"""How trials ended: status, reason, whether they are infeasible."""


@dataclass(frozen=True)
class Recorded:
    """The recorded state of a sweep."""

    status: SweepStatus
    trials: int

    @property
    def ended(self) -> bool:
        return self.status in ("finished", "failed", "stopped")


def recorded(home: Home, name: str) -> Recorded | None:
    """Return the recorded state of the sweep ``name``, or None if nothing is recorded.

    The outbox goes before MLflow, which may lag behind it. A stale outbox is not read.

    Raises:
        TrackingError: if MLflow cannot be reached.
    """
    runs = [tagged(run) for run in search(connect(home), f"tags.`{tag_names.SWEEP}` = '{name}'")]
    own = next((run for run in runs if run.kind == "sweep"), None)
    path = home.sweeps / name / OUTBOX
    last = None if own is None else own.tags.get(tag_names.OUTBOX)
    records = () if is_stale(path, last) else read_outbox(path)
    if any(each.kind == "open" for each in records):
        status = Ledger("", "max").note_all(records).status
    elif own is not None:
        status = _status(own)
    else:
        return None
    return Recorded(status, sum(run.kind == "trial" for run in runs))


def _status(run: TaggedRun) -> SweepStatus:
    """Return the status in a run's tags, or ``running`` where they hold none.

    So a sweep with damaged tags can still be stopped and deleted.
    """
    told = run.tags.get(tag_names.STATUS, "")
    return next((status for status in get_args(SweepStatus) if status == told), "running")


def recorded_names(home: Home) -> list[str]:
    """Return the names of all sweeps in MLflow.

    Raises:
        TrackingError: if MLflow cannot be reached.
    """
    runs = search(connect(home), f"tags.`{tag_names.SWEEP}` != ''")
    return sorted({run.data.tags[tag_names.SWEEP] for run in runs})


def close_dead_sweep(
    home: Home, name: str, folder: Path, ends: Ends | None = None, check: Check = always
) -> None:
    """End the records of a sweep that was killed and will not be resumed.

    The records in its outbox are uploaded first. Unfinished trials end with the status and reason
    in ``ends``; those not in it as ``stopped`` if they have an epoch and as ``failed`` otherwise.
    The sweep ends as ``stopped``. ``check`` runs before each request to MLflow.

    Raises:
        TrackingError: if MLflow cannot be reached or written, or a process still records it.
        SweepError: if nothing is recorded of that sweep.
    """
    facts, keep = _recorded(home, name, folder)
    runs = reach(home, facts, None, check)
    recorder = open_recorder(runs, folder, home.checkpoints(name), keep, check)
    recorder.end_unfinished(ends or {})
    recorder.close("stopped")
    _end_unrecorded(runs)


def _end_unrecorded(runs: SweepRuns) -> None:
    """End the trials that still run in MLflow: their outbox was lost with its disk."""
    with said_in_words(runs.client):
        for run in runs.all("attributes.status = 'RUNNING'"):
            ended = "stopped" if epochs_if_told(tagged(run)) else "failed"
            runs.client.set_tag(run.info.run_id, tag_names.STATUS, ended)
            runs.client.set_terminated(run.info.run_id)


def _recorded(home: Home, name: str, folder: Path) -> tuple[SweepFacts, int | None]:
    """Return the sweep by its outbox, or by its own run if the outbox is lost, empty or damaged."""
    for record in read_outbox(folder / OUTBOX):
        if record.kind == "open":
            with contextlib.suppress(*DAMAGED):
                facts = SweepFacts.of_document(record.facts["sweep"])
                return facts, record.facts["keep_checkpoints"]
    query = f"tags.`{tag_names.KIND}` = 'sweep' and tags.`{tag_names.SWEEP}` = '{name}'"
    own = search(connect(home), query)
    if not own:
        raise SweepError(f"Nothing is recorded of a sweep '{name}'. segan-ray sweeps lists all.")
    sweep = read_sweep_tags(tagged(own[0]))
    card = StoreCard("", sweep.store, {})
    return SweepFacts(name, card, sweep.metric, sweep.mode), None
