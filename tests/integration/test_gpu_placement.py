"""Where workers go on a cluster that declares GPUs, which this machine need not have."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.endurance, pytest.mark.timeout(2400)]

DECLARED = """
import ray
begin = ray.init
ray.init = lambda *positional, **named: begin(*positional, **{**named, "num_gpus": 4})
"""
"""A local cluster of four GPUs, as far as Ray knows."""

PLACED = """
import json, os, sys, time
from pathlib import Path
from ray import train
from segan_ray.orchestration.cluster.session import ray_session
from segan_ray.orchestration.train import worker_group as groups
from segan_ray.orchestration.train.trial_channel import TrialChannelClient, open_channel
from segan_ray.orchestration.train.worker_group_spec import WorkerGroupSpec

folder = sys.argv[1]

def look(config):
    context = train.get_context()
    seen = Path(folder, "{}-{}".format(config["group"], context.get_world_rank()))
    seen.write_text(os.environ.get("CUDA_VISIBLE_DEVICES", ""))
    # All hold what they were given until all have been seen.
    while not Path(folder, "over").exists():
        time.sleep(0.05)

groups.train_worker = look
with ray_session():
    actor = open_channel("channel")
    specs = [WorkerGroupSpec(1, 0.1, 0.5), WorkerGroupSpec(1, 0.1, 0.5), WorkerGroupSpec(2, 0.1, 1)]
    started = [groups.WorkerGroup(spec, "channel", folder) for spec in specs]
    wanted = [f"{group.id}-{rank}" for group in started for rank in range(group.spec.workers)]
    while not all(Path(folder, name).exists() for name in wanted):
        for group in started:
            group.check()
        time.sleep(0.05)
    print(json.dumps([Path(folder, name).read_text() for name in wanted]))
    Path(folder, "over").touch()
    for group in started:
        group.wait(30)
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", DECLARED + code, *arguments],
        check=False, capture_output=True, text=True, timeout=900,
    )  # fmt: skip


def test_each_worker_sees_its_own_share_of_the_gpus(tmp_path: Path) -> None:
    done = run(PLACED, str(tmp_path))
    assert done.returncode == 0, done.stderr
    first_half, second_half, first, second = json.loads(done.stdout.splitlines()[-1])
    assert first_half == second_half
    # Workers of one group on one node see the GPUs of all, and each takes the one of its rank.
    assert first == second
    assert len({first_half, *first.split(",")}) == 3
    assert {first_half, *first.split(",")} < {"0", "1", "2", "3"}


CLI = """
from segan_ray.cli.main import main
main()
"""


def test_gpus_are_used_and_it_is_said(store: Path, tmp_path: Path) -> None:
    """Two workers with a GPU each; torch of this machine sees none, and that is said too."""
    home = ["--home", str(tmp_path / "home")]
    small = [
        f"--set={each}"
        for each in (
            "segmentor.base_width=4", "segmentor.depth=2", "critic.base_width=4", "critic.depth=1",
            "training.epochs=1", "training.steps_per_epoch=2", "training.crop=32",
            "resources.cpus_per_worker=0.5",
        )
    ]  # fmt: skip
    done = run(CLI, "train", str(store), "--name", "gpus", "--workers", "2", *small, *home)
    assert done.returncode == 0, done.stderr
    told = done.stdout + done.stderr
    assert "Training on GPUs, one for each worker: the cluster has 4 GPUs." in told
    assert "of GPU memory in each worker" in told
    import torch

    if not torch.cuda.is_available():
        assert "trains on the CPU: Ray gave it a GPU, but torch" in told
