"""Reading sweeps back out of MLflow; a run that is not as recorded is left out with a note."""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from segan_ray.errors import RunError, StoreError, SweepError, cut, many, nearest, said
from segan_ray.filesystem.locks import is_held
from segan_ray.home import NAME, Home
from segan_ray.search.results.ranking import SweepRecord, TrialRecord, rank
from segan_ray.tracking import tag_names
from segan_ray.tracking.outbox import OUTBOX, is_stale, lock_of
from segan_ray.tracking.reading.reader import Reader, open_reader
from segan_ray.tracking.reading.run_tags import (
    LoggedPoint,
    TaggedRun,
    read_sweep_tags,
    read_trial_tags,
)

if TYPE_CHECKING:  # MLflow takes seconds to be imported, and a home is read without it
    from mlflow import MlflowClient
    from mlflow.entities import Run

Note = Callable[[str], None]
Read = TypeVar("Read")


def ignore_note(_: str) -> None:
    """Do nothing with a note."""


def list_sweeps(home: Home, on_note: Note = ignore_note) -> list[SweepRecord]:
    """Return every sweep of the tracking store, oldest first.

    ``on_note`` gets a note of each run that is left out, since it is not as the recorder writes it.

    Raises:
        TrackingError: if the store cannot be reached.
    """
    reader = open_reader(home)
    runs = reader.runs()
    below: dict[str, list[TaggedRun]] = {}
    for run in runs:
        below.setdefault(run.tags.get(tag_names.PARENT, ""), []).append(run)
    own = sorted((run for run in runs if run.kind == "sweep"), key=lambda run: run.start_ms or 0)
    lost = {run: of for run, of in below.items() if run not in {each.run for each in own}}
    _tell_lost(lost, reader, on_note)
    return [
        _if_alive(home, run, _with_trials(sweep, below.get(run.run, ()), on_note), on_note)
        for run, sweep in _sweeps(own, lambda run: below.get(run, ()), on_note)
    ]


def read_sweep(home: Home, name: str, on_note: Note = ignore_note) -> SweepRecord:
    """Return one sweep with its trials; ``on_note`` gets the notes of ``list_sweeps``.

    Raises:
        SweepError: if no sweep has that name; it tells the nearest name.
        RunError: if the sweep's own run is not as the recorder writes it.
        TrackingError: if the store cannot be reached.
    """
    reader = open_reader(home)
    run, sweep = _find(reader, home, name, on_note)
    trials = reader.runs(tag_names.PARENT, run.run)
    return _if_alive(home, run, _with_trials(sweep, trials, on_note), on_note)


