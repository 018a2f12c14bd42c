"""Checkpoints at a URL: which are kept, which are whole, and a store that does not answer."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from segan_ray.errors import CheckpointError
from segan_ray.training.checkpoints import remote_folder
from segan_ray.training.checkpoints.checkpoint import restore
from segan_ray.training.checkpoints.remote_folder import (
    RemoteFolder,
    anything_at,
    bytes_at,
    copied_near,
    remove_all,
    trial_checkpoints,
)
from segan_ray.training.checkpoints.trial_folder import REPORT, TrialFolder
from segan_ray.training.epoch_record import EpochRecord
from segan_ray.training.state import TrainingState, new_state
from tests.unit.stored import ORIGIN
from tests.unit.training.test_trial_folder import EXPERIMENT, METRIC, best_of

WEIGHTS = "segmentor.safetensors"


@pytest.fixture(scope="module")
def state() -> TrainingState:
    return new_state(EXPERIMENT, torch.device("cpu"))


@pytest.fixture(params=["memory", "file"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A URL with nothing at it yet."""
    if request.param == "file":
        yield f"file://{tmp_path}/storage"
        return
    url = f"memory://storage-{uuid.uuid4().hex}"
    yield url
    remove_all(url)


@pytest.fixture
def folder(location: str, tmp_path: Path) -> RemoteFolder:
    return RemoteFolder(f"{location}/000", tmp_path / "near")


def save(folder: RemoteFolder, state: TrainingState, epoch: int, scores: list[float]) -> None:
    state.epoch = epoch
    report = EpochRecord(epoch, {METRIC: scores[epoch - 1]}, best_of(scores[:epoch], "max"))
    folder.save(state, EXPERIMENT, ORIGIN, report, None)


def train(folder: RemoteFolder, state: TrainingState, scores: list[float]) -> None:
    for epoch in range(1, len(scores) + 1):
        save(folder, state, epoch, scores)


def names(url: str) -> list[str]:
    system, path = fsspec.url_to_fs(url)
    return sorted({file[len(path) :].strip("/").split("/")[0] for file in system.find(path)})


def remove(url: str) -> None:
    system, path = fsspec.url_to_fs(url)
    system.rm_file(path)


def cut_short(url: str) -> None:
    system, path = fsspec.url_to_fs(url)
    system.pipe_file(path, system.cat_file(path)[:99])


def test_the_location_decides_the_kind_of_checkpoints(tmp_path: Path) -> None:
    assert trial_checkpoints(str(tmp_path), tmp_path) == TrialFolder(tmp_path)
    assert trial_checkpoints("s3://bucket/000", tmp_path).url == "s3://bucket/000"


@pytest.mark.parametrize(
    ("scores", "kept"),
    [
        ([0.5], [1]), ([0.5, 0.4], [1, 2]), ([0.5, 0.5], [2]), ([0.4, 0.5, 0.3, 0.2], [2, 4]),
        ([0.4, 0.5, 0.6], [3]),
    ],
)  # fmt: skip
def test_the_best_and_the_last_are_kept(folder, state, scores, kept: list[int]) -> None:
    train(folder, state, scores)
    assert names(folder.url) == [f"epoch-{epoch:04d}" for epoch in kept]
    report = folder.last_report()
    assert (report.epoch, report.best) == (len(scores), best_of(scores, "max"))
    assert folder.kept(kept[0]) == f"{folder.url}/epoch-{kept[0]:04d}"
    assert folder.kept(99) is None
    # Only the fetched copies stay on this disk.
    assert list(folder.near.iterdir()) == []


def test_a_trial_goes_on_from_its_checkpoint(folder, state: TrainingState) -> None:
    assert folder.last() is None
    assert folder.last_report() is None
    train(folder, state, [0.5, 0.4])
    other = new_state(EXPERIMENT.model_copy(update={"seed": 9}), torch.device("cpu"))
    restore(folder.last(), other)
    assert other.epoch == 2
    for name, tensor in state.segmentor.state_dict().items():
        assert torch.equal(tensor, other.segmentor.state_dict()[name])


