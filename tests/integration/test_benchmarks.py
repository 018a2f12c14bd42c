"""Every benchmark runs, at a size at which no figure is true: so that none can rot unseen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
BENCHMARKS = sorted(
    path.stem
    for path in FOLDER.glob("[!_]*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)


def test_the_benchmarks_are_found() -> None:
    assert {"metrics", "train_step", "trial_overhead"} <= set(BENCHMARKS)


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs_at_its_smallest(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / f"{name}.py", "--smoke"],
        cwd=tmp_path,
        env={**os.environ, "SEGAN_RAY_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().splitlines()[-1] == "smoke: ran, no figures"
