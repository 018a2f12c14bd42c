"""What a sweep leaves in MLflow, whatever becomes of its process; on a real SQLite store."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from segan_ray.config import Experiment, load_experiment
from segan_ray.databases import make_sqlite
from segan_ray.errors import SweepError, TakenOver, TrackingError
from segan_ray.home import Home
from segan_ray.search.storage.study_storage import open_storage
from segan_ray.tracking.client.connection import connect, experiment_id, search
from segan_ray.tracking.client.database import make_database
from segan_ray.tracking.description.card import StoreCard
from segan_ray.tracking.outbox import OUTBOX, Outbox, lock_of, read_outbox
from segan_ray.tracking.reading.sweeps import (
    epoch_seconds,
    histories,
    list_sweeps,
    read_space,
    read_sweep,
    store_location,
)
from segan_ray.tracking.recording.close_dead_sweep import close_dead_sweep, recorded, recorded_names
from segan_ray.tracking.recording.deletion import delete_sweep
from segan_ray.tracking.recording.recorder import Recorder
from segan_ray.tracking.recording.uploader import Uploader
from segan_ray.tracking.registry.aliases import move_alias
from segan_ray.training.checkpoints.trial_folder import TrialFolder
from segan_ray.training.epoch_record import BestEpoch, EpochRecord
from segan_ray.training.state import new_state
from tests.unit.command_line import segan
from tests.unit.stored import ORIGIN, bare_version

METRIC = "val/dice_mean"
CARD = StoreCard("/data/store", "fingerprint", {"train": 8, "val": 2})
SPACE = "name: test\n"
SMALL = [
    "segmentor.base_width=2", "segmentor.depth=2", "critic.base_width=2", "critic.depth=1",
    "variant=s1-3c",
]  # fmt: skip


def opened(home: Home, *, resume: bool = False, keep: int = 10, **more) -> Recorder:
    return Recorder.for_sweep(
        home, "s", CARD, METRIC, "max", SPACE, home.sweeps / "s",
        keep_checkpoints=keep, resume=resume, **more,
    )  # fmt: skip


def killed(recorder: Recorder) -> None:
    """Stop as a kill does: nothing is written any more, whatever waits."""
    recorder.uploader.stop()


def checkpoint_of(home: Home, trial: str, epoch: int = 1) -> str:
    return str(home.sweeps / "s" / "checkpoints" / trial / f"epoch-{epoch:04d}")


def checkpoint(home: Home, trial: str, epoch: int = 1) -> str:
    folder = Path(checkpoint_of(home, trial, epoch))
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"epoch": epoch}))
    (folder / "segmentor.safetensors").write_bytes(trial.encode())
    (folder / "validation.png").write_bytes(b"PNG")
    return str(folder)


def save(home: Home, trial: str, record: EpochRecord) -> None:
    """Save a whole checkpoint, as a worker does."""
    experiment = load_experiment(None, SMALL)
    state = new_state(experiment, torch.device("cpu"))
    state.epoch = record.epoch
    folder = TrialFolder(home.sweeps / "s" / "checkpoints" / trial)
    folder.save(state, experiment, ORIGIN, record, Image.new("RGB", (4, 4)))


def train(recorder: Recorder, home: Home, trial: str, *scores: float, **more) -> None:
    recorder.start_trial(trial, Experiment(), {"segmentor.lr": 0.001}, **more)
    for epoch, score in enumerate(scores, start=1):
        recorder.log_epoch(trial, epoch, {METRIC: score, "system/cpu": 1.0})
    best = max(range(len(scores)), key=lambda index: scores[index]) + 1
    recorder.end_trial(trial, "completed", None, checkpoint(home, trial, best))


def runs(home: Home) -> dict[str, Run]:
    """Return every run by trial, the sweep's own as '', each found once."""
    found = search(connect(home), "tags.`segan.sweep` = 's'")
    names = [run.data.tags.get("segan.trial", "") for run in found]
    assert Counter(names).most_common(1)[0][1] == 1, f"a trial has two runs: {names}"
    return dict(zip(names, found, strict=True))


def artifacts(home: Home, run: Run) -> set[str]:
    return {item.path for item in connect(home).list_artifacts(run.info.run_id)}


def content(home: Home) -> object:
    """Everything that MLflow holds of the sweep, but for ids."""
    client = connect(home)
    return {
        trial: (
            run.info.status,
            {name: v for name, v in run.data.tags.items() if name.startswith("segan.")},
            run.data.params,
            {
                name: [(p.step, p.value, p.timestamp) for p in history(client, run, name)]
                for name in run.data.metrics
            },
            artifacts(home, run),
            [used.dataset.digest for used in run.inputs.dataset_inputs],
        )
        for trial, run in sorted(runs(home).items())
    }


def history(client: MlflowClient, run: Run, name: str):
    found = client.get_metric_history(run.info.run_id, name)
    return sorted(found, key=lambda point: (point.step, point.timestamp))


def test_the_pace_of_the_newest_sweep_on_a_store_is_known(home: Home) -> None:
    assert epoch_seconds(home, "fingerprint") is None
    recorder = opened(home)
    recorder.start_trial("000", Experiment(), {})
    for epoch, seconds in enumerate((9.0, 2.0, 3.0), start=1):
        recorder.log_epoch("000", epoch, {METRIC: 0.1, "time/epoch_s": seconds})
    recorder.close("finished")
    assert epoch_seconds(home, "fingerprint") == ("s", 3.0)
    assert epoch_seconds(home, "another") is None


