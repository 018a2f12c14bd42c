"""A program: two Ray nodes on loopback, of which the second is killed when a line comes in."""

from __future__ import annotations

import os
import sys

from ray.cluster_utils import Cluster


def main() -> None:
    """Take the port of the cluster; say ``ready``, and ``killed`` after the first line."""
    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1"}
    head = {
        **node,
        "gcs_server_port": int(sys.argv[1]),
        "include_dashboard": True,
        "dashboard_port": 0,
    }
    cluster = Cluster(initialize_head=True, head_node_args=head)
    second = cluster.add_node(**node)
    print("ready", flush=True)
    sys.stdin.readline()
    cluster.remove_node(second, allow_graceful=False)
    print("killed", flush=True)
    sys.stdin.readline()
    cluster.shutdown()


if __name__ == "__main__":
    # As on machines of their own, every process knows which cluster is meant.
    os.environ["RAY_ADDRESS"] = f"127.0.0.1:{sys.argv[1]}"
    main()