@pytest.mark.parametrize("file", [WEIGHTS, "critic.safetensors", "state.json", REPORT])
@pytest.mark.parametrize("damage", [remove, cut_short])
def test_a_damaged_newest_checkpoint_is_passed_over(
    folder, state, file: str, damage: Callable
) -> None:
    train(folder, state, [0.5, 0.4])
    damage(f"{folder.url}/epoch-0002/{file}")
    last = folder.last()
    assert last is not None
    assert last.name == "epoch-0001"
    # Trained and saved again, the epoch replaces the damaged checkpoint.
    save(folder, state, 2, [0.5, 0.4])
    assert folder.last().name == "epoch-0002"


def test_an_interrupted_upload_is_not_whole(folder, state, monkeypatch) -> None:
    train(folder, state, [0.5, 0.4])
    with monkeypatch.context() as patch:
        patch.setattr(remote_folder, "PATIENCE_S", 0.0)
        patch.setattr(type(fsspec.url_to_fs(folder.url)[0]), "put_file", breaking_at(f"/{REPORT}"))
        with pytest.raises(CheckpointError, match="epoch-0003: cannot be written"):
            save(folder, state, 3, [0.5, 0.4, 0.6])
    assert names(folder.url) == ["epoch-0001", "epoch-0002", "epoch-0003"]
    assert folder.last_report().epoch == 2
    assert folder.last().name == "epoch-0002"
    assert folder.kept(3) is None


def breaking_at(end: str) -> Callable:
    real = fsspec.AbstractFileSystem.put_file

    def put_file(self: Any, source: str, target: str, *arguments: Any, **more: Any) -> None:
        if target.endswith(end):
            raise ConnectionError("the store went away")
        real(self, source, target, *arguments, **more)

    return put_file


def test_requests_are_repeated_while_a_store_is_away_for_a_moment(
    folder, state, monkeypatch
) -> None:
    answers = iter([ConnectionError("down"), TimeoutError("slow")])
    real = fsspec.AbstractFileSystem.put

    def put(self: Any, *arguments: Any, **more: Any) -> None:
        error = next(answers, None)
        if error is not None:
            raise error
        real(self, *arguments, **more)

    waited: list[float] = []
    monkeypatch.setattr(remote_folder.time, "sleep", waited.append)
    monkeypatch.setattr(fsspec.AbstractFileSystem, "put", put)
    monkeypatch.setattr(type(fsspec.url_to_fs(folder.url)[0]), "put", put)
    train(folder, state, [0.5])
    assert waited == [0.5, 1.0]
    assert folder.last_report().epoch == 1


