"""The checkpoints that a trial keeps, also after a killed process or a full disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from segan_ray.config import Experiment, load_experiment
from segan_ray.errors import CheckpointError
from segan_ray.training.checkpoints import trial_folder
from segan_ray.training.checkpoints.checkpoint import (
    check_whole,
    load_segmentor,
    restore,
    save_checkpoint,
)
from segan_ray.training.checkpoints.trial_folder import (
    OVERLAY,
    REPORT,
    TrialFolder,
    go_back,
    read_report,
)
from segan_ray.training.epoch_record import BestEpoch, EpochRecord
from segan_ray.training.state import TrainingState, new_state
from tests.unit.stored import ORIGIN

METRIC = "val/dice_mean"
EXPERIMENT = load_experiment(
    None,
    [
        "segmentor.base_width=2", "segmentor.depth=2", "critic.base_width=2", "critic.depth=1",
        "variant=s1-3c",
    ],
)  # fmt: skip


@pytest.fixture(scope="module")
def state() -> TrainingState:
    return stepped(EXPERIMENT)


def stepped(experiment: Experiment) -> TrainingState:
    """Return networks whose optimizers have taken a step, so that they have a state to save."""
    state = new_state(experiment, torch.device("cpu"))
    for network, optimizer in (
        (state.segmentor, state.segmentor_optimizer),
        (state.critic, state.critic_optimizer),
    ):
        for parameter in network.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
    return state


def best_of(scores: list[float], mode: str) -> BestEpoch:
    best = BestEpoch(1, {METRIC: scores[0]})
    for epoch, score in enumerate(scores[1:], start=2):
        best = best.or_better(BestEpoch(epoch, {METRIC: score}), METRIC, mode)
    return best


def train(
    folder: TrialFolder, state: TrainingState, scores: list[float], mode: str = "max"
) -> None:
    for epoch in range(1, len(scores) + 1):
        save(folder, state, epoch, scores[:epoch], mode)


def save(
    folder: TrialFolder, state: TrainingState, epoch: int, scores: list[float], mode: str = "max"
) -> Path:
    state.epoch = epoch
    report = EpochRecord(epoch, {METRIC: scores[epoch - 1]}, best_of(scores[:epoch], mode))
    folder.save(state, EXPERIMENT, ORIGIN, report, None)
    return folder.of_epoch(epoch)


def left(folder: TrialFolder) -> list[str]:
    return sorted(path.name for path in folder.path.iterdir())


SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=5)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(scores=SCORES, mode=st.sampled_from(["max", "min"]))
def test_the_best_and_the_last_are_kept(tmp_path: Path, state, scores, mode) -> None:
    folder = TrialFolder(tmp_path / "000")
    shutil.rmtree(folder.path, ignore_errors=True)
    train(folder, state, scores, mode)
    pick = max if mode == "max" else min
    # The later of equals.
    best = max(epoch for epoch, score in enumerate(scores, 1) if score == pick(scores))
    assert left(folder) == [f"epoch-{epoch:04d}" for epoch in sorted({best, len(scores)})]
    last = folder.last()
    assert last == folder.of_epoch(len(scores))
    assert read_report(last) == EpochRecord(
        len(scores), {METRIC: scores[-1]}, BestEpoch(best, {METRIC: scores[best - 1]})
    )


def test_a_trial_goes_on_from_its_checkpoint(tmp_path: Path, state: TrainingState) -> None:
    assert TrialFolder(tmp_path / "none").last() is None
    folder = TrialFolder(tmp_path / "000")
    train(folder, state, [0.5, 0.4])
    other = new_state(EXPERIMENT.model_copy(update={"seed": 9}), torch.device("cpu"))
    restore(folder.last(), other)
    assert other.epoch == 2
    for name, tensor in state.segmentor.state_dict().items():
        assert torch.equal(tensor, other.segmentor.state_dict()[name])


def test_a_picture_is_kept_beside_its_epoch(tmp_path: Path, state: TrainingState) -> None:
    folder = TrialFolder(tmp_path / "000")
    report = EpochRecord(1, {METRIC: 0.5}, BestEpoch(1, {METRIC: 0.5}))
    folder.save(state, EXPERIMENT, ORIGIN, report, Image.new("RGB", (4, 4)))
    assert Image.open(folder.of_epoch(1) / OVERLAY).size == (4, 4)


def test_partial_folders_are_ignored_and_swept(tmp_path: Path, state: TrainingState) -> None:
    folder = TrialFolder(tmp_path / "000")
    train(folder, state, [0.5, 0.4])
    for partial in (".epoch-0003.17", ".epoch-0002.18"):
        shutil.copytree(folder.of_epoch(2), folder.path / partial)
    assert folder.last() == folder.of_epoch(2)
    save(folder, state, 3, [0.5, 0.4, 0.3])
    assert left(folder) == ["epoch-0001", "epoch-0003"]


@pytest.mark.parametrize("file", ["state.json", REPORT])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text('{"epoch": 2')])
def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path, state, file: str, damage) -> None:
    folder = TrialFolder(tmp_path / "000")
    train(folder, state, [0.5, 0.4])
    damage(folder.of_epoch(2) / file)
    assert folder.last() == folder.of_epoch(1)
    # Trained and saved again, the epoch replaces the damaged checkpoint.
    save(folder, state, 2, [0.5, 0.4])
    assert folder.last() == folder.of_epoch(2)
    damage(folder.of_epoch(1) / file)
    damage(folder.of_epoch(2) / file)
    assert folder.last() is None


@pytest.mark.parametrize("file", ["segmentor", "critic", "optimizers"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: os.truncate(path, 999)])
def test_a_newest_checkpoint_without_weights_is_passed_over(
    tmp_path, state, file: str, damage
) -> None:
    folder = TrialFolder(tmp_path / "000")
    train(folder, state, [0.5, 0.4])
    damage(folder.of_epoch(2) / f"{file}.safetensors")
    assert folder.last() == folder.of_epoch(1)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 2 // 3] ^= 4
    path.write_bytes(content)


def of_another_network(path: Path) -> None:
    other = load_experiment(None, ["segmentor.base_width=3", "segmentor.depth=3"])
    save_checkpoint(path.parent / "other", stepped(other), other)
    os.replace(path.parent / "other" / path.name, path)


def without_checksums(folder: Path) -> None:
    """Remove the checksums of a checkpoint, which older checkpoints lack."""
    content = json.loads((folder / "state.json").read_text())
    del content["checksums"]
    (folder / "state.json").write_text(json.dumps(content))


FILES = ["state.json", *(f"{name}.safetensors" for name in ("segmentor", "critic", "optimizers"))]
DAMAGES = [flip_a_bit, lambda path: os.truncate(path, 0), Path.unlink, of_another_network]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGES, ids=["bit", "empty", "missing", "other"])
def test_training_goes_on_from_before_a_damaged_checkpoint_and_says_so(
    tmp_path: Path, state, file: str, damage
) -> None:
    folder = TrialFolder(tmp_path / "000")
    train(folder, state, [0.5, 0.4])
    damage(folder.of_epoch(2) / file)
    ours = new_state(EXPERIMENT, torch.device("cpu"))
    last, warning = go_back(folder.newest_first(), ours)
    assert (last, ours.epoch) == (folder.of_epoch(1), 1)
    assert warning.startswith("goes on from the checkpoint of epoch 1: ")
    assert str(folder.of_epoch(2)) in warning
    assert "\n" not in warning
    assert folder.last() == folder.of_epoch(1)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", DAMAGES[1:], ids=["empty", "missing", "other"])
def test_a_damaged_checkpoint_without_checksums_is_passed_over_too(
    tmp_path: Path, state, file: str, damage
) -> None:
    folder = TrialFolder(tmp_path / "000")
    train(folder, state, [0.5, 0.4])
    for epoch in (1, 2):
        without_checksums(folder.of_epoch(epoch))
    damage(folder.of_epoch(2) / file)
    last, warning = go_back(folder.newest_first(), new_state(EXPERIMENT, torch.device("cpu")))
    assert last == folder.of_epoch(1)
    assert "goes on from the checkpoint of epoch 1" in warning


def test_a_checkpoint_without_checksums_is_read(tmp_path: Path, state) -> None:
    folder = TrialFolder(tmp_path / "000")
    train(folder, state, [0.5])
    without_checksums(folder.of_epoch(1))
    ours = new_state(EXPERIMENT, torch.device("cpu"))
    assert go_back(folder.newest_first(), ours) == (folder.of_epoch(1), None)
    load_segmentor(folder.of_epoch(1))


def test_where_no_checkpoint_is_sound_training_begins_anew(tmp_path: Path, state) -> None:
    folder = TrialFolder(tmp_path / "000")
    train(folder, state, [0.5, 0.4])
    for epoch in (1, 2):
        flip_a_bit(folder.of_epoch(epoch) / "optimizers.safetensors")
    ours, fresh = (new_state(EXPERIMENT, torch.device("cpu")) for _ in range(2))
    last, warning = go_back(folder.newest_first(), ours)
    assert (last, ours.epoch) == (None, 0)
    assert "goes on from the beginning" in warning
    assert "1 more cannot be used" in warning
    for name, tensor in fresh.segmentor.state_dict().items():
        assert torch.equal(tensor, ours.segmentor.state_dict()[name])


def test_a_source_trial_gives_its_last_sound_checkpoint(tmp_path: Path, state) -> None:
    source, trial = TrialFolder(tmp_path / "001"), TrialFolder(tmp_path / "000")
    train(trial, state, [0.1])
    train(source, state, [0.5, 0.4])
    flip_a_bit(source.of_epoch(2) / "critic.safetensors")
    taken = Path(trial.take(source, 1))
    assert json.loads((taken / REPORT).read_text())["epoch"] == 1


def test_weights_with_a_changed_bit_are_not_used(tmp_path: Path, state) -> None:
    folder = save(TrialFolder(tmp_path), state, 1, [0.5])
    load_segmentor(folder)
    flip_a_bit(folder / "segmentor.safetensors")
    with pytest.raises(CheckpointError, match=r"segmentor\.safetensors: was changed after"):
        load_segmentor(folder)


def test_a_checkpoint_names_no_file_of_another_folder(tmp_path: Path, state) -> None:
    folder = TrialFolder(tmp_path / "000")
    train(folder, state, [0.5, 0.4])
    last = folder.of_epoch(2)
    shutil.copy(last / "critic.safetensors", tmp_path / "elsewhere.safetensors")
    content = json.loads((last / "state.json").read_text())
    del content["checksums"]  # they would be wrong now
    content["optimizers"]["../../elsewhere"] = []
    (last / "state.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"an optimizer of '\.\./\.\./elsewhere'; expected"):
        check_whole(last)
    assert folder.last() == folder.of_epoch(1)


def test_a_checkpoint_without_a_critic_is_whole(tmp_path: Path) -> None:
    unet = load_experiment(None, ["variant=unet", "segmentor.base_width=2", "segmentor.depth=2"])
    report = EpochRecord(1, {METRIC: 0.5}, BestEpoch(1, {METRIC: 0.5}))
    folder = TrialFolder(tmp_path)
    folder.save(new_state(unet, torch.device("cpu")), unet, ORIGIN, report, None)
    assert folder.last() == folder.of_epoch(1)


@pytest.mark.parametrize(
    "content",
    [None, "", "[]", "{}", '{"epoch": 1, "metrics": {}}', '{"epoch": 1, "metrics": {}, "best": 3}'],
)
def test_a_report_that_cannot_be_read(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / REPORT).write_text(content)
    with pytest.raises(CheckpointError, match=r"report\.json: cannot be read"):
        read_report(tmp_path)


def test_numbers_survive_exactly(tmp_path: Path, state: TrainingState) -> None:
    value = 0.1 + 0.2
    report = EpochRecord(1, {METRIC: value}, BestEpoch(1, {METRIC: value}))
    folder = TrialFolder(tmp_path)
    folder.save(state, EXPERIMENT, ORIGIN, report, None)
    assert folder.last_report() == report


@pytest.mark.parametrize("where", ["save_checkpoint", "sync_path"])
def test_a_full_disk_leaves_earlier_checkpoints(tmp_path, state, monkeypatch, where: str) -> None:
    folder = TrialFolder(tmp_path / "000")
    train(folder, state, [0.5, 0.4])
    real = getattr(trial_folder, where)

    def full(path: Path, *arguments: object) -> None:
        real(path, *arguments)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(trial_folder, where, full)
        with pytest.raises(OSError, match="No space left"):
            save(folder, state, 3, [0.5, 0.4, 0.9])
    assert left(folder) == ["epoch-0001", "epoch-0002"]
    assert folder.last() == folder.of_epoch(2)


def test_a_source_trials_checkpoint_is_linked_and_outlives_the_trial(tmp_path: Path, state) -> None:
    source, trial = TrialFolder(tmp_path / "001"), TrialFolder(tmp_path / "000")
    train(trial, state, [0.1, 0.2])
    assert trial.take(source, 2) is None
    train(source, state, [0.5, 0.4])
    taken = Path(trial.take(source, 2))
    weights = "segmentor.safetensors"
    assert (taken / weights).samefile(source.of_epoch(2) / weights)
    shutil.rmtree(source.path)
    restore(taken, state)
    # A restarted process takes again, and gets the same though the source trial went on since.
    train(source, state, [0.5, 0.6, 0.7])
    assert trial.take(source, 2) == str(taken)
    assert json.loads((taken / REPORT).read_text())["epoch"] == 2
    # It is not the trial's own checkpoint, and the next own checkpoint removes it.
    assert trial.last() == trial.of_epoch(2)
    save(trial, state, 3, [0.1, 0.2, 0.3])
    assert left(trial) == ["epoch-0003"]


def test_taking_copies_where_links_cannot_be_made(tmp_path, state, monkeypatch) -> None:
    source, trial = TrialFolder(tmp_path / "001"), TrialFolder(tmp_path / "000")
    train(source, state, [0.5])
    train(trial, state, [0.1])

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    taken = Path(trial.take(source, 1))
    wanted = {path.name for path in source.of_epoch(1).iterdir()}
    assert {path.name for path in taken.iterdir()} == wanted


def test_a_source_trial_without_checkpoints_for_a_trial_without_a_folder(
    tmp_path: Path, state
) -> None:
    source, trial = TrialFolder(tmp_path / "001"), TrialFolder(tmp_path / "000")
    assert trial.take(source, 3) is None
    train(source, state, [0.5])
    assert trial.take(source, 3) is not None


def test_experiments_are_in_their_checkpoints(tmp_path: Path, state: TrainingState) -> None:
    saved = save(TrialFolder(tmp_path), state, 1, [0.5])
    tree = json.loads((saved / "state.json").read_text())["experiment"]
    assert Experiment.model_validate(tree) == EXPERIMENT