def test_a_sweep_is_a_parent_and_a_run_a_trial(home: Home) -> None:
    recorder = opened(home)
    assert recorder.run_id("000") is None
    train(recorder, home, "000", 0.1, 0.3, 0.2)
    recorder.start_trial("001", Experiment(), {"critic.depth": 2}, repeat_of="000")
    recorder.log_epoch("001", 1, {METRIC: float("nan"), "param/loss.scale_weights[0]": 0.5})
    recorder.end_trial("001", "failed", "It diverged.\0", None)
    recorder.close("finished")
    recorder.close("failed")  # a second call does nothing

    found = runs(home)
    assert {trial: run.info.status for trial, run in found.items()} == {
        "": "FINISHED", "000": "FINISHED", "001": "FAILED"
    }  # fmt: skip
    record = read_sweep(home, "s")
    assert (record.status, record.best and record.best.trial) == ("finished", "000")
    first, second = record.trials
    assert (first.score, first.epochs, first.params) == (0.3, 3, {"segmentor.lr": 0.001})
    assert (second.score, second.reason, second.repeat_of) == (None, "It diverged.", "000")
    assert histories(home, record, METRIC)["000"] == [(1, 0.1), (2, 0.3), (3, 0.2)]
    assert "param/loss.scale_weights_0_" in found["001"].data.metrics
    assert found["000"].data.params["training.epochs"] == str(Experiment().training.epochs)
    assert found["000"].data.tags["segan.best_epoch"] == "2"
    assert found[""].data.metrics == {METRIC: 0.3}
    assert artifacts(home, found["000"]) == {"checkpoint", "overlays"}
    assert artifacts(home, found[""]) == {"space.yaml"}
    assert recorder.run_id("000") == found["000"].info.run_id


def test_what_of_its_budget_a_finished_sweep_used_up_is_recorded(home: Home) -> None:
    recorder = opened(home)
    recorder.close("finished", ended_by="no_gain_for")
    assert read_sweep(home, "s").summary()["ended_by"] == "no_gain_for"
    assert "finished, no gain" in segan("sweeps", cwd=home.folder, home=home.folder).stdout
    again = opened(home, resume=True)
    again.uploader.finish(60)
    assert read_sweep(home, "s").ended_by is None
    killed(again)


def test_trials_that_wait_for_hours_have_their_checkpoints_with_the_records(home: Home) -> None:
    recorder = opened(home, keep=2)
    train(recorder, home, "000", 0.1, 0.6)
    folders = {}
    for trial, score in {"001": 0.7, "002": 0.5, "003": 0.8}.items():
        recorder.start_trial(trial, Experiment(), {})
        recorder.log_epoch(trial, 1, {METRIC: score})
        folders[trial] = str(checkpoint(home, trial))
    recorder.pause_trial("001")
    recorder.start_trial("004", Experiment(), {})
    recorder.hold({**folders, "004": None})
    recorder.close("finished", ended_by="hours")

    record = read_sweep(home, "s")
    assert (record.status, record.ended_by) == ("finished", "hours")
    assert {each.trial: each.status for each in record.trials} == {
        "000": "completed", "001": "paused", "002": "paused", "003": "paused", "004": "paused"
    }  # fmt: skip
    found = runs(home)
    assert found["003"].info.status == "SCHEDULED"
    # The best two, ended or not.
    assert [trial for trial in folders if "checkpoint" in artifacts(home, found[trial])] == [
        "001", "003"
    ]  # fmt: skip
    listed = segan("sweeps", cwd=home.folder, home=home.folder).stdout
    assert "finished, hours used up" in listed

    again = opened(home, resume=True, keep=2)
    again.start_trial("002", Experiment(), {})
    again.close("interrupted")
    assert {each.trial: each.status for each in read_sweep(home, "s").trials} == {
        "000": "completed", "001": "paused", "002": "pending", "003": "paused", "004": "paused"
    }  # fmt: skip


def test_what_is_infeasible_keeps_no_checkpoint_and_does_not_win(home: Home) -> None:
    recorder = opened(home, keep=1)
    for trial, score in {"000": 0.9, "001": 0.4, "002": 0.8}.items():
        recorder.start_trial(trial, Experiment(), {})
        recorder.log_epoch(trial, 1, {METRIC: score})
    folders = {trial: str(checkpoint(home, trial)) for trial in ("000", "001", "002")}
    recorder.end_trial("000", "stopped", "too large", folders["000"], infeasible=True)
    recorder.end_trial("001", "completed", None, folders["001"])
    recorder.hold({"002": folders["002"]}, ["002"])
    recorder.close("finished", ended_by="hours")
    record = read_sweep(home, "s")
    assert [(each.trial, each.infeasible) for each in record.trials] == [
        ("001", False), ("000", True), ("002", True)
    ]  # fmt: skip
    assert record.best is not None
    assert record.best.trial == "001"
    found = runs(home)
    kept = [trial for trial in folders if "checkpoint" in artifacts(home, found[trial])]
    assert kept == ["001"]
    listed = segan("trials", "s", cwd=home.folder, home=home.folder).stdout
    assert "infeasible" in listed
    assert "Trial 000: too large" in listed

    # What waits may win once it has gone on.
    again = opened(home, resume=True, keep=1)
    again.start_trial("002", Experiment(), {})
    again.log_epoch("002", 2, {METRIC: 0.85})
    again.end_trial("002", "completed", None, folders["002"])
    again.close("finished")
    record = read_sweep(home, "s")
    assert record.best is not None
    assert record.best.trial == "002"


