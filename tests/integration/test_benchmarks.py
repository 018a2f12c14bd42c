"""Every benchmark runs, at a size at which no figure is true: so that none can rot unseen."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"
BENCHMARKS = sorted(
    path.stem
    for path in FOLDER.glob("[!_]*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)
pytestmark = pytest.mark.full

SAID = "smoke: ran, no figures"
WITH_RAY = ("driver_scale", "head_load", "scaling", "tracking", "trial_overhead")
"""Most of these take a minute or more each, since they start Ray again and again."""


def test_the_benchmarks_are_found() -> None:
    assert {"metrics", "train_step", "trial_overhead"} <= set(BENCHMARKS)


@pytest.fixture
def smoke(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[[str], str]:
    """Run a benchmark as its command does, but here, and return the last line that it prints.

    To import Ray and MLflow fifteen times takes minutes.
    """

    def run(name: str) -> str:
        script = FOLDER / f"{name}.py"
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(FOLDER))
        monkeypatch.setattr(sys, "argv", [str(script), "--smoke"])
        threads = torch.get_num_threads()
        with patch.dict(os.environ, SEGAN_RAY_HOME=str(tmp_path / "home")):
            runpy.run_path(str(script), run_name="__main__")
        torch.set_num_threads(threads)
        return capfd.readouterr().out.strip().splitlines()[-1]

    return run


@pytest.mark.endurance
@pytest.mark.parametrize("name", WITH_RAY)
def test_one_with_ray_runs_at_its_smallest(name: str, smoke: Callable[[str], str]) -> None:
    assert smoke(name) == SAID


@pytest.mark.parametrize("name", sorted({*BENCHMARKS} - {*WITH_RAY}))
def test_one_without_ray_runs_at_its_smallest(name: str, smoke: Callable[[str], str]) -> None:
    assert smoke(name) == SAID
