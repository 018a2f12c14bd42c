"""Reading sweeps back out of MLflow: what is not as recorded is left out, and said."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from segan_ray.errors import RunError, SweepError, cut, many, nearest
from segan_ray.filesystem.locks import is_held
from segan_ray.home import NAME, Home
from segan_ray.search.results.ranking import SweepRecord, TrialRecord, rank
from segan_ray.tracking import tag_names
from segan_ray.tracking.journal import JOURNAL, is_stale, lock_of
from segan_ray.tracking.reading.reader import Reader, open_reader
from segan_ray.tracking.reading.run_tags import TaggedRun, read_sweep_tags, read_trial_tags

if TYPE_CHECKING:  # MLflow takes seconds to be imported, and a home is read without it
    from mlflow import MlflowClient
    from mlflow.entities import Run

Note = Callable[[str], None]
Read = TypeVar("Read")


def ignore_note(_: str) -> None:
    """Do nothing with a note."""


def list_sweeps(home: Home, on_note: Note = ignore_note) -> list[SweepRecord]:
    """Return every sweep of the tracking store, oldest first.

    ``on_note`` is told of the runs that are left out, since they are not as the recorder writes
    them.

    Raises:
        TrackingError: if the store cannot be reached.
    """
    reader = open_reader(home)
    runs = reader.runs()
    below: dict[str, list[TaggedRun]] = {}
    for run in runs:
        below.setdefault(run.tags.get(tag_names.PARENT, ""), []).append(run)
    own = sorted((run for run in runs if run.kind == "sweep"), key=lambda run: run.start_ms or 0)
    lost = {run: of for run, of in below.items() if run not in {one.run for one in own}}
    _tell_lost(lost, reader, on_note)
    return [
        _if_alive(home, run, _with_trials(sweep, below.get(run.run, ()), on_note))
        for run, sweep in _sweeps(own, lambda run: below.get(run, ()), on_note)
    ]


def read_sweep(home: Home, name: str, on_note: Note = ignore_note) -> SweepRecord:
    """Return one sweep with its trials; ``on_note`` is told as by ``list_sweeps``.

    Raises:
        SweepError: if no sweep has that name, with the nearest that has one.
        RunError: if its own run is not as the recorder writes it.
        TrackingError: if the store cannot be reached.
    """
    reader = open_reader(home)
    run, sweep = _find(reader, home, name, on_note)
    return _if_alive(
        home, run, _with_trials(sweep, reader.runs(tag_names.PARENT, run.run), on_note)
    )


def sweep_record(client: MlflowClient, parent: Run) -> SweepRecord:
    """Return the sweep whose own run is ``parent``, as MLflow has it.

    Raises:
        RunError: if that run is not as the recorder writes it.
        TrackingError: if MLflow cannot be read.
    """
    from segan_ray.tracking.reading.client_reader import ClientReader
    from segan_ray.tracking.reading.run_tags import tagged

    sweep = read_sweep_tags(tagged(parent))
    below = ClientReader(client).runs(tag_names.PARENT, str(parent.info.run_id))
    return _with_trials(sweep, below, ignore_note)


def histories(home: Home, sweep: SweepRecord, metric: str) -> dict[str, list[tuple[int, float]]]:
    """Return ``{trial: [(epoch, value), …]}`` of one metric for every trial of ``sweep``.

    Raises:
        TrackingError: if the store cannot be reached.
    """
    points = open_reader(home).histories([trial.mlflow_run for trial in sweep.trials], metric)
    return {trial.trial: points[trial.mlflow_run] for trial in sweep.trials}


def name_is_taken(home: Home, name: str) -> bool:
    """Tell whether a sweep or run of that name is recorded, by this home or any other."""
    from segan_ray.tracking.client.connection import connect, search

    return bool(search(connect(home), f"tags.`{tag_names.SWEEP}` = '{name}'"))


def own_run(home: Home, name: str) -> Run:
    """Return a sweep's own run.

    Raises:
        SweepError, TrackingError: as ``read_sweep``.
    """
    from segan_ray.tracking.client.connection import connect_to_read
    from segan_ray.tracking.client.retries import said_in_words

    run, _ = _find(open_reader(home), home, name, ignore_note)
    client = connect_to_read(home)
    with said_in_words(client):
        return client.get_run(run.run)


def read_space(home: Home, name: str) -> str:
    """Return the text of the space file a sweep was started with."""
    import mlflow

    return str(mlflow.artifacts.load_text(f"{own_run(home, name).info.artifact_uri}/space.yaml"))


def store_location(home: Home, name: str) -> str:
    """Return where the store of a sweep was when it was trained: a folder or URL.

    Raises:
        SweepError: if its run does not say that.
    """
    run = own_run(home, name)
    for one in run.inputs.dataset_inputs if run.inputs else []:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            location = json.loads(one.dataset.source)["uri"]
            if isinstance(location, str):
                return location
    raise SweepError(f"The sweep '{name}' has no record of its store.")


def _find(reader: Reader, home: Home, name: str, on_note: Note) -> tuple[TaggedRun, SweepRecord]:
    """Return a sweep's own run, and the sweep without its trials."""
    own = reader.runs(tag_names.KIND, "sweep")
    named = [run for run in own if run.tags.get(tag_names.SWEEP) == name]
    if len(named) == 1:
        return named[0], read_sweep_tags(named[0])
    sound = _sweeps(named, lambda run: reader.runs(tag_names.PARENT, run), on_note)
    if sound:
        return sound[0]
    for run in named:
        read_sweep_tags(run)
    known = sorted(run.tags.get(tag_names.SWEEP, "") for run in own)
    listed = "segan-ray sweeps lists them." if known else "There is none yet: segan-ray tune."
    if NAME.fullmatch(name):
        left = [run for run in reader.runs(tag_names.SWEEP, name) if run.kind == "trial"]
        if left:
            raise SweepError(_said_lost(left))
    raise SweepError(
        f"No sweep is called '{name}' at {home.records}.{nearest(name, known)} {listed}"
    )