def test_several_objectives_are_kept_at_the_best_epoch(home: Home) -> None:
    objectives = ((METRIC, "max"), ("time/epoch_s", "min"))
    recorder = opened(home, objectives=objectives)
    for trial, values in {"000": [(0.1, 1.0), (0.4, 3.0)], "001": [(0.3, 2.0)]}.items():
        recorder.start_trial(trial, Experiment(), {})
        for epoch, (dice, seconds) in enumerate(values, start=1):
            recorder.log_epoch(trial, epoch, {METRIC: dice, "time/epoch_s": seconds})
        recorder.end_trial(trial, "completed", None, None)
    recorder.close("finished")
    record = read_sweep(home, "s")
    assert record.objectives == objectives
    assert record.trials[0].objectives == {METRIC: 0.4, "time/epoch_s": 3.0}
    assert record.pareto == ("000", "001")


@pytest.mark.slow
@pytest.mark.parametrize("before", [(), (0.0,)])
def test_an_epoch_that_failed_is_the_best_only_where_there_is_no_other(
    home: Home, before: tuple[float, ...]
) -> None:
    recorder = opened(home)
    recorder.start_trial("000", Experiment(), {})
    for epoch, score in enumerate(before, start=1):
        recorder.log_epoch("000", epoch, {METRIC: score})
    recorder.log_epoch("000", len(before) + 1, {METRIC: 0.0}, failed=True)
    recorder.suspend()
    again = opened(home, resume=True)
    assert again.ledger.trials["000"].best_epoch == 1
    again.end_trial("000", "failed", "The loss is not finite.", None)
    again.close("finished")
    tags = runs(home)["000"].data.tags
    assert tags["segan.epochs"] == str(len(before) + 1)
    assert tags["segan.best_epoch"] == "1"
    assert read_sweep(home, "s").trials[0].score == 0.0


def test_any_acknowledgement_replays_to_the_same_content(home: Home) -> None:
    recorder = opened(home, keep=1)
    train(recorder, home, "000", 0.1, 0.3)
    train(recorder, home, "001", 0.4)
    recorder.close("finished")
    path = home.sweeps / "s" / OUTBOX
    before = content(home)
    kinds = [one.kind for one in read_outbox(path)]
    assert kinds == [
        "open",
        "start",
        "epoch",
        "epoch",
        "end",
        "start",
        "epoch",
        "end",
        "drop",
        "close",
    ]
    acknowledged = path.with_name(f"{OUTBOX}.acknowledged")
    end = 0
    for line in path.read_bytes().splitlines(keepends=True):
        acknowledged.write_text(str(end))
        Uploader(Outbox(path), recorder.writer.apply).replay()
        assert content(home) == before
        end += len(line)


def test_the_best_k_keep_their_checkpoints_and_all_keep_their_pictures(home: Home) -> None:
    recorder = opened(home, keep=2)
    scores = {"000": 0.5, "001": 0.3, "002": 0.4, "003": 0.1, "004": 0.6}
    for trial, score in scores.items():
        train(recorder, home, trial, score)
    recorder.close("finished")
    kept = {
        trial: artifacts(home, run) for trial, run in runs(home).items() if trial
    }  # fmt: skip
    both = {"checkpoint", "overlays"}
    assert kept == {
        "000": both, "001": {"overlays"}, "002": {"overlays"}, "003": {"overlays"}, "004": both
    }  # fmt: skip
    local = home.sweeps / "s" / "checkpoints"
    assert {path.name for path in local.iterdir()} == {"000", "004"}


def test_a_setting_that_is_repeated_keeps_its_best_checkpoint(home: Home) -> None:
    recorder = opened(home, keep=2)
    train(recorder, home, "000", 0.9)
    train(recorder, home, "001", 0.8)
    train(recorder, home, "002", 0.5, repeat_of="001")
    train(recorder, home, "003", 0.95)
    recorder.close("finished")
    local = home.sweeps / "s" / "checkpoints"
    assert {path.name for path in local.iterdir()} == {"000", "001", "003"}
    best = read_sweep(home, "s").best
    assert best is not None
    assert best.trial == "001"


def test_a_checkpoint_in_the_registry_is_not_dropped(home: Home) -> None:
    recorder = opened(home, keep=1)
    train(recorder, home, "000", 0.5)
    recorder.close("finished")
    client = connect(home)
    move_alias(client, "champion", bare_version(client, runs(home)["000"].info.run_id))
    recorder = opened(home, keep=1, resume=True)
    train(recorder, home, "001", 0.6)
    recorder.close("finished")
    assert artifacts(home, runs(home)["000"]) == {"checkpoint", "overlays"}


def test_a_checkpoint_that_is_gone_does_not_hold_up_the_rest(home: Home) -> None:
    recorder = opened(home)
    recorder.start_trial("000", Experiment(), {})
    recorder.log_epoch("000", 1, {METRIC: 0.1})
    recorder.end_trial("000", "stopped", None, str(home.folder / "gone"))
    recorder.close("finished", patience_s=0)
    assert read_sweep(home, "s").trials[0].status == "stopped"


