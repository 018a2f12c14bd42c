"""A sweep on a cluster of which only the head is there: Ray's real autoscaler starts the rest.

The cloud is Ray's own fake one, whose machines are raylets of this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.integration.killing import Killable, assert_whole, eventually, space_of
from tests.integration.nodes import Nodes, nodes

pytestmark = [pytest.mark.endurance, pytest.mark.timeout(2400)]

MOST_NODES = 2


def cloud(port: int) -> dict:
    """What ``ray up`` would make of a cluster file, for the fake cloud."""
    empty_lists = (
        "cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands",
        "setup_commands", "head_setup_commands", "worker_setup_commands",
        "head_start_ray_commands", "worker_start_ray_commands",
    )  # fmt: skip
    worker = {"CPU": 1, "memory": 2 * 2**30, "object_store_memory": 200 * 2**20}
    return {
        "cluster_name": "fake",
        "max_workers": MOST_NODES,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 0.1,
        "provider": {
            "type": "external", "module": "tests.integration.cloud.Cloud",
            "gcs_address": f"127.0.0.1:{port}", "use_node_id_as_ip": True,
        },
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": worker, "node_config": {}, "min_workers": 0,
                "max_workers": MOST_NODES,
            },
        },
        **{name: [] for name in empty_lists},
    }  # fmt: skip


@pytest.fixture
def head(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    ours = {
        "SEGAN_RAY_STORAGE": f"file://{tmp_path_factory.mktemp('storage')}",
        "RAY_FAKE_CLUSTER": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    with nodes(tmp_path, ours, cloud) as cluster:
        yield cluster


def test_nodes_come_for_a_sweep_and_go_after_it(head: Nodes, store: Path, tmp_path: Path) -> None:
    space = space_of(trials=4, concurrent=MOST_NODES)
    environment = {**head.environment}
    del environment["RAY_OVERRIDE_NODE_ID_FOR_TESTING"]
    sweep = Killable(tmp_path, store, "grows", space, environment)
    assert head.alive() == 1
    most = 0

    def over() -> bool:
        nonlocal most
        most = max(most, head.alive())
        return process.poll() is not None

    process = sweep.start()
    try:
        assert eventually(over, 900), sweep.log
    finally:
        sweep.end_all()
    assert process.returncode == 0, sweep.log
    assert "Waiting for nodes" in sweep.log
    assert most == 1 + MOST_NODES
    assert_whole(sweep.home, sweep.name, 4)
    # Nothing is left that wants a node.
    assert eventually(lambda: head.alive() == 1, 900), head.ask("ray.cluster_resources()")
