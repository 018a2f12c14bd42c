"""Every benchmark runs, at a size at which no figure is true: so that none can rot unseen."""

from __future__ import annotations

import os
import runpy
import sys
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
SAID = "smoke: ran, no figures"
WITH_RAY = ("driver_scale", "head_load", "scaling", "tracking", "trial_overhead")


def test_the_benchmarks_are_found() -> None:
    assert {"metrics", "train_step", "trial_overhead"} <= set(BENCHMARKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_RAY)
def test_one_with_ray_runs_at_its_smallest(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run_at_its_smallest(name, tmp_path, monkeypatch)
    assert capfd.readouterr().out.strip().splitlines()[-1] == SAID


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*BENCHMARKS} - {*WITH_RAY}))
def test_one_without_ray_runs_at_its_smallest(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    run_at_its_smallest(name, tmp_path, monkeypatch)
    assert capfd.readouterr().out.strip().splitlines()[-1] == SAID


def run_at_its_smallest(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its command does, but here: to import Ray and MLflow fifteen times takes minutes."""
    script = FOLDER / f"{name}.py"
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", [str(script), "--smoke"])
    threads = torch.get_num_threads()
    with patch.dict(os.environ, SEGAN_RAY_HOME=str(folder / "home")):
        runpy.run_path(str(script), run_name="__main__")
    torch.set_num_threads(threads)