def _sweeps(
    own: Sequence[TaggedRun], below: Callable[[str], Sequence[TaggedRun]], on_note: Note
) -> list[tuple[TaggedRun, SweepRecord]]:
    """Return what the sweeps' ``own`` runs say; of several of one name, that of most trials."""
    by_name: dict[str, list[tuple[TaggedRun, SweepRecord]]] = {}
    for run, sweep in _readable(own, read_sweep_tags, on_note):
        by_name.setdefault(sweep.sweep, []).append((run, sweep))
    chosen = []
    for name, same in by_name.items():
        ordered = same if len(same) == 1 else sorted(same, key=partial(_most_trials, below))
        first, *others = ordered
        chosen.append(first)
        for run, _ in others:
            said = f"'{name}' is the name of the sweep of run {first[0].run} too"
            on_note(_left_out(RunError(run.said, said)))
    return chosen


def _most_trials(
    below: Callable[[str], Sequence[TaggedRun]], own: tuple[TaggedRun, SweepRecord]
) -> tuple[int, str]:
    """Order the runs of one sweep: that of most trials first, of as many always the same."""
    run, sweep = own
    return -sum(one.tags.get(tag_names.SWEEP) == sweep.sweep for one in below(run.run)), run.run


def _with_trials(sweep: SweepRecord, below: Sequence[TaggedRun], on_note: Note) -> SweepRecord:
    """Return ``sweep`` with the trials whose runs are ``below`` its own."""
    trials: dict[str, TrialRecord] = {}
    for _, trial in _readable(below, lambda run: read_trial_tags(run, sweep.sweep), on_note):
        other = trials.get(trial.trial)
        trials[trial.trial] = trial if other is None else min(other, trial, key=_most_epochs)
        if other is not None:
            kept = trials[trial.trial]
            gone = other if kept is trial else trial
            said = f"run {kept.mlflow_run} is of trial '{trial.trial}' too"
            on_note(_left_out(RunError(gone.mlflow_run, said)))
    return replace(sweep, trials=rank(list(trials.values()), sweep.mode))


def _most_epochs(trial: TrialRecord) -> tuple[int, str]:
    """Order runs of one trial as the recorder does that goes on with it."""
    return -trial.epochs, trial.mlflow_run


def _readable(
    runs: Sequence[TaggedRun], read: Callable[[TaggedRun], Read], on_note: Note
) -> Iterator[tuple[TaggedRun, Read]]:
    for run in runs:
        try:
            yield run, read(run)
        except RunError as error:
            on_note(_left_out(error))


def _tell_lost(lost: Mapping[str, Sequence[TaggedRun]], reader: Reader, on_note: Note) -> None:
    """Tell of trials that are under no sweep, but for those that the registry holds on to."""
    trials = [run for of in lost.values() for run in of if run.kind == "trial"]
    held = reader.registered() if trials else set()
    by_sweep: dict[tuple[str, str], list[TaggedRun]] = {}
    for run in trials:
        if run.run not in held:
            location = run.tags.get(tag_names.SWEEP, ""), run.tags.get(tag_names.PARENT, "")
            by_sweep.setdefault(location, []).append(run)
    for of in by_sweep.values():
        on_note(f"Left out: {_said_lost(of)}")


def _said_lost(trials: Sequence[TaggedRun]) -> str:
    """Return which trials are under no sweep, and what to do."""
    tags = trials[0].tags
    name, parent = cut(tags.get(tag_names.SWEEP, "")), tags.get(tag_names.PARENT)
    under = f"MLflow's run {cut(parent)}, which is no sweep's own" if parent else "no run"
    first = "run" if len(trials) == 1 else "the first is run"
    return (
        f"{many(len(trials), 'trial')} of '{name}' ({first} {trials[0].run}) under {under}: it was "
        "deleted, or a tag was changed. Restore it or delete what is left, in MLflow's UI: "
        "segan-ray ui"
    )


def _left_out(error: RunError) -> str:
    return f"Left out: {error}"


def _if_alive(home: Home, own: TaggedRun, record: SweepRecord) -> SweepRecord:
    """Return ``record`` as interrupted if it says that it runs, but its process was killed.

    Of a sweep recorded in another home, or gone on with in one, nobody here can know.
    """
    journal = home.sweeps / record.sweep / JOURNAL
    if record.status != "running" or not journal.exists() or is_held(lock_of(journal)):
        return record
    if is_stale(journal, own.tags.get(tag_names.JOURNAL)):
        return record
    trials = tuple(
        replace(trial, status="pending") if trial.status == "running" else trial
        for trial in record.trials
    )
    return replace(record, status="interrupted", trials=trials)
