"""Preparing a folder as Ray tasks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from segan_ray.data.layouts.cases import discover
from segan_ray.data.phantom.dataset import write_phantoms
from segan_ray.data.store.opened_store import PrepareSettings
from segan_ray.data.store.prepare import prepare
from segan_ray.data.store.splits import SplitSettings
from segan_ray.errors import DataError
from segan_ray.orchestration.cluster.preparation import outcomes_on_ray
from segan_ray.orchestration.cluster.session import TOKEN

# After orchestration, which sets Ray up before importing it.
import ray  # isort: skip
from ray.util.state import list_tasks  # isort: skip

pytestmark = pytest.mark.slow

SPLIT = SplitSettings(val=0.2, gate=0.2, test=0.2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "data"
    write_phantoms(out, cases=6, spacing_mm=6.0, seed=5)
    return out


def contents(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file()
    }


def test_tasks_make_the_store_that_processes_make(
    cluster: None, data: Path, tmp_path: Path
) -> None:
    options = {"settings": PrepareSettings(), "split_settings": SPLIT}
    here = prepare(discover(data), tmp_path / "here", **options)
    there = prepare(discover(data), tmp_path / "there", outcomes=outcomes_on_ray, **options)
    assert there == here
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_a_bad_case_is_told_of_and_the_others_are_kept(
    cluster: None, data: Path, tmp_path: Path
) -> None:
    options = {"settings": PrepareSettings(), "split_settings": SPLIT, "outcomes": outcomes_on_ray}
    broken = tmp_path / "data"
    shutil.copytree(data, broken)
    hurt = sorted(broken.glob("*/*_flair.nii.gz"))[2]
    content = bytearray(hurt.read_bytes())
    content[len(content) // 2] ^= 255
    hurt.write_bytes(content)
    with pytest.raises(DataError, match=rf"Case {hurt.parent.name}: .*{hurt.name}"):
        prepare(discover(broken), tmp_path / "store", **options)
    manifest = prepare(discover(broken), tmp_path / "store", skip_bad=True, **options)
    assert [case.case for case in manifest.skipped] == [hurt.parent.name]
    assert len(manifest.cases) == 5


def test_the_command_uses_the_cluster_of_ray_address(
    cluster: None, data: Path, tmp_path: Path
) -> None:
    """From another folder than the cluster's processes run in, with relative paths."""
    command = [
        sys.executable, "-c", "from segan_ray.cli.main import main; main()",
        "prepare", data.name, str(tmp_path / "store"),
        "--val", "0.2", "--gate", "0.2", "--test", "0.2",
    ]  # fmt: skip
    address = ray.get_runtime_context().gcs_address
    theirs = {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    done = subprocess.run(
        command,
        cwd=data.parent,
        env={**os.environ, **theirs},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "6 cases in" in done.stdout
    tasks = list_tasks(address, filters=[("name", "=", "_prepare")], limit=1000)
    assert len(tasks) >= 6