def sweep_record(client: MlflowClient, parent: Run) -> SweepRecord:
    """Return the sweep whose own run is ``parent``, as MLflow has it.

    Raises:
        RunError: if the run is not as the recorder writes it.
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
    return {
        trial: [(point.step, point.value) for point in points]
        for trial, points in timed_histories(home, sweep, metric).items()
    }


def timed_histories(home: Home, sweep: SweepRecord, metric: str) -> dict[str, list[LoggedPoint]]:
    """Return the points of one metric of every trial of ``sweep``, with their times.

    Raises:
        TrackingError: if the store cannot be reached.
    """
    points = open_reader(home).histories([trial.mlflow_run for trial in sweep.trials], metric)
    return {trial.trial: points[trial.mlflow_run] for trial in sweep.trials}


def epoch_seconds(home: Home, store: str) -> tuple[str, float] | None:
    """Return the newest sweep on a store whose epochs were timed, and their median seconds.

    Raises:
        TrackingError: if the store of runs cannot be reached.
    """
    for record in reversed(list_sweeps(home)):
        if record.store == store:
            points = timed_histories(home, record, "time/epoch_s").values()
            seconds = [point.value for of_trial in points for point in of_trial]
            if seconds:
                return record.sweep, statistics.median(seconds)
    return None


def name_is_taken(home: Home, name: str) -> bool:
    """Tell whether this home or any other has recorded a sweep or run of that name."""
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
    """Return the folder or URL of the store that a sweep was trained on.

    Raises:
        SweepError: if the sweep's run does not name it.
    """
    run = own_run(home, name)
    for used in run.inputs.dataset_inputs if run.inputs else []:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            location = json.loads(used.dataset.source)["uri"]
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
    names = sorted(run.tags.get(tag_names.SWEEP, "") for run in own)
    listed = "segan-ray sweeps lists them." if names else "There is none yet: segan-ray tune."
    if NAME.fullmatch(name):
        trials = [run for run in reader.runs(tag_names.SWEEP, name) if run.kind == "trial"]
        if trials:
            raise SweepError(_said_lost(trials))
    raise SweepError(
        f"No sweep is called '{name}' at {home.records}.{nearest(name, names)} {listed}"
    )


def _sweeps(
    own: Sequence[TaggedRun], below: Callable[[str], Sequence[TaggedRun]], on_note: Note
) -> list[tuple[TaggedRun, SweepRecord]]:
    """Return each sweep with its own run; of several of one name, the one with most trials."""
    by_name: dict[str, list[tuple[TaggedRun, SweepRecord]]] = {}
    for run, sweep in _readable(own, read_sweep_tags, on_note):
        by_name.setdefault(sweep.sweep, []).append((run, sweep))
    chosen = []
    for name, same in by_name.items():
        ordered = same if len(same) == 1 else sorted(same, key=partial(_most_trials, below))
        first, *others = ordered
        chosen.append(first)
        for run, _ in others:
            problem = f"'{name}' is the name of the sweep of run {first[0].run} too"
            on_note(_left_out(RunError(run.said, problem)))
    return chosen


def _most_trials(
    below: Callable[[str], Sequence[TaggedRun]], own: tuple[TaggedRun, SweepRecord]
) -> tuple[int, str]:
    """Sort the runs of one sweep by their trials, most first, then by id."""
    run, sweep = own
    return -sum(each.tags.get(tag_names.SWEEP) == sweep.sweep for each in below(run.run)), run.run


def _with_trials(sweep: SweepRecord, below: Sequence[TaggedRun], on_note: Note) -> SweepRecord:
    """Return ``sweep`` with the trials whose runs are ``below`` its own."""
    trials: dict[str, TrialRecord] = {}
    for _, trial in _readable(below, lambda run: read_trial_tags(run, sweep.sweep), on_note):
        other = trials.get(trial.trial)
        trials[trial.trial] = trial if other is None else min(other, trial, key=_most_epochs)
        if other is not None:
            kept = trials[trial.trial]
            left = other if kept is trial else trial
            problem = f"run {kept.mlflow_run} is of trial '{trial.trial}' too"
            on_note(_left_out(RunError(left.mlflow_run, problem)))
    return replace(sweep, trials=rank(list(trials.values()), sweep.mode))


def _most_epochs(trial: TrialRecord) -> tuple[int, str]:
    """Sort the runs of one trial as the recorder does at a resume."""
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
    """Note the trials that are under no sweep, but for those of registered versions."""
    trials = [run for of in lost.values() for run in of if run.kind == "trial"]
    registered = reader.registered() if trials else set()
    by_sweep: dict[tuple[str, str], list[TaggedRun]] = {}
    for run in trials:
        if run.run not in registered:
            location = run.tags.get(tag_names.SWEEP, ""), run.tags.get(tag_names.PARENT, "")
            by_sweep.setdefault(location, []).append(run)
    for of in by_sweep.values():
        on_note(f"Left out: {_said_lost(of)}")


def _said_lost(trials: Sequence[TaggedRun]) -> str:
    """Return in words which trials are under no sweep, and what to do."""
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


def _if_alive(home: Home, own: TaggedRun, record: SweepRecord, on_note: Note) -> SweepRecord:
    """Return ``record``, as interrupted where it is recorded as running and its process was killed.

    Whether a process of another home runs the sweep is not known here.
    """
    if record.status != "running":
        return record
    try:
        was_killed = _was_killed(home.sweeps / record.sweep / OUTBOX, own)
    except (StoreError, OSError) as error:
        on_note(f"Whether '{record.sweep}' still runs is not known: {said(error)}.")
        return record
    if not was_killed:
        return record
    trials = tuple(
        replace(trial, status="pending") if trial.status == "running" else trial
        for trial in record.trials
    )
    return replace(record, status="interrupted", trials=trials)


def _was_killed(outbox: Path, own: TaggedRun) -> bool:
    """Tell whether this home recorded the sweep last and no process of it does so now.

    Raises:
        StoreError, OSError: if the outbox or its lock cannot be read.
    """
    if not outbox.exists() or is_held(lock_of(outbox)):
        return False
    return not is_stale(outbox, own.tags.get(tag_names.OUTBOX))
