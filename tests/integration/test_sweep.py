"""What a sweep leaves: in Ray, in Optuna, in MLflow."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch
from mlflow import MlflowClient
from optuna.trial import TrialState as OptunaState

from segan_ray.config import load_experiment
from segan_ray.data.layouts.cases import discover
from segan_ray.data.store.opened_store import PrepareSettings, read_manifest
from segan_ray.data.store.prepare import prepare
from segan_ray.data.store.splits import SplitSettings
from segan_ray.errors import SweepError
from segan_ray.home import Home
from segan_ray.orchestration.train.messages import EpochResult
from segan_ray.orchestration.train.reaper import new_group_tag, reaping, remove_groups
from segan_ray.orchestration.train.trial_channel import TrialChannelClient, open_channel
from segan_ray.orchestration.tune import run_trials
from segan_ray.orchestration.tune.trainable import ReusableTrainable
from segan_ray.search.results.trial_state import TrialState
from segan_ray.search.space.objectives import METRICS
from segan_ray.search.space.search_space import ChoiceParameter, SearchSpace
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.search.study.study_budget import Limits
from segan_ray.tracking.reading.sweeps import list_sweeps, read_sweep
from segan_ray.training.checkpoints.checkpoint import load_segmentor
from tests.integration.conftest import (
    EPOCHS,
    SPACE,
    SWEEP,
    FinishedSweep,
    live_placement_groups,
    search,
    train,
)
from tests.integration.killing import assert_same_search, assert_whole, eventually

# After orchestration, which sets Ray up before importing it.
import ray  # isort: skip

pytestmark = pytest.mark.slow

HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
TINY = [
    "segmentor.base_width=4", "segmentor.depth=2", "critic.base_width=4", "critic.depth=1",
    "training.epochs=2", "training.steps_per_epoch=3", "training.batch_size=4", "training.crop=48",
]  # fmt: skip


def test_after_an_early_stop_its_placement_group_is_gone_and_the_next_trial_runs(
    sweep: FinishedSweep,
) -> None:
    stopped = [event.trial for event in sweep.events if event.status == "stopped"]
    assert stopped, "no trial was stopped early: the space must make one"
    # While a trial trains, only its driver and its workers hold groups; a group that leaked
    # from the trial before would add to them.
    training = [
        groups
        for event, groups in zip(sweep.events, sweep.groups, strict=True)
        if event.status == "running" and event.epoch > 1
    ]
    assert max(training) == min(training)
    assert eventually(lambda: live_placement_groups() == 0)
    assert {event.trial for event in sweep.events if event.epoch} == {"000", "001", "002", "003"}


def test_each_trial_is_told_to_optuna_as_what_it_was(sweep: FinishedSweep) -> None:
    study = optuna.load_study(study_name=SWEEP, storage=open_storage(sweep.home))
    record = read_sweep(sweep.home, SWEEP)
    states = {"completed": OptunaState.COMPLETE, "stopped": OptunaState.PRUNED}
    assert len(study.trials) == 4
    for trial in record.trials:
        told = study.trials[int(trial.trial)]
        assert told.state == states[trial.status]
        assert list(told.intermediate_values) == list(range(1, trial.epochs + 1))
        assert max(told.intermediate_values.values()) == trial.score
        if trial.status == "completed":
            assert told.value == trial.score


def test_mlflow_has_one_parent_and_one_run_a_trial(sweep: FinishedSweep) -> None:
    client = MlflowClient(sweep.home.tracking_uri)
    experiment = client.get_experiment_by_name("segan-ray")
    runs = client.search_runs([experiment.experiment_id], "tags.`segan.kind` != 'evaluation'")
    parents = [run for run in runs if run.data.tags["segan.kind"] == "sweep"]
    trials = [run for run in runs if run.data.tags["segan.kind"] == "trial"]
    assert [run.data.tags["segan.sweep"] for run in parents] == [SWEEP]
    assert sorted(run.data.tags["segan.trial"] for run in trials) == ["000", "001", "002", "003"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in trials:
        assert run.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        measured = {name for name in run.data.metrics if not name.startswith("system/")}
        assert measured == {*METRICS, "train/adversarial_share"}
        assert run.data.metrics["system/process_memory_megabytes"] > 50
        assert run.data.params["training.epochs"] == str(EPOCHS)
        assert run.data.params["segmentor.lr"] == str(
            json.loads(run.data.tags["segan.params"])["segmentor.lr"]
        )
        steps = [
            point.step for point in client.get_metric_history(run.info.run_id, "val/dice_mean")
        ]
        assert steps == list(range(1, int(run.data.tags["segan.epochs"]) + 1))
        (used,) = run.inputs.dataset_inputs
        assert used.dataset.digest == run.data.tags["segan.store"]
        kept = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert kept == {"checkpoint", "images", "overlays"}
        pictures = client.list_artifacts(run.info.run_id, "images")
        # Of every epoch, whole and small.
        assert len(pictures) == 2 * int(run.data.tags["segan.epochs"])


def test_the_best_checkpoint_of_a_trial_is_the_one_kept(sweep: FinishedSweep) -> None:
    record = read_sweep(sweep.home, SWEEP)
    client = MlflowClient(sweep.home.tracking_uri)
    for trial in record.trials:
        uri = client.get_run(trial.mlflow_run).info.artifact_uri
        folder = Path(uri.removeprefix("file://")) / "checkpoint"
        state = json.loads((folder / "state.json").read_text())
        assert state["best"]["scores"]["val/dice_mean"] == trial.score
        assert state["epoch"] == state["best"]["epoch"]
        load_segmentor(folder)


def test_sweeps_are_listed_with_their_best(sweep: FinishedSweep) -> None:
    (listed,) = list_sweeps(sweep.home)
    assert listed.status == "finished"
    assert listed.best is not None
    assert listed.best.score == max(trial.score or 0 for trial in listed.trials)


def test_an_unknown_sweep_names_the_nearest(sweep: FinishedSweep) -> None:
    with pytest.raises(SweepError, match=f"Did you mean '{SWEEP}'"):
        read_sweep(sweep.home, "stop-early")


def test_a_name_that_is_taken_is_refused(sweep: FinishedSweep) -> None:
    with pytest.raises(SweepError, match="exists already"):
        search(SPACE, SWEEP, sweep.store, sweep.home)


@pytest.mark.endurance
def test_a_trial_that_raises_fails_with_its_cause(
    cluster: None, store: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "store"
    shutil.copytree(store, broken)
    for image in broken.glob("cases/*/image.npy"):
        image.write_bytes(b"no array")
    home = Home.at(tmp_path / "home")
    with pytest.raises(SweepError, match=r"1 trial of 'broken' failed.*image\.npy"):
        search(SPACE, "broken", broken, home, given=Limits(1))
    (trial,) = read_sweep(home, "broken").trials
    assert trial.status == "failed"
    assert "image.npy" in (trial.reason or "")
    study = optuna.load_study(study_name="broken", storage=open_storage(home))
    assert [told.state for told in study.trials] == [OptunaState.FAIL]


def test_a_trial_that_diverges_ends_with_the_worst_score_and_its_reason(
    cluster: None, store: Path, tmp_path: Path
) -> None:
    """Nowhere is it left running; the sampler learns of it, as of a trial stopped at 0."""
    space = SPACE.model_copy(
        update={
            "parameters": {"segmentor.lr": ChoiceParameter(type="choice", values=(1e38,))},
            "budget": SPACE.budget.model_copy(update={"trials": 1}),
        }
    )
    home = Home.at(tmp_path / "home")
    with pytest.raises(SweepError, match=r"failed.*diverged: train/loss_\w+ is (nan|inf|-inf)"):
        search(space, "wild", store, home)
    (trial,) = read_sweep(home, "wild").trials
    assert (trial.status, trial.score) == ("failed", 0.0)
    assert "diverged" in (trial.reason or "")
    client = MlflowClient(home.tracking_uri)
    experiment = client.get_experiment_by_name("segan-ray")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} == {"FAILED"}
    (told,) = optuna.load_study(study_name="wild", storage=open_storage(home)).trials
    assert told.state == OptunaState.PRUNED
    assert set(told.intermediate_values.values()) == {0.0}


def test_a_trial_that_cannot_be_trained_is_retried_then_failed_and_the_others_go_on(
    cluster: None, store: Path, tmp_path: Path
) -> None:
    tree = SPACE.model_dump()
    tree["base"]["resources"] = {"retries": 1}
    # The store has no folds.
    tree |= {
        "parameters": {"data.fold": {"type": "choice", "values": [7, None]}},
        "sampler": {"type": "grid"}, "scheduler": {"type": "none"}, "enqueue": [],
    }  # fmt: skip
    home = Home.at(tmp_path / "home")
    events: list[TrialState] = []
    status = search(
        SearchSpace.model_validate(tree), "folds", store, home, events.append, given=Limits(5)
    )
    # A grid of two has two trials with any budget.
    failed, completed = sorted(read_sweep(home, "folds").trials, key=lambda t: t.status)[::-1]
    assert status == "finished"
    assert (failed.status, completed.status) == ("failed", "completed")
    assert "fold" in (failed.reason or "")
    assert max(event.retries for event in events if event.trial == failed.trial) == 1
    assert {event.retries for event in events if event.trial == completed.trial} == {0}


@pytest.mark.endurance
def test_a_weak_member_of_a_population_goes_on_from_a_strong_one(
    cluster: None, store: Path, tmp_path: Path
) -> None:
    tree = SPACE.model_dump()
    tree["base"]["training"]["epochs"] = 6
    # One after the other, so that the weak one knows the strong.
    tree["budget"]["max_concurrent"] = 1
    tree |= {
        "sampler": {"type": "random", "seed": 1},
        "scheduler": {"type": "pbt", "interval": 3, "resample": 0.0},
        "enqueue": [{"segmentor.lr": rate} for rate in (6e-3, 5e-3, 4e-3, 1e-6)],
    }
    home = Home.at(tmp_path / "home")
    search(SearchSpace.model_validate(tree), "population", store, home)
    study = optuna.load_study(study_name="population", storage=open_storage(home))
    taken = study.trials[3].user_attrs["taken_over"]["3"]
    assert taken["source"] in (0, 1, 2)
    values = study.trials[3].intermediate_values
    # It had learned next to nothing in three epochs.
    assert values[4] > values[3] + 0.02
    client = MlflowClient(home.tracking_uri)
    run = next(t.mlflow_run for t in read_sweep(home, "population").trials if t.trial == "003")
    rates = [p.value for p in client.get_metric_history(run, "param/segmentor.lr")]
    assert rates == pytest.approx([*[1e-6] * 3, *[taken["params"]["segmentor.lr"]] * 3])


def test_a_paused_trial_goes_on_from_its_checkpoint(
    cluster: None, store: Path, tmp_path: Path
) -> None:
    tree = SPACE.model_dump()
    tree["base"]["training"]["epochs"] = 4
    tree["budget"] |= {"trials": 4, "max_concurrent": 1}
    # The first learns best, and has to wait until there are two at a rung.
    tree |= {
        "scheduler": {"type": "asha", "reduction_factor": 2, "promote": True},
        "enqueue": [{"segmentor.lr": rate} for rate in (6e-3, 1e-5, 2e-5, 3e-5)],
    }
    home, space = Home.at(tmp_path / "home"), SearchSpace.model_validate(tree)
    seen: list[tuple[str, str, int]] = []
    search(space, "waits", store, home, lambda e: seen.append((e.trial, e.status, e.epoch)))
    first = [(status, epoch) for trial, status, epoch in seen if trial == "000"]
    assert [each for each in first if each[0] == "paused"] == [("paused", 1), ("paused", 2)]
    assert first[-1] == ("completed", 4)
    assert_whole(home, "waits", 4, 4)
    assert_same_search(home, "waits", tree)
    epochs = {trial.trial: trial.epochs for trial in read_sweep(home, "waits").trials}
    assert sorted(epochs.values()) == [1, 1, 2, 4]


@pytest.mark.endurance
def test_a_trial_whose_trainable_is_lost_before_it_began_is_trained_all_the_same(
    cluster: None, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = tmp_path / "lost"

    class LostOnce(ReusableTrainable):
        def reset_config(self, new_config: dict) -> bool:
            if not lost.exists():
                lost.touch()
                os._exit(1)
            return super().reset_config(new_config)

    monkeypatch.setattr(run_trials, "ReusableTrainable", LostOnce)
    tree = SPACE.model_dump()
    tree["budget"]["max_concurrent"] = 1
    home = Home.at(tmp_path / "home")
    search(SearchSpace.model_validate(tree), "lost", store, home)
    assert lost.exists()
    trials = read_sweep(home, "lost").trials
    assert len(trials) == tree["budget"]["trials"]
    assert {trial.status for trial in trials} <= {"completed", "stopped"}
    # The lost trial came next, as if it had not been lost.
    assert_same_search(home, "lost", tree)


@pytest.mark.endurance
def test_what_breaks_a_constraint_does_not_win_and_what_has_no_memory_goes_on_in_parts(
    cluster: None, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Tight(ReusableTrainable):
        """Whole batches do not fit."""

        def _next_result(self) -> EpochResult | None:
            result = super()._next_result()
            whole = self._task["experiment"].training.accumulate == 1
            if result is None or not whole:
                return result
            return replace(result, failure="out of memory: told", out_of_memory=True)

    monkeypatch.setattr(run_trials, "ReusableTrainable", Tight)
    tree, home = SPACE.model_dump(), Home.at(tmp_path / "home")
    tree["base"]["resources"] |= {"on_out_of_memory": "accumulate"}
    tree["parameters"] = {"segmentor.base_width": {"type": "choice", "values": [4, 8]}}
    tree["enqueue"] = [{"segmentor.base_width": 8}, {"segmentor.base_width": 4}]
    tree["scheduler"] = {"type": "none"}
    tree["constraints"] = [{"metric": "model/parameters", "max": 4000}]
    tree["budget"] |= {"trials": 2, "max_concurrent": 1}
    said: list[str] = []
    events: list[TrialState] = []
    space = SearchSpace.model_validate(tree)
    assert search(space, "tight", store, home, events.append, said.append) == "finished"
    record = read_sweep(home, "tight")
    small, large = record.trials
    assert record.best == small
    assert (large.trial, large.status, large.epochs, large.infeasible) == (
        "000",
        "stopped",
        1,
        True,
    )
    assert large.reason is not None
    assert large.reason.startswith("constraint broken: model/parameters at most 4000, found ")
    assert (small.status, small.epochs, small.infeasible) == ("completed", EPOCHS, False)
    warnings = [event.warning for event in events if event.warning]
    again = "begins again with its batches in 2 parts, since it ran out of memory: told"
    assert warnings == [again] * 2
    run = MlflowClient(home.tracking_uri).get_run(small.mlflow_run)
    assert run.data.metrics["param/training.accumulate"] == 2


@pytest.mark.endurance
def test_a_finished_sweep_goes_on_to_more_trials(
    cluster: None, store: Path, tmp_path: Path
) -> None:
    tree = SPACE.model_dump()
    tree["budget"] |= {"trials": 1, "max_concurrent": 1}
    space, home = SearchSpace.model_validate(tree), Home.at(tmp_path / "home")
    assert search(space, "more", store, home) == "finished"
    assert search(space, "more", store, home, resume=True, given=Limits(2)) == "finished"
    assert_whole(home, "more", 2, EPOCHS)


@pytest.mark.endurance
def test_a_sweep_ends_once_trials_bring_no_gain_and_goes_on_with_more_patience(
    cluster: None, store: Path, tmp_path: Path
) -> None:
    tree, home = SPACE.model_dump(), Home.at(tmp_path / "home")
    # Of this all trials have the same.
    tree |= {"objective": {"metric": "model/parameters"}, "scheduler": {"type": "none"}}

    def trials(patience: int, *, resume: bool) -> int:
        tree["budget"] |= {"max_concurrent": 1, "no_gain_for": {"trials": patience}}
        space = SearchSpace.model_validate(tree)
        assert search(space, "gains", store, home, resume=resume) == "finished"
        return len(read_sweep(home, "gains").trials)

    assert trials(1, resume=False) == 2
    assert read_sweep(home, "gains").ended_by == "no_gain_for"
    assert trials(2, resume=True) == 3


@pytest.mark.endurance
def test_a_sweep_waits_once_its_hours_are_used_up_and_goes_on_with_more(
    cluster: None, store: Path, tmp_path: Path
) -> None:
    tree, home = SPACE.model_dump(), Home.at(tmp_path / "home")
    # They are used up when the first trial begins; it ends its epoch.
    tree["budget"] |= {"trials": 2, "max_concurrent": 1, "hours": 1e-6}
    space, said = SearchSpace.model_validate(tree), []
    assert search(space, "hours", store, home, say=said.append) == "finished"
    assert said[-1].startswith("The 1e-06 hours are used up, so 'hours' ended after 1 of 2 trials.")
    record = read_sweep(home, "hours")
    (waiting,) = record.trials
    assert (record.ended_by, waiting.status, waiting.epochs) == ("hours", "paused", 1)
    client = MlflowClient(home.tracking_uri)
    load_segmentor(Path(client.download_artifacts(waiting.mlflow_run, "checkpoint", str(tmp_path))))

    more = Limits(hours=9)
    assert search(space, "hours", store, home, resume=True, given=more) == "finished"
    assert_whole(home, "hours", 2, EPOCHS)
    assert read_sweep(home, "hours").ended_by == "trials"


@pytest.mark.endurance
def test_two_workers_train_one_model(cluster: None, store: Path, tmp_path: Path) -> None:
    experiment = load_experiment(None, [*TINY, "resources.workers=2"])
    home = Home.at(tmp_path / "home")
    result = train(experiment, "pair", store, store, home)
    assert result.epochs == 2
    load_segmentor(Path(result.checkpoint))
    client = MlflowClient(home.tracking_uri)
    (trial,) = read_sweep(home, "pair").trials
    assert (trial.mlflow_run, trial.status) == (result.run, "completed")
    assert client.get_run(result.run).data.tags["segan.trial"] == "000"


@pytest.mark.endurance
def test_a_fold_of_a_store_elsewhere_is_trained_on_in_the_nodes_copy(
    cluster: None, phantom_folder: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    manifest = prepare(
        discover(phantom_folder), store, settings=PrepareSettings(),
        split_settings=SplitSettings(folds=3),
    )  # fmt: skip
    experiment = SPACE.base_experiment()
    one_fold = experiment.data.model_copy(update={"fold": 2})
    changed = experiment.model_copy(update={"data": one_fold})
    train(changed, "fold", store, f"file://{store}", Home.at(tmp_path / "home"))
    copy = Path(os.environ["SEGAN_RAY_CACHE"]) / manifest.fingerprint
    assert read_manifest(copy) == manifest


def test_more_than_the_cluster_has_is_refused_with_the_numbers(
    cluster: None, store: Path, tmp_path: Path
) -> None:
    experiment = load_experiment(None, [*TINY, "resources.workers=3"])
    home = Home.at(tmp_path / "home")
    with pytest.raises(SweepError, match="asks for 3 CPU"):
        train(experiment, "big", store, store, home)


def test_the_placement_group_of_a_lost_worker_group_is_removed(cluster: None) -> None:
    lost, alive = new_group_tag(), new_group_tag()
    before = live_placement_groups()
    # One waits for more than there is, as a worker group does where a node was lost.
    ray.util.placement_group([{"CPU": 1000, "memory": lost}])
    ray.util.placement_group([{"memory": lost}])
    ray.util.placement_group([{"memory": alive}])
    remove_groups({lost})
    assert eventually(lambda: live_placement_groups() == before + 1)
    remove_groups({alive})
    assert eventually(lambda: live_placement_groups() == before)


def test_placement_groups_are_removed_at_the_end(cluster: None) -> None:
    tag, before = new_group_tag(), live_placement_groups()
    actor = open_channel("channel-of-this-test")
    channel = TrialChannelClient("channel-of-this-test")
    with reaping(channel):
        channel.heartbeat(tag)
        # As of a controller that dies before its workers have started.
        ray.util.placement_group([{"CPU": 1, "memory": tag}])
        assert live_placement_groups() == before + 1
        assert list(channel.heartbeats()) == [tag]
    assert eventually(lambda: live_placement_groups() == before)
    ray.kill(actor)


def test_a_placement_group_that_comes_late_is_removed_by_the_next_sweep(
    cluster: None,
) -> None:
    tag, before = new_group_tag(), live_placement_groups()
    actor = open_channel("channel-of-this-test")
    channel = TrialChannelClient("channel-of-this-test")
    with reaping(channel):
        channel.heartbeat(tag)
    # As of a controller that was on its way out.
    ray.util.placement_group([{"CPU": 1, "memory": tag}])
    with reaping(channel):
        assert eventually(lambda: live_placement_groups() == before)
    ray.kill(actor)


def test_every_process_is_told_its_own_cluster(cluster: None) -> None:
    """Where two clusters run on a machine, Ray Train's cleaner must not have to guess."""
    told = ray.get(ray.remote(lambda: os.environ["RAY_ADDRESS"]).remote())
    assert told == ray.get_runtime_context().gcs_address
    assert told.startswith("127.0.0.1:")
    assert "RAY_ADDRESS" not in os.environ


@pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(),
    reason="this kernel gives no huge pages on request",
)
def test_a_worker_keeps_tensors_in_huge_pages(cluster: None) -> None:
    def kib_while_a_tensor_is_there() -> int:
        tensor = torch.ones(2**24)
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        (held,) = (line.split()[1] for line in lines if line.startswith("AnonHugePages"))
        return int(held) if tensor.all() else 0

    # The tensor takes 64 MiB.
    assert ray.get(ray.remote(kib_while_a_tensor_is_there).remote()) > 32 * 2**10
