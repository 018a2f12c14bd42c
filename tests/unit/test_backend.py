"""Joining workers, without PyTorch where nothing is computed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from segan_ray.orchestration import backend
from segan_ray.orchestration.backend import ProcessGroup, ProcessGroupConfig

# After orchestration, which sets Ray up before importing it.
import ray  # isort: skip


@dataclass
class FakeGroup:
    """Workers that note what they are asked to do."""

    gpus: float
    workers: int
    asked: list[tuple[int, tuple[Any, ...]]] = field(default_factory=list)

    def __len__(self) -> int:
        return self.workers

    def get_resources_per_worker(self) -> dict[str, float]:
        return {"CPU": 1, "GPU": self.gpus}

    def execute_single(self, rank: int, function: Callable[[], Any]) -> Any:
        assert (rank, function) == (0, backend._meeting_place)
        return "10.0.0.1", 1234

    def execute_single_async(self, rank: int, function: Callable[..., Any], *given: Any) -> int:
        assert function is backend._join
        self.asked.append((rank, given))
        return rank


@pytest.mark.parametrize(("gpus", "kind"), [(0, "gloo"), (0.5, "nccl"), (1, "nccl")])
def test_every_worker_joins_at_the_first_ones_place_with_its_own_rank(
    gpus: float, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[list[int]] = []
    monkeypatch.setattr(ray, "get", waited.append)
    group = FakeGroup(gpus, 3)
    ProcessGroup().on_start(group, ProcessGroupConfig())
    assert group.asked == [(rank, ("10.0.0.1", 1234, rank, 3, kind)) for rank in range(3)]
    assert waited == [[0, 1, 2]]


def test_a_lane_does_without_pytorch() -> None:
    script = "import sys, segan_ray.orchestration.lane; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
