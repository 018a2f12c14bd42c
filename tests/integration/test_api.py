"""The functions for Python: their examples, other threads, and a Ray that the caller started."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from pathlib import Path

import pytest

from segan_ray import api

pytestmark = pytest.mark.full

ELSEWHERE = """
import threading
import ray
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
from segan_ray import api

api.phantom("data", cases=8, spacing_mm=8, progress=False)
api.prepare("data", "store", progress=False)
found = []

def search():
    found.append(api.tune("store", "smoke", name="aside", trials=1, progress=False))

thread = threading.Thread(target=search)
thread.start()
thread.join()
print(found[0].status, ray.is_initialized())
try:
    api.tune("store", "smoke", name="aside", trials=1)
except Exception as error:
    print(type(error).__name__)
ray.shutdown()
"""


def test_every_example_holds(
    cluster: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    functions = [api.phantom, api.prepare, api.tune, api.read_sweep, api.promote, api.evaluate,
                 api.load_model, api.predict, api.train, api.compare]  # fmt: skip
    assert {each.__name__ for each in functions} == {
        name for name in api.__all__ if name[0].islower()
    }
    known = {"api": api, "Path": Path}
    finder = doctest.DocTestFinder(recurse=False)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    said: list[str] = []
    for function in functions:
        (example,) = finder.find(function, function.__name__, globs=known)
        assert example.examples, function.__name__
        result = runner.run(example, out=said.append, clear_globs=False)
        known = example.globs
        assert result.failed == 0, "".join(said)
    # What is printed is for whoever calls.
    assert capsys.readouterr().out == ""


def test_on_another_thread_beside_a_ray_of_the_caller(tmp_path: Path) -> None:
    # Not the settings that a cluster of these tests has put into the environment.
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], cwd=tmp_path, env=own, check=False,
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.stdout.split() == ["finished", "True", "SweepError"], done.stderr