def test_a_killed_sweep_goes_on_with_neither_gap_nor_double(home: Home) -> None:
    recorder = opened(home)
    train(recorder, home, "000", 0.3)
    recorder.start_trial("001", Experiment(), {})
    recorder.log_epoch("001", 1, {METRIC: 0.1})
    recorder.log_epoch("001", 2, {METRIC: 0.2})
    killed(recorder)

    recorder = opened(home, resume=True)
    found = runs(home)
    assert {trial: run.info.status for trial, run in found.items()} == {
        "": "RUNNING", "000": "FINISHED", "001": "KILLED"
    }  # fmt: skip
    assert found["001"].data.tags["segan.status"] == "pending"
    assert recorder.run_id("001") == found["001"].info.run_id
    recorder.start_trial("001", Experiment(), {})
    # It went back to its checkpoint of epoch 1: the second epoch comes again.
    recorder.log_epoch("001", 2, {METRIC: 0.25})
    recorder.log_epoch("001", 3, {METRIC: 0.4})
    recorder.end_trial("001", "completed", None, checkpoint(home, "001", 3))
    recorder.close("finished")
    record = read_sweep(home, "s")
    assert histories(home, record, METRIC)["001"] == [(1, 0.1), (2, 0.2), (3, 0.4)]
    assert [(one.trial, one.status, one.score) for one in record.trials] == [
        ("001", "completed", 0.4), ("000", "completed", 0.3)
    ]  # fmt: skip
    assert runs(home)["001"].info.run_id == found["001"].info.run_id


