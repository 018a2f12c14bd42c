"""Reading sweeps back out of MLflow."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, cast

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run

from segan_ray.data.locks import is_held
from segan_ray.errors import SweepError, nearest
from segan_ray.home import Home
from segan_ray.search.ranking import Mode, SweepRecord, SweepStatus, TrialRecord, TrialStatus, rank
from segan_ray.tracking import client as names
from segan_ray.tracking.client import connect, connect_to_read, search
from segan_ray.tracking.journal import JOURNAL, lock_of


def list_sweeps(home: Home) -> list[SweepRecord]:
    """Return every sweep of the tracking store, oldest first."""
    client = connect_to_read(home)
    runs = search(client, f"tags.`{names.KIND}` = 'sweep'")
    return [
        _if_alive(home, sweep_record(client, run))
        for run in sorted(runs, key=lambda run: run.info.start_time)
    ]


def read_sweep(home: Home, name: str) -> SweepRecord:
    """Return one sweep with its trials.

    Raises:
        SweepError: if no sweep has that name, with the nearest that has one.
    """
    return _if_alive(home, sweep_record(*_parent(home, name)))


def name_is_taken(home: Home, name: str) -> bool:
    """Tell whether a sweep or run of that name is recorded, by this home or any other."""
    return bool(search(connect(home), f"tags.`{names.SWEEP}` = '{name}'"))


def read_space(home: Home, name: str) -> str:
    """Return the text of the space file a sweep was started with."""
    _, parent = _parent(home, name)
    return str(mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/space.yaml"))


def histories(home: Home, sweep: SweepRecord, metric: str) -> dict[str, list[tuple[int, float]]]:
    """Return ``{trial: [(epoch, value), …]}`` of one metric for every trial of ``sweep``."""
    client = connect_to_read(home)
    return {
        trial.trial: [
            (point.step, point.value)
            for point in client.get_metric_history(trial.mlflow_run, metric)
        ]
        for trial in sweep.trials
    }


def _parent(home: Home, name: str) -> tuple[MlflowClient, Run]:
    client = connect_to_read(home)
    runs = search(client, f"tags.`{names.KIND}` = 'sweep'")
    for run in runs:
        if run.data.tags[names.SWEEP] == name:
            return client, run
    known = sorted(run.data.tags[names.SWEEP] for run in runs)
    listed = "segan-ray sweeps lists them." if known else "There is none yet: segan-ray tune."
    raise SweepError(
        f"No sweep is called '{name}' at {home.records}.{nearest(name, known)} {listed}"
    )


def _if_alive(home: Home, record: SweepRecord) -> SweepRecord:
    """Return ``record`` as interrupted if it says that it runs, but its process was killed.

    Of a sweep recorded in another home nobody here can know.
    """
    journal = home.sweeps / record.sweep / JOURNAL
    alive = not journal.exists() or is_held(lock_of(journal))
    if record.status != "running" or alive:
        return record
    trials = tuple(
        replace(trial, status="pending") if trial.status == "running" else trial
        for trial in record.trials
    )
    return replace(record, status="interrupted", trials=trials)


def sweep_record(client: MlflowClient, parent: Run) -> SweepRecord:
    """Return the sweep whose own run is ``parent``, as MLflow has it."""
    tags = parent.data.tags
    mode = cast("Mode", tags[names.MODE])
    name = tags[names.SWEEP]
    children = search(client, f"tags.`{names.PARENT}` = '{parent.info.run_id}'")
    return SweepRecord(
        sweep=name,
        status=cast("SweepStatus", tags[names.STATUS]),
        metric=tags[names.METRIC],
        mode=mode,
        store=tags[names.STORE],
        created=datetime.fromtimestamp(parent.info.start_time / 1000, UTC).isoformat(
            timespec="seconds"
        ),
        trials=rank([_trial(run) for run in children], mode),
        objectives=tuple(
            (metric, direction)
            for metric, direction in json.loads(tags.get(names.OBJECTIVES, "[]"))
        ),
    )


def _trial(run: Run) -> TrialRecord:
    tags = run.data.tags
    score = tags.get(names.SCORE)
    return TrialRecord(
        trial=tags[names.TRIAL],
        status=cast("TrialStatus", tags[names.STATUS]),
        epochs=int(tags[names.EPOCHS]),
        score=None if score is None else float(score),
        mlflow_run=run.info.run_id,
        params=cast("dict[str, Any]", json.loads(tags[names.PARAMS])),
        reason=tags.get(names.REASON),
        repeat_of=tags.get(names.REPEAT_OF),
        objectives=json.loads(tags.get(names.OBJECTIVES, "{}")),
    )


def store_place(home: Home, name: str) -> str:
    """Return where the store of a sweep was when it was trained: a folder or URL."""
    _, parent = _parent(home, name)
    inputs = parent.inputs.dataset_inputs if parent.inputs else []
    if not inputs:
        raise SweepError(f"The sweep '{name}' has no record of its store.")
    dataset = inputs[0].dataset
    return str(json.loads(dataset.source)["uri"])
