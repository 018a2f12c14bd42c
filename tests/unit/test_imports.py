"""Importing any module of ours changes nothing in the engines, in Python, or in the environment."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import contextlib, importlib, json, logging, os, pkgutil, signal, sys, warnings

import mlflow, mlflow.pyfunc, optuna, torch
import ray, ray.train, ray.train.torch, ray.tune
import ray._private.ray_constants, ray._private.worker
import ray.tune.execution.class_cache
from torch.backends import cudnn


def names_of(module):
    return {
        name: value if isinstance(value, (bool, int, float, str)) else id(value)
        for name, value in vars(module).items()
        if not name.startswith("__") and type(value) is not type(sys)
    }


def state():
    loggers = {name: logging.getLogger(name).level for name in ("ray", "ray.tune", "mlflow",
               "alembic", "optuna", "torch", "segan_ray", None)}
    return {
        **{f"${name}": value for name, value in os.environ.items()},
        "loggers": {str(name): level for name, level in loggers.items()},
        "warnings": [str(each) for each in warnings.filters],
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn": [cudnn.benchmark, cudnn.deterministic],
        "dtype": str(torch.get_default_dtype()),
        "propagated": sorted(ray.tune.execution.class_cache.ENV_VARS_TO_PROPAGATE),
        "ray worker": names_of(ray._private.worker),
        "ray constants": names_of(ray._private.ray_constants),
        "optuna": optuna.logging.get_verbosity(),
        "tracking": mlflow.get_tracking_uri(),
        "excepthook": str(sys.excepthook),
    }


def import_ours():
    import segan_ray

    packages = pkgutil.walk_packages(segan_ray.__path__, "segan_ray.")
    names = [module.name for module in packages if module.name != "segan_ray.__main__"]
    for name in names:
        importlib.import_module(name)
    return names


if sys.argv[1:] == ["list"]:
    import_ours()
    print(json.dumps([name for name in sys.modules if not name.startswith("segan_ray")]))
    sys.exit()
for name in json.loads(sys.stdin.read()):
    with contextlib.suppress(Exception):
        importlib.import_module(name)
before = state()
modules = import_ours()
after = state()
keys = before.keys() | after.keys()
print(json.dumps({
    "modules": len(modules),
    "changed": {
        key: [before.get(key), after.get(key)] for key in keys if before.get(key) != after.get(key)
    },
}, default=str))
"""


def run(*arguments: str, given: str = "") -> str:
    command = [sys.executable, "-c", SCRIPT, *arguments]
    ended = subprocess.run(
        command, input=given, capture_output=True, text=True, check=True, timeout=300
    )
    return ended.stdout.splitlines()[-1]


@pytest.mark.slow
def test_importing_a_module_changes_nothing() -> None:
    # Changes by other packages' imports do not count.
    result = json.loads(run(given=run("list")))
    assert result["modules"] > 200
    assert result["changed"] == {}
