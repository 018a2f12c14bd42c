"""A sweep whose trials train on every fold of their store, on real Ray, then promoted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from mlflow import MlflowClient

from segan_ray.data.layouts.cases import discover
from segan_ray.data.store.opened_store import PrepareSettings, read_manifest
from segan_ray.data.store.prepare import prepare
from segan_ray.data.store.splits import SplitSettings
from segan_ray.evaluation.inference.packaged_model import load_model
from segan_ray.home import Home
from segan_ray.search.results.trial_state import SweepEvent, TrialState
from segan_ray.search.space.search_space import SearchSpace
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.tracking.reading.sweeps import read_sweep
from segan_ray.tracking.registry.model_versions import fetched
from segan_ray.workflows.evaluate import evaluate
from segan_ray.workflows.promote import promote
from tests.integration.conftest import SPACE, search
from tests.integration.killing import WORKER, kill_one

pytestmark = pytest.mark.slow

FOLDS, EPOCHS = 3, 2


@pytest.fixture(scope="module")
def store(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folds") / "store"
    prepare(
        discover(phantom_folder), folder, settings=PrepareSettings(),
        split_settings=SplitSettings(folds=FOLDS),
    )  # fmt: skip
    return folder


def space(**changes: Any) -> SearchSpace:
    tree = SPACE.model_dump(mode="json") | {
        "folds": "all", "scheduler": {"type": "wilcoxon"}, "budget": {"trials": 2}, **changes,
    }  # fmt: skip
    tree["base"]["training"]["epochs"] = EPOCHS
    tree["base"]["resources"] = {"retries": 3}
    return SearchSpace.model_validate(tree).on_folds(FOLDS)


def test_a_trial_is_one_run_over_all_folds_and_promoted_as_their_mean(
    cluster: None, store: Path, tmp_path: Path
) -> None:
    home, killed = Home.at(tmp_path / "home"), list[int]()

    def watch(event: SweepEvent) -> None:
        # In the second fold of the first trial its worker is killed once.
        if isinstance(event, TrialState) and event.epoch == EPOCHS + 1 and not killed:
            killed.append(kill_one(psutil.Process(), WORKER))

    assert search(space(), "folds", store, home, watch) == "finished"
    assert killed
    record = read_sweep(home, "folds")
    client = MlflowClient(home.tracking_uri)
    study = optuna.load_study(study_name="folds", storage=open_storage(home))
    assert [trial.status for trial in record.trials] == ["completed", "completed"]
    for trial in record.trials:
        assert trial.epochs == FOLDS * EPOCHS
        run = client.get_run(trial.mlflow_run)
        steps = {
            fold: [
                p.step
                for p in client.get_metric_history(run.info.run_id, f"fold/{fold}/val/dice_mean")
            ]
            for fold in range(FOLDS)
        }
        assert steps == {fold: [1, 2] for fold in range(FOLDS)}
        bests = [run.data.metrics[f"fold/{fold}/best"] for fold in range(FOLDS)]
        assert trial.score == pytest.approx(sum(bests) / FOLDS)
        told = study.trials[int(trial.trial)]
        assert told.value == trial.score
        assert told.intermediate_values == pytest.approx(dict(enumerate(bests)))
        inside = {item.path for item in client.list_artifacts(run.info.run_id, "checkpoint")}
        members = {f"checkpoint/member-{fold}" for fold in range(FOLDS)}
        assert inside == members | {"checkpoint/origin.json"}

    promoted = promote(home, "folds", alias="champion")
    assert promoted.verdict.verdict == "promoted"
    with fetched(home, "champion") as source:
        model = load_model(source.folder)
    assert [each.data.fold for each in model.experiments] == [0, 1, 2]
    document = evaluate(home, "champion", store).document
    assert document["store"] == read_manifest(store).fingerprint
    both = promote(home, "folds", alias="champion", ensemble=2, force=True)
    assert both.document()["ensemble"] == [trial.trial for trial in record.trials]
    with fetched(home, "champion") as source:
        assert len(load_model(source.folder).members) == 2 * FOLDS
    json.dumps(both.document())


@pytest.mark.endurance
def test_a_killed_trial_ends_as_one_that_was_not(
    cluster: None, store: Path, tmp_path: Path
) -> None:
    one = space(budget={"trials": 1})
    home = Home.at(tmp_path / "home")
    search(one, "whole", store, home)
    killed: list[int] = []

    def watch(event: SweepEvent) -> None:
        if isinstance(event, TrialState) and event.epoch == 2 * EPOCHS and not killed:
            killed.append(kill_one(psutil.Process(), WORKER))

    search(one, "cut", store, home, watch)
    whole, cut = (read_sweep(home, name).trials[0] for name in ("whole", "cut"))
    assert replace(cut, mlflow_run=whole.mlflow_run) == whole
