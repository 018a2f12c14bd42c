"""Arms that are to take the same time: timed by short runs, then given epochs of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from segan_ray.home import Home
from segan_ray.search.space.arms_file import load_arms
from segan_ray.tracking.description.card import StoreCard
from segan_ray.workflows import compare
from segan_ray.workflows.compare import ComparisonPlan, _ArmTraining

TREE = {
    "name": "methods",
    "base": {"training": {"epochs": 12}, "loss": {"adversarial_from": 5}},
    "parameters": {"segmentor.lr": {"type": "float", "low": 1e-4, "high": 1e-2}},
    "scheduler": {"type": "asha", "grace_period": 4},
    "arms": {"slow": {}, "fast": {"base": {"variant": "unet"}}, "endless": {}},
}
SECONDS = {"slow": [9.0, 2.0, 2.0], "fast": [9.0, 0.5, 0.5], "endless": [9.0, 500.0, 500.0]}


@pytest.fixture
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _ArmTraining:
    """The sweeps of a comparison, whose short runs are told instead of trained."""
    trained: list[tuple[str, int]] = []

    @contextmanager
    def nothing(*_: Any) -> Iterator[Any]:
        yield lambda _: None

    def train(name: str, experiment: Any, *_: Any, **__: Any) -> None:
        assert experiment.loss.adversarial_from == 1  # or the critic would cost nothing
        trained.append((name, experiment.training.epochs))

    def told(_: Any, record: str, metric: str) -> dict[str, list[tuple[int, float]]]:
        assert metric == "time/epoch_s"
        arm = record.removeprefix("c-").removesuffix("-timing")
        assert trained[-1] == (record, 3)
        return {"000": list(enumerate(SECONDS[arm], start=1))}

    monkeypatch.setattr(compare, "ray_session", nothing)
    monkeypatch.setattr(compare, "train_one", train)
    monkeypatch.setattr(compare, "name_is_taken", lambda *_: False)
    monkeypatch.setattr(compare, "read_sweep", lambda _, name: name)
    monkeypatch.setattr(compare, "histories", told)
    file = tmp_path / "arms.yaml"
    file.write_text(yaml.safe_dump(TREE, sort_keys=False))
    plan = ComparisonPlan(
        "c", load_arms(file), "store", StoreCard("store", "abc", {}), Home.at(tmp_path / "home"),
        "seconds", 5, "segan-ray compare",
    )  # fmt: skip
    return _ArmTraining(plan, nothing, lambda _: None, ExitStack())


def test_each_arm_gets_the_epochs_that_take_as_long_as_those_of_the_first(
    training: _ArmTraining,
) -> None:
    slow, fast, endless = training.timed().spaces.values()
    # The first epoch, which compiles, is left out.
    assert [space.most_epochs() for space in (slow, fast, endless)] == [12, 48, 1]
    rungs = [space.scheduler.grace_period for space in (slow, fast, endless)]  # type: ignore[union-attr]
    assert rungs == [4, 16, 1]
