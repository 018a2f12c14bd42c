"""``ray up`` on a file of ``cluster/autoscaler``, but for what it does on machines over SSH."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private import commands, providers, util
from ray.autoscaler.tags import (
    NODE_KIND_WORKER,
    TAG_RAY_LAUNCH_CONFIG,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig, NodeTypeConfig

CLUSTER = Path(__file__).parents[3] / "cluster"
FILES = sorted((CLUSTER / "autoscaler").glob("*.yaml"))
KEY = "~/ray_bootstrap_key.pem"

Config = dict[str, Any]


@dataclass(frozen=True)
class Up:
    """What came of ``ray up``.

    ``head`` is what Ray would have done on the head over SSH, ``autoscaler`` what the autoscaler
    there reads and ``kinds`` what it makes of the kinds of nodes.
    """

    head: Config
    autoscaler: AutoscalingConfig
    kinds: dict[str, NodeTypeConfig]
    provider: Any


def read(name: str) -> Config:
    return yaml.safe_load((CLUSTER / "autoscaler" / f"{name}.yaml").read_text())


def node_configs(config: Config) -> dict[str, Config]:
    """What each kind of node asks the provider for, to be changed in place."""
    return {name: kind["node_config"] for name, kind in config["available_node_types"].items()}


def ray_up(name: str, folder: Path, change: Callable[[Config], object] = lambda _: None) -> Up:
    """Start the head of ``name``.yaml, and a worker of each kind as the head does.

    It is called in ``folder`` as in the root of the repository, where a user has filled in the
    file with ``change`` and the addresses of records and storage.
    """
    config = read(name)
    change(config)
    file = Path("cluster", "autoscaler", f"{name}.yaml")
    with pytest.MonkeyPatch.context() as patch:
        _settle(patch, folder)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(config))
        for example in CLUSTER.glob("*.env.example"):
            shutil.copy(example, Path("cluster", example.stem))
        updates: list[Config] = []
        patch.setattr(commands, "NodeUpdaterThread", lambda **head: _Updated(updates, head))
        commands.create_or_update_cluster(
            str(file), None, None, False, False, yes=True, no_config_cache=True
        )
        (head,) = updates
        # The head, too, is here from now on.
        shutil.copy(Path(head["file_mounts"][KEY]).expanduser(), Path(KEY).expanduser())
        autoscaler = AutoscalingConfig(head["bootstrap_config"], skip_content_hash=True)
        up = Up(head, autoscaler, autoscaler.get_node_type_configs(), head["provider"])
        _start_workers(up)
    return up


def _settle(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """A user's home with the files that cluster/autoscaler names, and nothing of this machine's."""
    patch.setenv("HOME", str(folder / "home"))
    patch.setenv("RAY_TMPDIR", str(folder / "tmp"))
    patch.setenv("RAY_USAGE_STATS_PROMPT_ENABLED", "0")
    for file in (".ray/auth_token", ".ssh/segan-ray", ".ssh/segan-ray.pub"):
        path = folder / "home" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("ssh-ed25519 AAAA user\n")
    patch.setattr(providers, "_provider_instances", {})
    patch.setattr(util, "_hash_cache", {})
    patch.chdir(folder)


class _Updated:
    """In place of Ray's thread that sets the head up over SSH: it notes what it was asked for."""

    exitcode = 0

    def __init__(self, updates: list[Config], head: Config) -> None:
        for local in head["file_mounts"].values():
            assert Path(local).expanduser().exists(), local
        settings = Path(head["file_mounts"]["~/ray_bootstrap_config.yaml"])
        updates.append({**head, "bootstrap_config": json.loads(settings.read_text())})

    def start(self) -> None:
        pass

    def join(self) -> None:
        pass


def _start_workers(up: Up) -> None:
    others = [kind for kind in up.kinds if kind != up.autoscaler.get_head_node_type()]
    for kind in others or up.kinds:
        tags = {
            TAG_RAY_NODE_NAME: "ray-segan-ray-worker",
            TAG_RAY_NODE_KIND: NODE_KIND_WORKER,
            TAG_RAY_NODE_STATUS: "uninitialized",
            TAG_RAY_LAUNCH_CONFIG: up.kinds[kind].launch_config_hash,
            TAG_RAY_USER_NODE_TYPE: kind,
        }
        up.provider.create_node(up.autoscaler.get_cloud_node_config(kind), tags, 1)
