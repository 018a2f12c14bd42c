"""Every benchmark runs, at a size at which no figure is true: so that none can rot unseen."""

from __future__ import annotations

import os
import re
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
WITH_RAY = pytest.mark.xdist_group("ray")


def marked(name: str) -> object:
    """The benchmark, among those that take turns if it starts Ray."""
    starts_ray = re.search(r"ray_session|run_sweep|(import|from) ray", (FOLDER / f"{name}.py").read_text())
    return pytest.param(name, marks=WITH_RAY if starts_ray else ())


def test_the_benchmarks_are_found() -> None:
    assert {"metrics", "train_step", "trial_overhead"} <= set(BENCHMARKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", map(marked, BENCHMARKS))
def test_a_benchmark_runs_at_its_smallest(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    # As its command does, but here: to import Ray and MLflow fifteen times takes minutes.
    script = FOLDER / f"{name}.py"
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", [str(script), "--smoke"])
    threads = torch.get_num_threads()
    with patch.dict(os.environ, SEGAN_RAY_HOME=str(tmp_path / "home")):
        runpy.run_path(str(script), run_name="__main__")
    torch.set_num_threads(threads)
    assert capfd.readouterr().out.strip().splitlines()[-1] == "smoke: ran, no figures"
