"""How far a sweep is by its records, and ending one whose process is gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

from segan_ray.errors import SweepError
from segan_ray.home import Home
from segan_ray.search.results.ranking import SweepStatus, TrialStatus
from segan_ray.tracking import tag_names
from segan_ray.tracking.client.connection import Check, always, connect, search
from segan_ray.tracking.client.retries import said_in_words
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.description.facts import SweepFacts
from segan_ray.tracking.journal import JOURNAL, is_stale, read_journal
from segan_ray.tracking.reading.run_tags import TaggedRun, epochs_if_told, read_sweep_tags, tagged
from segan_ray.tracking.recording.ledger import Ledger
from segan_ray.tracking.recording.recorder import open_recorder
from segan_ray.tracking.recording.runs import SweepRuns, reach

SINGLE_ENDED: Final = {"completed": "finished", "stopped": "stopped", "failed": "failed"}
Ends = Mapping[str, tuple[TrialStatus, str | None]]


@dataclass(frozen=True)
class Recorded:
    """What is recorded under a name: a ``sweep`` or a single ``train`` run, and how far it is."""

    kind: Literal["sweep", "train"]
    status: SweepStatus
    trials: int

    @property
    def ended(self) -> bool:
        return self.status in ("finished", "failed", "stopped")


def recorded(home: Home, name: str) -> Recorded | None:
    """Return what MLflow and the journal hold of the sweep or run ``name``, if anything.

    The journal knows best: MLflow may have been away. One that is out of date knows nothing.

    Raises:
        TrackingError: if MLflow cannot be reached.
    """
    runs = [tagged(run) for run in search(connect(home), f"tags.`{tag_names.SWEEP}` = '{name}'")]
    kinds = {run.kind: run for run in runs}
    path = home.sweeps / name / JOURNAL
    last = kinds["sweep"].tags.get(tag_names.JOURNAL) if "sweep" in kinds else None
    journal = () if is_stale(path, last) else read_journal(path)
    opened = [one.facts["sweep"]["kind"] for one in journal if one.kind == "open"]
    if not opened and not kinds.keys() & {"sweep", "train"}:
        return None
    single = "train" in (opened or kinds)
    if journal:
        status = Ledger("", "max").note_all(journal).status
    else:
        status = _status(kinds["train" if single else "sweep"])
    trials = sum(run.kind in ("trial", "train") for run in runs)
    return Recorded("train" if single else "sweep", status, trials)


def _status(run: TaggedRun) -> SweepStatus:
    """Return how far a run says that it is; of one that says nothing of the kind, running.

    So whatever is wrong with its tags, it can be stopped and deleted.
    """
    said = run.tags.get(tag_names.STATUS, "")
    if run.kind == "train":
        said = SINGLE_ENDED.get(said, "running")
    return next((status for status in get_args(SweepStatus) if status == said), "running")


def recorded_names(home: Home) -> list[str]:
    """Return the names of all sweeps and runs that MLflow knows.

    Raises:
        TrackingError: if MLflow cannot be reached.
    """
    runs = search(connect(home), f"tags.`{tag_names.SWEEP}` != ''")
    return sorted({run.data.tags[tag_names.SWEEP] for run in runs})


def close_dead_sweep(
    home: Home, name: str, folder: Path, ends: Ends | None = None, check: Check = always
) -> None:
    """End the records of a sweep, or of a single run, that was killed and is not to go on.

    What its journal holds is written first. Trials that were under way end as ``ends`` says,
    with a reason; others as ``stopped`` if they have an epoch and as ``failed`` otherwise; the
    sweep as ``stopped``. ``check`` is called before MLflow is.

    Raises:
        TrackingError: if MLflow cannot be reached or written, or a process still records it.
        SweepError: if nothing is recorded of that sweep.
    """
    facts, keep = _recorded(home, name, folder)
    runs = reach(home, facts, check)
    runs_of = runs if facts.kind == "train" else runs.with_parent(None)
    recorder = open_recorder(runs_of, folder, home.checkpoints(name), keep, check)
    recorder.end_unfinished(ends or {})
    recorder.close("stopped")
    _end_unrecorded(runs)


def _end_unrecorded(runs: SweepRuns) -> None:
    """End what still runs in MLflow and is in no journal: an older segan-ray kept none."""
    with said_in_words(runs.client):
        for run in runs.all("attributes.status = 'RUNNING'"):
            ended = "stopped" if epochs_if_told(tagged(run)) else "failed"
            runs.client.set_tag(run.info.run_id, tag_names.STATUS, ended)
            runs.client.set_terminated(run.info.run_id)


def _recorded(home: Home, name: str, folder: Path) -> tuple[SweepFacts, int | None]:
    """Return what the journal says of the sweep, or its own run if it was killed before that."""
    for record in read_journal(folder / JOURNAL):
        if record.kind == "open":
            return SweepFacts.of_document(record.facts["sweep"]), record.facts["keep_checkpoints"]
    query = f"tags.`{tag_names.KIND}` = 'sweep' and tags.`{tag_names.SWEEP}` = '{name}'"
    found = search(connect(home), query)
    if not found:
        raise SweepError(f"Nothing is recorded of a sweep '{name}'. segan-ray sweeps lists all.")
    sweep = read_sweep_tags(tagged(found[0]))
    card = StoreCard("", sweep.store, {})
    return SweepFacts(name, "trial", card, sweep.metric, sweep.mode), None
