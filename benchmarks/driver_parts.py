"""What grows with trials, cases and nodes, each measured by itself for ``driver_scale.py``."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial
from recorded import Curves, read_curves
from replayed_trials import METRIC, Reading

from segan_ray.config import load_experiment
from segan_ray.data.sampling.slices import slice_source
from segan_ray.data.store.manifest import fingerprint, parse_manifest, read_manifest
from segan_ray.data.store.opened_store import PreparedCase
from segan_ray.home import Home
from segan_ray.orchestration.cluster.capacity import Node, how_many_fit
from segan_ray.orchestration.train.worker_group_spec import WorkerGroupSpec
from segan_ray.orchestration.tune.sweep import task_of
from segan_ray.orchestration.tune.sweep_plan import Sweep
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.search.study.sweep_study import Point, SweepStudy
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.recording.recorder import Recorder

MB: Final = 1e6
RUNGS: Final = (1, 1, 1, 1, 1, 1, 3, 3, 9)
"""After how many epochs a trial ended, in nine: a third goes on from each of ASHA's rungs."""
SETTING: Final = {
    "critic.depth": 2,
    "segmentor.lr": 0.01,
    "critic.lr": 1e-3,
    "loss.scale_weights": [1.0, 1.0, 1.0],
}


def suggestion_s(folder: Path, space: SearchSpace, known: int, times: int) -> list[float]:
    """Return the seconds of each of so many suggestions by a study of ``known`` ended trials."""
    home = Home(folder / f"known-{known}")
    home.folder.mkdir(parents=True)
    earlier = ended_trials(space, known)
    study = SweepStudy.create("many", space, open_storage(home), earlier=earlier)
    seconds = []
    # The first one reads what later ones find in memory.
    for number in range(times + 1):
        start = perf_counter()
        point = study.ask()
        if number:
            seconds.append(perf_counter() - start)
        study.report(point.number, 1, 0.1)
        study.tell(point.number, "stopped")
    return seconds


def ended_trials(space: SearchSpace, count: int) -> list[FrozenTrial]:
    """Return trials of random settings with their recorded curves, stopped as ASHA leaves them."""
    curves = read_curves()
    drawing = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [_ended(space, drawing.ask(), number, curves) for number in range(count)]


def _ended(space: SearchSpace, trial: optuna.Trial, number: int, curves: Curves) -> FrozenTrial:
    task = {"params": space.suggest(trial), "trial": f"{number:03d}"}
    epochs = RUNGS[number % len(RUNGS)]
    scores = Reading.of(task, curves).scores[:epochs]
    whole = epochs == max(RUNGS)
    return create_trial(
        state=TrialState.COMPLETE if whole else TrialState.PRUNED,
        params=trial.params,
        distributions=trial.distributions,
        values=[max(scores)] if whole else None,
        intermediate_values=dict(enumerate(scores, start=1)),
    )


def recorded_epochs_a_second(folder: Path, store: Path, trials: int) -> float:
    """Return how many epochs a second reach MLflow on SQLite, with nothing else to do."""
    home, curves = Home(folder / "recorded"), read_curves()
    card = StoreCard(store, read_manifest(store).fingerprint, {})
    experiment, epochs = load_experiment(None, []), 0
    recorder = Recorder.for_sweep(home, "many", card, METRIC, "max", "", home.sweeps / "many")
    start = perf_counter()
    for number in range(trials):
        trial = f"{number:03d}"
        reading = Reading.of({"params": SETTING, "trial": trial}, curves)
        recorder.start_trial(trial, experiment, SETTING)
        for _ in range(RUNGS[number % len(RUNGS)]):
            result = reading.next()
            recorder.log_epoch(trial, result.epoch, result.metrics)
            epochs += 1
        recorder.end_trial(trial, "completed", None, None)
    recorder.close("finished", patience_s=600)
    return epochs / (perf_counter() - start)


def manifest_mb_and_s(store: Path, cases: int) -> tuple[float, float]:
    """Return how large a manifest of so many cases is, and how long it takes to read."""
    small = read_manifest(store)
    one = small.cases[0]
    names = [f"BraTS2021_{number:05d}" for number in range(cases)]
    made = {
        "cases": tuple(one.model_copy(update={"case": n, "patient": n}) for n in names),
        "splits": {**dict.fromkeys(small.splits, ()), "train": tuple(names)},
        "folds": (),
    }
    many = small.model_copy(update=made)
    held_to = fingerprint(many.layout, many.settings, many.cases, many.splits, many.folds)
    text = many.model_copy(update={"fingerprint": held_to}).model_dump_json().encode()
    return len(text) / MB, seconds_of(lambda: parse_manifest(text, "many"), 3)


def slice_index_mb(store: Path, cases: int) -> float:
    """Return what the index of every slice of so many cases takes in each training process."""
    record = read_manifest(store).cases[0]
    slices = 155 * record.tumour_voxels[:1]
    made = [PreparedCase(record.model_copy(update={"tumour_voxels": slices}), store)] * cases
    tracemalloc.start()
    index = slice_source(made)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index) == 155 * cases
    return held / MB


def room_s(nodes: int) -> float:
    """Return how long it takes to see how many trials fit on so many nodes."""
    cluster = [Node(f"node-{number}", 16, 8, 64 * 2**30) for number in range(nodes)]
    return seconds_of(lambda: how_many_fit(cluster, 2, 4, 0.5, 6e8), 5)


def message_bytes(space: SearchSpace) -> dict[str, int]:
    """Return what goes between processes: a task to its trial, each epoch's result back."""
    card = StoreCard("/store", "0123456789abcdef", {})
    sweep = Sweep("parts", space, "", "/store", card, Home(Path("/home")), "")
    task = task_of(sweep, Point(0, SETTING), WorkerGroupSpec(1, 1, 0))
    result = Reading.of(task, read_curves()).next()
    return {"task": len(pickle.dumps(task)), "result": len(pickle.dumps(result))}


def seconds_of(call: Callable[[], Any], times: int) -> float:
    """Return the median seconds of a call."""
    seconds = []
    for _ in range(times):
        start = perf_counter()
        call()
        seconds.append(perf_counter() - start)
    return median(seconds)
