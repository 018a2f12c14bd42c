"""Ending a sweep whose process is gone."""

from __future__ import annotations

from pathlib import Path

from segan_ray.errors import SweepError
from segan_ray.home import Home
from segan_ray.search.ranking import Mode
from segan_ray.tracking import client as names
from segan_ray.tracking.card import StoreCard
from segan_ray.tracking.client import connect, search
from segan_ray.tracking.facts import SweepFacts
from segan_ray.tracking.journal import JOURNAL, read_journal
from segan_ray.tracking.recorder import open_recorder
from segan_ray.tracking.runs import SweepRuns, reach, said_in_words


def close_dead_sweep(home: Home, name: str, folder: Path) -> None:
    """End the records of a sweep, or single run, that was killed and is not to go on.

    What its journal holds is written first. Trials that were under way end as ``stopped`` if
    they have an epoch and as ``failed`` otherwise, the sweep as ``stopped``.

    Raises:
        TrackingError: if MLflow cannot be reached or written, or a process still records it.
        SweepError: if nothing is recorded of that sweep.
    """
    facts, keep = _recorded(home, name, folder)
    runs = reach(home, facts)
    if facts.kind == "trial":
        runs = runs.with_parent(None)
    open_recorder(runs, folder, keep).close("stopped")
    _end_unrecorded(runs)


def _end_unrecorded(runs: SweepRuns) -> None:
    """End what still runs in MLflow and is in no journal: an older segan-ray kept none."""
    with said_in_words(runs.client):
        for run in runs.all("attributes.status = 'RUNNING'"):
            ended = "stopped" if int(run.data.tags[names.EPOCHS]) else "failed"
            runs.client.set_tag(run.info.run_id, names.STATUS, ended)
            runs.client.set_terminated(run.info.run_id)


def _recorded(home: Home, name: str, folder: Path) -> tuple[SweepFacts, int | None]:
    """Return what the journal says of the sweep, or its own run if it was killed before that."""
    for record in read_journal(folder / JOURNAL):
        if record.kind == "open":
            return SweepFacts.of_document(record.facts["sweep"]), record.facts["keep_checkpoints"]
    query = f"tags.`{names.KIND}` = 'sweep' and tags.`{names.SWEEP}` = '{name}'"
    found = search(connect(home), query)
    if not found:
        raise SweepError(f"Nothing is recorded of a sweep '{name}'. segan-ray sweeps lists all.")
    tags = found[0].data.tags
    mode: Mode = "max" if tags[names.MODE] == "max" else "min"
    card = StoreCard("", tags[names.STORE], {})
    return SweepFacts(name, "trial", card, tags[names.METRIC], mode), None
