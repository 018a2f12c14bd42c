"""A trainable whose workers run out of memory, by turns with the groups that it starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from segan_ray.config import Experiment, load_experiment
from segan_ray.errors import TrialError
from segan_ray.orchestration.train.messages import EpochResult
from segan_ray.orchestration.tune import trainable
from segan_ray.orchestration.tune.trainable import ReusableTrainable, in_more_parts
from segan_ray.training.checkpoints.trial_folder import TrialFolder
from segan_ray.training.epoch_record import BestEpoch, EpochRecord
from segan_ray.training.state import new_state
from tests.unit.stored import ORIGIN

CPU = torch.device("cpu")
METRIC = "val/dice_mean"
TINY = ["segmentor.base_width=2", "segmentor.depth=2", "critic.kind=none"]
MEMORY = "out of memory: Ray ended a training process because its node had no memory left."
ALLOCATION = "out of memory: asked for 2.50 GiB more (epoch 1)"


class Cluster:
    """Groups that end as ``ends`` says, one after the other; None goes on, and reports."""

    def __init__(self, ends: list[str | EpochResult | None]) -> None:
        self.ends = ends
        self.parts: list[int] = []
        self.closed: list[str] = []

    def group(self, spec: Any, channel: str, storage: str) -> Group:
        assert (channel, storage) == ("channel", "storage")
        return Group(self, spec, len(self.parts))

    def assign(self, group: str, task: dict[str, Any]) -> int:
        self.parts.append(task["experiment"].training.accumulate)
        return len(self.parts)

    def result(self, group: str, timeout_s: float) -> EpochResult | None:
        end = self.ends[int(group)]
        return end if isinstance(end, EpochResult) else None

    def close(self, group: str) -> None:
        self.closed.append(group)


class Group:
    def __init__(self, cluster: Cluster, spec: Any, number: int) -> None:
        self.cluster, self.spec, self.id, self.is_running = cluster, spec, str(number), True

    @property
    def ran_out_of_memory(self) -> str | None:
        end = self.cluster.ends[int(self.id)]
        return end if end == MEMORY else None

    def check(self) -> None:
        raise TrialError("a training process died.")

    def wait(self, timeout_s: float) -> None:
        self.is_running = False


def begin(
    monkeypatch: pytest.MonkeyPatch, folder: Path, cluster: Cluster, *settings: str
) -> ReusableTrainable:
    monkeypatch.setattr(trainable, "WorkerGroup", cluster.group)
    monkeypatch.setattr(trainable, "TrialChannelClient", lambda name: cluster)
    made = object.__new__(ReusableTrainable)
    task = {
        "experiment": load_experiment(None, [*TINY, "training.batch_size=8", *settings]),
        "workers": "one",
        "checkpoints": str(folder / "000"),
        "runs": 1,
        "metric": METRIC,
        "mode": "max",
    }
    made.setup({"channel": "channel", "storage": "storage", "task": task})
    return made


def good(epoch: int = 1) -> EpochResult:
    return EpochResult(epoch, 20, {METRIC: 0.5}, None, warning="the disk is slow")


def out() -> EpochResult:
    return EpochResult(1, 20, {METRIC: 0.0}, None, ALLOCATION, out_of_memory=True)


def test_what_cannot_be_allocated_ends_a_trial_unless_it_may_go_on_in_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = begin(monkeypatch, tmp_path, Cluster([out()])).step()
    assert told["done"]
    assert told["result"].failure == ALLOCATION
    cluster = Cluster([out(), out(), good()])
    accumulate = "resources.on_out_of_memory=accumulate"
    again = begin(monkeypatch, tmp_path, cluster, accumulate)
    told = again.step()
    assert cluster.parts == [1, 2, 4]
    assert cluster.closed == ["0", "1"]
    assert not told["done"]
    assert told["number"] == 3
    assert told["result"].warning == (
        f"begins again with its batches in 2 parts, since it ran {ALLOCATION}; "
        f"begins again with its batches in 4 parts, since it ran {ALLOCATION}; the disk is slow"
    )
    assert told["result"].metrics == {METRIC: 0.5, "param/training.accumulate": 4.0}
    # It is said once.
    assert again.step()["result"].warning == "the disk is slow"


def test_a_part_has_a_slice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cluster = Cluster([out()] * 5)
    accumulate = "resources.on_out_of_memory=accumulate"
    told = begin(monkeypatch, tmp_path, cluster, accumulate, "training.batch_size=5").step()
    assert cluster.parts == [1, 2, 4]
    assert told["result"].out_of_memory

    def parts(*settings: str) -> int | None:
        more = in_more_parts(load_experiment(None, [accumulate, *settings]))
        assert more is None or Experiment.model_validate(more.model_dump()) == more
        return None if more is None else more.training.accumulate

    assert parts("training.batch_size=8", "resources.workers=4") == 2
    assert parts("training.batch_size=7", "resources.workers=4") is None


def test_what_the_memory_monitor_ended_begins_again_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = Cluster([MEMORY, good()])
    told = begin(monkeypatch, tmp_path, cluster).step()
    assert not told["result"].out_of_memory
    assert told["result"].warning.startswith("begins again once more, since it ran out of memory:")
    tiny, state = load_experiment(None, TINY), new_state(load_experiment(None, TINY), CPU)
    state.epoch = 3
    best = BestEpoch(2, {METRIC: 0.7})
    report = EpochRecord(3, {METRIC: 0.6}, best)
    TrialFolder(tmp_path / "000").save(state, tiny, ORIGIN, report, None)
    told = begin(monkeypatch, tmp_path, Cluster([MEMORY, MEMORY])).step()
    result = told["result"]
    assert told["done"]
    assert result.out_of_memory
    assert (result.epoch, result.best, result.metrics) == (4, best, {METRIC: 0.0})
    assert result.failure == f"{MEMORY.rstrip('.')} (epoch 4)"
    # The best epoch of a fold is no score of a trial that trains on several.
    TrialFolder(tmp_path / "000").save(state, tiny, ORIGIN, replace(report, folds=(best,)), None)
    told = begin(monkeypatch, tmp_path, Cluster([MEMORY, MEMORY])).step()
    assert told["result"].best is None


def test_other_losses_are_raised(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(TrialError, match="died"):
        begin(monkeypatch, tmp_path, Cluster([None])).step()
