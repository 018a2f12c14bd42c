"""Starting a cluster of our own in any environment."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BEGUN = """
from segan_ray.orchestration.cluster.session import ray_session
import ray
from ray.train.v2._internal.constants import is_v2_enabled
with ray_session():
    print("began", ray.get_runtime_context().runtime_env, is_v2_enabled())
"""


@pytest.mark.endurance
def test_uv_run_sends_no_folder_to_workers(tmp_path: Path) -> None:
    """What "uv run" starts has it for a parent, by which Ray knows."""
    (tmp_path / "run").write_text('"$PROGRAM" -c "$BEGUN"\nexit $?\n')
    environment = {"PROGRAM": sys.executable, "BEGUN": BEGUN, "RAY_TRAIN_V2_ENABLED": "0"}
    done = subprocess.run(
        ["uv", "run"], executable="/bin/sh", cwd=tmp_path, env={**os.environ, **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "began {} True" in done.stdout, done.stderr


def test_a_folder_that_is_too_deep_for_sockets_is_said(tmp_path: Path) -> None:
    deep = tmp_path / ("deep" * 20)
    deep.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", BEGUN], env={**os.environ, "RAY_TMPDIR": str(deep)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "SweepError: Ray cannot be started on this machine (" in done.stderr
    assert "107 bytes" in done.stderr
    assert list(deep.iterdir()) == []
    assert f"{deep}: set RAY_TMPDIR to a short path" in done.stderr


STRANGER = """
import grpc, sys
from segan_ray.errors import SweepError
from segan_ray.orchestration.cluster.address import check_cluster
try:
    check_cluster(sys.argv[1])
except SweepError as refused:
    print(refused)
"""
WITH_A_STRANGER = """
import os, subprocess, sys
from segan_ray.orchestration.cluster.session import ray_session
import ray
before = dict(os.environ)
for _ in range(2):
    with ray_session():
        address = ray.get_runtime_context().gcs_address
        subprocess.run([sys.executable, "-c", os.environ["STRANGER"], address])
        ray.get(ray.remote(lambda: None).remote())
changed = {name for name, _ in {*os.environ.items()} ^ {*before.items()}}
print("changed", {name for name in changed if "AUTH" in name})
"""


@pytest.mark.parametrize("mode", [pytest.param(None, marks=pytest.mark.endurance), "disabled"])
def test_no_other_user_gets_into_a_cluster_of_our_own(mode: str | None, tmp_path: Path) -> None:
    """The token is in no file and, afterwards, in no environment, with any setting for others."""
    environment = {**os.environ, "HOME": str(tmp_path), "STRANGER": STRANGER}
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        environment.pop(name, None)
    if mode:
        environment["RAY_AUTH_MODE"] = mode
    done = subprocess.run(
        [sys.executable, "-c", WITH_A_STRANGER], env=environment, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.count("asks for its token, and ") == 2, done.stdout + done.stderr
    assert done.stdout.endswith("changed set()\n")
    assert not list(tmp_path.rglob("auth_token"))


UNTIL_KILLED = """
import os, signal, sys
from segan_ray.orchestration.cluster.session import ray_session
import ray
with ray_session():
    print(ray.get(ray.remote(lambda: os.environ["TMPDIR"]).remote()), flush=True)
    if sys.argv[1:]:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_of_a_cluster_outlives_it() -> None:
    """Its session and its processes' files go; the next removes those of a killed process."""
    with tempfile.TemporaryDirectory() as short:
        others = Path(short, "segan-data")
        others.mkdir()
        command = [sys.executable, "-c", UNTIL_KILLED]
        environment = {**os.environ, "RAY_TMPDIR": short}

        def cluster(*arguments: str) -> Path:
            done = subprocess.run(
                [*command, *arguments], env=environment, capture_output=True, text=True, check=False
            )
            assert done.stdout, done.stderr
            return Path(done.stdout.strip())

        killed = cluster("kill")
        assert killed.parent == Path(short)
        assert list(killed.glob("r/session_*/logs"))
        assert stat.S_IMODE(killed.stat().st_mode) == 0o700
        ended = cluster()
        assert ended.parent == Path(short)
        assert list(Path(short).iterdir()) == [others]