def test_records_that_never_reached_mlflow_are_written_by_the_resume(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = opened(home)
    away = threading.Event()

    def refuse(*args, **more):
        away.set()
        raise OSError("The server is away.")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(MlflowClient, "create_run", refuse)
        train(recorder, home, "000", 0.1, 0.3)
        assert away.wait(60)
        recorder.close("finished", patience_s=0)
    assert "records of 's' wait in" in caplog.text
    assert set(runs(home)) == {""}
    assert recorder.run_id("000") is None
    opened(home, resume=True).close("finished")
    record = read_sweep(home, "s")
    assert histories(home, record, METRIC)["000"] == [(1, 0.1), (2, 0.3)]
    assert (record.status, record.trials[0].status) == ("finished", "completed")


def test_an_interrupted_sweep_leaves_nothing_running_and_can_go_on(home: Home) -> None:
    recorder = opened(home)
    train(recorder, home, "000", 0.3)
    recorder.start_trial("001", Experiment(), {})
    recorder.log_epoch("001", 1, {METRIC: 0.1})
    recorder.suspend()
    recorder.close("failed")
    found = runs(home)
    assert {trial: run.info.status for trial, run in found.items()} == {
        "": "KILLED", "000": "FINISHED", "001": "KILLED"
    }  # fmt: skip
    record = read_sweep(home, "s")
    assert record.status == "interrupted"
    assert record.trials[1].status == "pending"

    recorder = opened(home, resume=True)
    assert read_sweep(home, "s").status == "running"
    recorder.start_trial("001", Experiment(), {})
    recorder.end_trial("001", "stopped", None, None)
    recorder.close("finished")
    assert {run.info.status for run in runs(home).values()} == {"FINISHED"}


def test_a_paused_trial_has_one_run_for_ever(home: Home) -> None:
    recorder = opened(home)
    recorder.start_trial("000", Experiment(), {})
    recorder.log_epoch("000", 1, {METRIC: 0.1})
    for _ in range(2):
        recorder.pause_trial("000")
    recorder.suspend()
    assert runs(home)["000"].info.status == "SCHEDULED"
    assert read_sweep(home, "s").trials[0].status == "paused"

    recorder = opened(home, resume=True)
    assert recorder.ledger.trials["000"].status == "paused"
    recorder.start_trial("000", Experiment(), {})
    assert recorder.ledger.trials["000"].status == "running"
    recorder.log_epoch("000", 2, {METRIC: 0.3})
    recorder.end_trial("000", "completed", None, None)
    recorder.close("finished")
    run = runs(home)["000"]
    assert (run.info.status, run.data.tags["segan.epochs"]) == ("FINISHED", "2")
    kinds = [one.kind for one in read_outbox(home.sweeps / "s" / OUTBOX)]
    assert kinds.count("pause") == 1


def test_a_sweep_whose_outbox_was_lost_goes_on_from_its_runs(home: Home) -> None:
    recorder = opened(home, keep=1)
    train(recorder, home, "000", 0.5, 0.9)
    train(recorder, home, "001", 0.3, repeat_of="000")
    recorder.start_trial("002", Experiment(), {})
    recorder.log_epoch("002", 1, {METRIC: 0.2})
    recorder.suspend()
    elsewhere = home.sweeps / "elsewhere"
    again = Recorder.for_sweep(
        home, "s", CARD, METRIC, "max", SPACE, elsewhere, keep_checkpoints=1, resume=True
    )
    assert recorder.ledger.dropped == {"001"}
    for trial in ("000", "001"):
        before = replace(recorder.ledger.trials[trial], best_metrics={})
        assert again.ledger.trials[trial] == before
    assert again.unfinished == ["002"]
    again.log_epoch("002", 1, {METRIC: 0.7})
    again.end_trial("002", "completed", None, None)
    again.close("finished")
    found = runs(home)
    assert found[""].data.metrics[METRIC] == 0.9
    assert found["002"].data.metrics[METRIC] == 0.2


def test_what_was_taken_over_is_not_written_any_more(home: Home, caplog) -> None:
    taken: list[TakenOver] = []

    def check() -> None:
        if taken:
            raise taken[0]

    recorder = opened(home, check=check, keep=1)
    train(recorder, home, "000", 0.3)
    recorder.start_trial("001", Experiment(), {})
    recorder.log_epoch("001", 1, {METRIC: 0.1})
    assert recorder.uploader.finish(30) == 0
    recorder.uploader = Uploader(Outbox(recorder.uploader.path), recorder.writer.apply)
    recorder.uploader.start()
    before = content(home)

    taken.append(TakenOver("s", "there:/home"))
    recorder.log_epoch("001", 2, {METRIC: 0.9})
    # The other trial's checkpoint would be given up for this one's, here too.
    recorder.end_trial("001", "completed", None, checkpoint(home, "001"))
    for end in (recorder.suspend, lambda: recorder.close("finished"), recorder.begin):
        with pytest.raises(TakenOver):
            end()
    recorder.abandon()
    assert content(home) == before
    assert Path(checkpoint_of(home, "000")).is_dir()
    assert caplog.messages == []

    # This home knows what every other home does, and nothing of its own.
    assert not (home.sweeps / "s" / OUTBOX).exists()
    assert len(read_outbox(home.sweeps / "s" / f"{OUTBOX}.taken-over")) > 5
    assert read_sweep(home, "s").status == "running"
    recorder = opened(home, resume=True)
    assert recorder.ledger.trials["001"].epoch == 1
    recorder.close("stopped")


def test_what_waits_here_is_out_of_date_once_another_home_went_on(
    home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = opened(home)
    train(recorder, home, "000", 0.4)
    recorder.start_trial("001", Experiment(), {})
    recorder.log_epoch("001", 1, {METRIC: 0.1})
    assert recorder.uploader.finish(30) == 0
    recorder.log_epoch("001", 2, {METRIC: 0.2})
    recorder.end_trial("001", "failed", "killed", None)
    killed(recorder)
    assert read_sweep(home, "s").status == "interrupted"

    there = home.sweeps / "there"
    other = Recorder.for_sweep(home, "s", CARD, METRIC, "max", SPACE, there, resume=True)
    # Whether a process of the other home runs it is not known here.
    assert read_sweep(home, "s").status == "running"
    other.log_epoch("001", 2, {METRIC: 0.9})
    other.end_trial("001", "completed", None, None)
    other.close("finished")
    before = content(home)

    assert recorded(home, "s").status == "finished"
    assert caplog.messages == []
    again = opened(home, resume=True)
    assert "Another home has gone on with 's'" in caplog.text
    assert len(read_outbox(home.sweeps / "s" / f"{OUTBOX}.taken-over")) > 6
    assert again.ledger.trials["001"].score == 0.9
    again.close("finished")
    after = content(home)
    assert {trial: after[trial] for trial in ("000", "001")} == {
        trial: before[trial] for trial in ("000", "001")
    }

    # The other home's is by now: each goes on from what MLflow has.
    last = Recorder.for_sweep(home, "s", CARD, METRIC, "max", SPACE, there, resume=True)
    assert (there / f"{OUTBOX}.taken-over").exists()
    last.close("finished")
    assert read_sweep(home, "s").status == "finished"


def test_a_dropped_trial_that_starts_again_keeps_its_new_folder(home: Home) -> None:
    recorder = opened(home, keep=1)
    train(recorder, home, "000", 0.3)
    train(recorder, home, "001", 0.5)
    assert recorder.uploader.finish(60) == 0
    folder = home.sweeps / "s" / "checkpoints" / "000"
    assert not folder.exists()

    recorder = opened(home, keep=1, resume=True)
    recorder.start_trial("000", Experiment(), {})
    new = checkpoint(home, "000", 2)
    recorder.log_epoch("000", 2, {METRIC: 0.6})
    killed(recorder)
    # Nobody remembers what was written: all of it is written again.
    (home.sweeps / "s" / f"{OUTBOX}.acknowledged").unlink()
    recorder = opened(home, keep=1, resume=True)
    assert Path(new).is_dir()
    recorder.end_trial("000", "completed", None, new)
    recorder.close("finished")
    kept = {trial: artifacts(home, run) for trial, run in runs(home).items() if trial}
    assert kept == {"000": {"checkpoint", "overlays"}, "001": {"overlays"}}


def test_a_dead_sweep_is_ended_with_what_it_had(home: Home) -> None:
    recorder = opened(home)
    train(recorder, home, "000", 0.3)
    recorder.start_trial("001", Experiment(), {})
    recorder.log_epoch("001", 1, {METRIC: 0.5})
    save(home, "001", EpochRecord(1, {METRIC: 0.5}, BestEpoch(1, {METRIC: 0.5})))
    recorder.start_trial("002", Experiment(), {})
    killed(recorder)
    close_dead_sweep(home, "s", home.sweeps / "s")
    record = read_sweep(home, "s")
    assert record.status == "stopped"
    assert {one.trial: one.status for one in record.trials} == {
        "000": "completed", "001": "stopped", "002": "failed"
    }  # fmt: skip
    found = runs(home)
    assert {run.info.status for run in found.values()} == {"FINISHED", "FAILED"}
    assert artifacts(home, found["001"]) == {"checkpoint", "overlays"}


@pytest.mark.parametrize("scores", [(0.3, 0.5), (0.5, 0.3)])
def test_a_dead_trial_keeps_the_checkpoint_of_its_best_epoch(
    home: Home, scores: tuple[float, float]
) -> None:
    recorder = opened(home)
    recorder.start_trial("000", load_experiment(None, SMALL), {})
    best = BestEpoch(0, {METRIC: 0.0})
    for epoch, score in enumerate(scores, start=1):
        best = best.or_better(BestEpoch(epoch, {METRIC: score}), METRIC, "max")
        save(home, "000", EpochRecord(epoch, {METRIC: score}, best))
    # Killed when the second epoch was saved, and the first one's gone if the second was better.
    recorder.log_epoch("000", 1, {METRIC: scores[0]})
    killed(recorder)
    close_dead_sweep(home, "s", home.sweeps / "s")
    record = read_sweep(home, "s")
    (trial,) = record.trials
    assert (trial.status, trial.epochs, trial.score) == ("stopped", 2, 0.5)
    assert histories(home, record, METRIC)["000"] == [*enumerate(scores, start=1)]
    assert artifacts(home, runs(home)["000"]) == {"checkpoint", "overlays"}


def test_a_dead_sweep_without_outbox_is_ended_too(home: Home) -> None:
    recorder = opened(home)
    recorder.start_trial("000", Experiment(), {})
    recorder.log_epoch("000", 1, {METRIC: 0.5})
    assert recorder.uploader.finish(60) == 0
    shutil.rmtree(home.sweeps)
    close_dead_sweep(home, "s", home.sweeps / "s")
    assert {run.info.status for run in runs(home).values()} == {"FINISHED"}
    assert read_sweep(home, "s").trials[0].status == "stopped"
    with pytest.raises(SweepError, match="Nothing is recorded"):
        close_dead_sweep(home, "other", home.sweeps / "other")


def test_a_dead_sweep_with_a_damaged_outbox_is_ended_by_its_run(home: Home) -> None:
    recorder = opened(home)
    train(recorder, home, "000", 0.5)
    recorder.uploader.finish(10)
    path = home.sweeps / "s" / OUTBOX
    damaged = path.read_text().replace('"fingerprint"', '"fingerprinu"')
    path.write_text(damaged)
    close_dead_sweep(home, "s", home.sweeps / "s")
    assert {run.info.status for run in runs(home).values()} == {"FINISHED"}
    assert read_sweep(home, "s").status == "stopped"


def test_a_sweep_that_another_process_records_is_neither_deleted_nor_ended(home: Home) -> None:
    recorder = opened(home)
    lock_of(recorder.uploader.path).write_text("process 17 on elsewhere")
    for end in (
        lambda: delete_sweep(home, "s"),
        lambda: close_dead_sweep(home, "s", home.sweeps / "s"),
    ):
        with pytest.raises(TrackingError, match="process 17 on elsewhere is recording"):
            end()
    recorder.close("finished")


def test_an_earlier_sweeps_records_are_not_mixed_with_new_ones(home: Home) -> None:
    opened(home).close("finished")
    with pytest.raises(TrackingError, match="earlier sweep"):
        opened(home)


def test_a_store_that_cannot_be_reached_is_said_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    home = Home.at(tmp_path / "home")
    with pytest.raises(TrackingError, match="cannot be used"):
        opened(home)
    assert not home.sweeps.exists()


def test_two_runs_of_one_trial_become_one(home: Home) -> None:
    """A server that was slow may make a run twice: once for the request that was given up."""
    recorder = opened(home)
    recorder.start_trial("000", Experiment(), {})
    recorder.log_epoch("000", 1, {METRIC: 0.2})
    assert recorder.uploader.finish(60) == 0
    mine = recorder.run_id("000")
    recorder.writer.runs.create("000", read_outbox(recorder.uploader.path)[1])
    recorder = opened(home, resume=True)
    assert recorder.run_id("000") == mine
    recorder.start_trial("000", Experiment(), {})
    recorder.end_trial("000", "completed", None, None)
    recorder.close("finished")
    assert runs(home)["000"].info.run_id == mine


def test_deleting_a_sweep_leaves_what_the_registry_stands_on(home: Home) -> None:
    recorder = opened(home)
    train(recorder, home, "000", 0.3)
    train(recorder, home, "001", 0.5)
    recorder.close("finished")
    client = connect(home)
    found = runs(home)
    move_alias(client, "champion", bare_version(client, found["001"].info.run_id))
    deleted = delete_sweep(home, "s")
    assert (deleted.runs, deleted.folder) == (2, True)
    (kept,) = deleted.kept
    assert (kept.trial, kept.version, kept.aliases) == ("001", "1", ("champion",))
    assert not (home.sweeps / "s").exists()
    assert set(runs(home)) == {"001"}
    assert artifacts(home, found["001"]) == {"checkpoint", "overlays"}
    assert artifacts(home, found["000"]) == set()
    assert delete_sweep(home, "s").runs == 0
    with pytest.raises(SweepError, match="No sweep is called 'other'"):
        delete_sweep(home, "other")


@pytest.mark.parametrize("elsewhere", ["../../../precious", ".", ""])
def test_a_changed_run_gives_up_no_folder_but_a_trial_s(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: str
) -> None:
    """Whoever may write to a shared MLflow could have had any folder removed."""
    monkeypatch.setenv("SEGAN_RAY_STORAGE", f"file://{tmp_path}/storage")
    precious = [tmp_path / "precious", tmp_path / "storage/s/checkpoints/000"]
    for folder in precious:
        folder.mkdir(parents=True)
        (folder / "kept").touch()
    recorder = opened(home, keep=1)
    train(recorder, home, "000", 0.5)
    recorder.suspend()
    client = connect(home)
    tags = {
        "kind": "trial", "sweep": "s", "trial": elsewhere, "status": "completed", "epochs": "1",
        "score": "0.1", "params": "{}",
    }  # fmt: skip
    changed = client.create_run(
        experiment_id(client, home), tags={f"segan.{name}": value for name, value in tags.items()}
    )
    with pytest.raises(
        TrackingError, match=f"it is trial '{elsewhere}'; expected a number"
    ) as said:
        train(opened(home, keep=1, resume=True), home, "001", 0.6)
    assert changed.info.run_id in str(said.value)
    assert all((folder / "kept").exists() for folder in precious)


def test_a_changed_run_is_deleted_with_nothing_but_its_artifacts(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = opened(home, keep=1)
    train(recorder, home, "000", 0.3)
    assert recorder.uploader.finish(60) == 0
    precious = home.folder / "precious" / "checkpoint"
    precious.mkdir(parents=True)
    (precious / "kept").touch()
    with sqlite3.connect(home.tracking_database) as database:
        database.execute(
            "UPDATE runs SET artifact_uri = ? WHERE name = 's-000'", (precious.parent.as_uri(),)
        )
    with caplog.at_level(logging.WARNING):
        recorder = opened(home, keep=1, resume=True)
        train(recorder, home, "001", 0.5)
        recorder.close("finished")
    assert "(drop of trial 000) and it is left out" in caplog.text
    with pytest.raises(TrackingError, match=r"at file:///.*/precious, outside this home"):
        delete_sweep(home, "s")
    assert (precious / "kept").exists()


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_no_file_of_elsewhere_is_uploaded_with_a_checkpoint(
    home: Home, tmp_path: Path, scheme: str
) -> None:
    """On a shared disk others may put links among its files; MLflow shows them to everybody."""
    (tmp_path / "secret").write_text("secret")
    folder = checkpoint(home, "000")
    Path(folder, "report.json").write_text(
        '{"epoch": 1, "metrics": {}, "best": {"epoch": 1, "metrics": {}}}'
    )
    Path(folder, "notes.txt").symlink_to(tmp_path / "secret")
    Path(folder, "odd.png").symlink_to(tmp_path / "secret")
    recorder = opened(home)
    recorder.start_trial("000", Experiment(), {})
    recorder.log_epoch("000", 1, {METRIC: 0.5})
    recorder.end_trial("000", "completed", None, f"{scheme}{folder}")
    recorder.close("finished")
    run = runs(home)["000"].info.run_id
    client = connect(home)
    logged = {
        item.path.partition("/")[2]
        for where in ("checkpoint", "overlays")
        for item in client.list_artifacts(run, where)
    }
    assert logged == {"report.json", "segmentor.safetensors", "state.json", "validation.png"}


def test_an_open_reader_does_not_stop_a_write(home: Home) -> None:
    recorder = opened(home)
    reader = sqlite3.connect(home.tracking_database, isolation_level=None)
    reader.execute("BEGIN")
    before = reader.execute("SELECT count(*) FROM metrics").fetchone()
    recorder.start_trial("000", Experiment(), {})
    recorder.log_epoch("000", 1, {METRIC: 0.2})
    recorder.close("finished")
    assert reader.execute("SELECT count(*) FROM metrics").fetchone() == before
    reader.execute("COMMIT")
    assert reader.execute("SELECT count(*) FROM metrics").fetchone() == (2,)
    reader.close()


def test_a_sqlite_file_is_made_whole_in_a_mode_that_lets_readers_be(tmp_path: Path) -> None:
    path = tmp_path / "optuna.db"

    def make(file: Path) -> None:
        with contextlib.closing(sqlite3.connect(file)) as database:
            database.execute("CREATE TABLE kept (x)")

    def fail(file: Path) -> None:
        make(file)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_sqlite(path, fail)
    assert list(tmp_path.iterdir()) == []
    make_sqlite(path, make)
    assert list(tmp_path.iterdir()) == [path]
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("SELECT count(*) FROM kept").fetchone() == (0,)


@pytest.mark.parametrize("statement", ["CREATE TABLE datasets (x)", "PRAGMA journal_mode = WAL"])
def test_half_of_an_empty_database_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = Home.at(tmp_path)
    with contextlib.closing(sqlite3.connect(home.tracking_database)) as database:
        database.execute(statement)
    experiment_id(connect(home), home)
    with contextlib.closing(sqlite3.connect(home.tracking_database)) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (0,)


def test_half_of_a_database_with_records_is_left(home: Home) -> None:
    connect(home)
    with contextlib.closing(sqlite3.connect(home.tracking_database)) as database, database:
        database.execute("INSERT INTO runs (run_uuid) VALUES ('one')")
        database.execute("DROP TABLE webhook_events")
    make_database(home)
    with contextlib.closing(sqlite3.connect(home.tracking_database)) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (1,)


@pytest.mark.slow
def test_two_processes_make_one_home_at_once(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    code = (
        "import sys; from segan_ray.home import Home; from pathlib import Path;"
        "from segan_ray.tracking.client.connection import connect, experiment_id;"
        "home = Home.at(Path(sys.argv[1])); sys.stdin.readline();"
        "print(experiment_id(connect(home), home))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "home")]
    makers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("go\n")
        maker.stdin.flush()
    answers = [maker.communicate(timeout=300)[0].strip() for maker in makers]
    assert [maker.returncode for maker in makers] == [0, 0, 0]
    assert len(set(answers)) == 1


def test_an_experiment_that_another_process_just_made_is_read(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(home)
    made = experiment_id(client, home)
    real, asked = MlflowClient.get_experiment_by_name, []

    def not_there_yet(self: MlflowClient, name: str):
        asked.append(name)
        return None if len(asked) == 1 else real(self, name)

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", not_there_yet)
    assert experiment_id(client, home) == made


def test_two_sweeps_write_to_one_database_at_once(home: Home) -> None:
    recorders = [
        Recorder.for_sweep(home, name, CARD, METRIC, "max", SPACE, home.sweeps / name)
        for name in ("a", "b")
    ]
    for trial in ("000", "001"):
        for recorder in recorders:
            recorder.start_trial(trial, Experiment(), {})
        for epoch in range(1, 21):
            for recorder in recorders:
                recorder.log_epoch(trial, epoch, {METRIC: epoch / 100})
        for recorder in recorders:
            recorder.end_trial(trial, "completed", None, None)
    for recorder in recorders:
        recorder.close("finished")
    for name in ("a", "b"):
        record = read_sweep(home, name)
        for points in histories(home, record, METRIC).values():
            assert [step for step, _ in points] == list(range(1, 21))


def test_a_deleted_experiment_is_not_one_without_sweeps(home: Home) -> None:
    opened(home).close("finished")
    client = connect(home)
    deleted = experiment_id(client, home)
    client.delete_experiment(deleted)
    again = rf"MLFLOW_TRACKING_URI=\S+ mlflow experiments restore --experiment-id {deleted}"
    for act in (list_sweeps, recorded_names, lambda at: experiment_id(connect(at), at)):
        with pytest.raises(TrackingError, match=again):
            act(home)
    client.restore_experiment(deleted)
    assert [sweep.sweep for sweep in list_sweeps(home)] == ["s"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["50%41", "who?", "a #1 {b}", "ä ö"])
def test_a_home_may_have_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    home = Home.at(tmp_path / name)
    recorder = opened(home)
    train(recorder, home, "000", 0.5)
    recorder.close("finished")
    open_storage(home)
    assert (home.studies.is_file(), home.tracking_database.is_file()) == (True, True)
    assert [one.trial for one in read_sweep(home, "s").trials] == ["000"]
    assert read_space(home, "s") == SPACE
    assert artifacts(home, runs(home)["000"]) == {"checkpoint", "overlays"}
    delete_sweep(home, "s")
    assert [path.name for path in home.artifacts.rglob("*") if path.is_file()] == []
    assert [path.name for path in tmp_path.iterdir()] == [name]


def files_below(home: Home) -> set[str]:
    return {str(path.relative_to(home.artifacts)) for path in home.artifacts.rglob("*")}


def test_what_is_deleted_of_a_copied_home_stays_in_the_original(home: Home, tmp_path: Path) -> None:
    recorder = opened(home)
    train(recorder, home, "000", 0.5)
    recorder.close("finished")
    before = files_below(home)
    copy = Home.at(tmp_path / "a copy %41")
    shutil.copytree(home.folder, copy.folder)
    assert read_space(copy, "s") == SPACE
    assert delete_sweep(copy, "s").runs == 2
    assert files_below(home) == before
    assert [path.name for path in copy.artifacts.rglob("*") if path.is_file()] == []
    assert read_space(home, "s") == SPACE


def test_a_moved_home_goes_on_where_it_is(home: Home, tmp_path: Path) -> None:
    recorder = opened(home)
    train(recorder, home, "000", 0.5)
    recorder.start_trial("001", Experiment(), {})
    recorder.uploader.finish(10)
    killed(recorder)
    recorder.end_trial("001", "completed", None, checkpoint(home, "001"))
    moved = Home.at(tmp_path / "moved")
    home.folder.rename(moved.folder)
    assert store_location(moved, "s") == CARD.path
    recorder = opened(moved, resume=True)
    train(recorder, moved, "002", 0.7)
    recorder.close("finished")
    assert not home.folder.exists()
    found = runs(moved)
    assert [artifacts(moved, found[trial]) for trial in ("000", "001", "002")] == [
        {"checkpoint", "overlays"}
    ] * 3
    here = moved.artifacts.as_uri()
    assert all(str(run.info.artifact_uri).startswith(f"{here}/") for run in found.values())


def test_a_store_in_a_moved_home_is_found_there(home: Home, tmp_path: Path) -> None:
    card = StoreCard(str(home.folder / "demo" / "store"), "fingerprint", {"train": 8})
    Recorder.for_sweep(home, "s", card, METRIC, "max", SPACE, home.sweeps / "s").close("finished")
    home.folder.rename(tmp_path / "moved")
    assert store_location(Home.at(tmp_path / "moved"), "s") == str(tmp_path / "moved/demo/store")


def test_a_record_that_names_another_folder_deletes_nothing_there(
    home: Home, tmp_path: Path
) -> None:
    recorder = opened(home)
    train(recorder, home, "000", 0.5)
    recorder.close("finished")
    run = runs(home)["000"].info.run_id
    others = tmp_path / "others" / run / "artifacts"
    others.mkdir(parents=True)
    (others / "precious").touch()
    with contextlib.closing(sqlite3.connect(home.tracking_database)) as database, database:
        database.execute(
            "UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", (others.as_uri(), run)
        )
    with pytest.raises(TrackingError, match="outside this home"):
        delete_sweep(home, "s")
    assert (others / "precious").exists()


def test_a_moved_home_is_followed_though_a_lock_of_it_is_a_link(home: Home, tmp_path: Path) -> None:
    recorder = opened(home)
    train(recorder, home, "000", 0.5)
    recorder.close("finished")
    moved = Home.at(home.folder.rename(tmp_path / "moved"))
    lock = lock_of(moved.sweeps / "s" / OUTBOX)
    lock.unlink(missing_ok=True)
    lock.symlink_to("elsewhere")
    assert artifacts(moved, runs(moved)["000"]) == {"checkpoint", "overlays"}