@pytest.mark.parametrize("error", [PermissionError("denied"), ConnectionError("down")])
def test_a_store_that_stays_away_is_never_taken_for_an_empty_one(
    folder, state, monkeypatch, error: Exception
) -> None:
    train(folder, state, [0.5])
    monkeypatch.setattr(remote_folder, "PATIENCE_S", 0.0)

    def ls(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(type(fsspec.url_to_fs(folder.url)[0]), "ls", ls)
    with pytest.raises(CheckpointError, match=r"cannot be read.*SEGAN_RAY_STORAGE") as caught:
        folder.last()
    assert str(error) in str(caught.value)


def test_a_process_taken_for_lost_removes_nothing(folder, state: TrainingState) -> None:
    train(folder, state, [0.1, 0.2, 0.3, 0.4])
    save(folder, state, 2, [0.1, 0.2])
    assert folder.last_report().epoch == 4


def test_a_copy_of_a_source_trials_checkpoint_outlives_the_trial(
    location: str, tmp_path: Path, state
) -> None:
    source, trial = (
        RemoteFolder(f"{location}/{name}", tmp_path / "near") for name in ("001", "000")
    )
    train(trial, state, [0.1, 0.2])
    assert trial.take(source, 2) is None
    train(source, state, [0.5, 0.4])
    taken = trial.take(source, 2)
    remove_all(source.url)
    copy = copied_near(taken, tmp_path / "near")
    restore(copy, state)
    assert state.epoch == 2
    # A restarted process takes again, and gets the same though the source trial went on since.
    train(source, state, [0.5, 0.6, 0.7])
    assert trial.take(source, 2) == taken
    # It is not the trial's own checkpoint, and the next own checkpoint removes it.
    assert trial.last_report().epoch == 2
    save(trial, state, 3, [0.1, 0.2, 0.3])
    assert names(trial.url) == ["epoch-0003"]


@pytest.mark.parametrize("damage", [cut_short, remove])
@pytest.mark.parametrize("file", ["segmentor.safetensors", "state.json", "report.json"])
def test_the_last_sound_checkpoint_of_a_source_trial_is_taken(
    location: str, tmp_path: Path, state, damage, file: str
) -> None:
    source, trial = (
        RemoteFolder(f"{location}/{name}", tmp_path / "near") for name in ("001", "000")
    )
    train(source, state, [0.5, 0.4])
    damage(f"{source.url}/epoch-0002/{file}")
    assert not (tmp_path / "near").exists() or not list((tmp_path / "near").iterdir())
    restore(copied_near(trial.take(source, 2), tmp_path / "near"), state)
    assert state.epoch == 1


def test_nothing_is_taken_of_a_source_trial_without_a_sound_checkpoint(
    location: str, tmp_path: Path, state
) -> None:
    source, trial = (
        RemoteFolder(f"{location}/{name}", tmp_path / "near") for name in ("001", "000")
    )
    train(source, state, [0.5])
    cut_short(f"{source.url}/epoch-0001/segmentor.safetensors")
    assert trial.take(source, 2) is None
    assert names(trial.url) == []


def test_a_missing_checkpoint(location: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"epoch-0007: no checkpoint"):
        copied_near(f"{location}/000/epoch-0007", tmp_path)
    assert copied_near(str(tmp_path / "x"), tmp_path) == tmp_path / "x"


@pytest.mark.parametrize("end", ["..", "../..", "000/..", "../epoch-0007", "elsewhere", ""])
def test_a_checkpoint_of_a_name_that_leads_away(location: str, tmp_path: Path, end: str) -> None:
    """The folder of the copy is emptied first, so it must not be outside of ``near``."""
    near = tmp_path / "around" / "near"
    for kept in (tmp_path / "kept", near.parent / "kept", near.parent / "epoch-0007" / "kept"):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.touch()
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        copied_near(f"{location}/{end}", near)
    assert len(list(tmp_path.rglob("kept"))) == 3


def test_everything_below_a_url(location: str, tmp_path: Path) -> None:
    assert not anything_at(location)
    assert bytes_at(location) == 0
    system, path = fsspec.url_to_fs(location)
    system.makedirs(f"{path}/a", exist_ok=True)
    system.pipe_file(f"{path}/a/b", b"123")
    system.pipe_file(f"{path}/c", b"45")
    assert anything_at(location)
    assert bytes_at(location) == 5
    remove_all(location)
    remove_all(location)
    assert not anything_at(location)


def test_removing_goes_through_no_link(tmp_path: Path) -> None:
    """In a folder that others may write to, a link may have the name of a sweep."""
    precious = tmp_path / "precious"
    for folder in (precious, tmp_path / "storage" / "sweep" / "000"):
        folder.mkdir(parents=True)
        (folder / "kept").touch()
    (tmp_path / "storage" / "sweep" / "000" / "link").symlink_to(precious)
    (tmp_path / "storage" / "other").symlink_to(precious)
    remove_all(f"file://{tmp_path}/storage/sweep")
    assert not (tmp_path / "storage" / "sweep").exists()
    with pytest.raises(CheckpointError, match=r"other: cannot be removed .* it is a link"):
        remove_all(f"file://{tmp_path}/storage/other")
    assert (precious / "kept").exists()


def test_removing_from_a_store_that_is_down(location: str, monkeypatch) -> None:
    def find(*_: Any, **__: Any) -> None:
        raise ConnectionError("down")

    monkeypatch.setattr(type(fsspec.url_to_fs(location)[0]), "find", find)
    with pytest.raises(CheckpointError, match="cannot be removed"):
        remove_all(location)
