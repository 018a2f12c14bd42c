"""A cluster of our own that does not start."""

from __future__ import annotations

import pytest

from segan_ray.errors import SweepError
from segan_ray.orchestration.cluster.session import ray_session

# After orchestration, which sets Ray up before importing it.
import ray  # isort: skip


def test_a_machine_that_is_too_busy_for_ray_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        # Ray's own has no type either.
        raise Exception("The current node timed out during startup. This co")  # noqa: TRY002

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(SweepError, match="this machine was too busy"), ray_session():
        pytest.fail("there is no cluster")
