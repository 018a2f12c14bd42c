"""A Ray cluster of several nodes on this machine, each with resources and a disk of its own."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.backends import LOOPBACK, free_ports, until
from tests.integration.killing import eventually

# ``ray start`` joins no cluster on loopback while this is 0, which all that a node runs needs.
RAY_START = """
import os
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "1"
from ray.scripts.scripts import main
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
main()
"""
MEMORY_BYTES = 8 * 2**30
TOO_SLOW = "The current node timed out during startup"
"""Ray gives a node 30 seconds to start, however busy the machine is."""
# It connects once: one that did for each question would take the cores from what is tested.
ANSWER = """
import json, sys, ray
from ray.util.state import list_actors
ray.init(log_to_driver=False, logging_level="ERROR")
for question in sys.stdin:
    print("\\nanswer", json.dumps(eval(question)), flush=True)
"""


@dataclass
class Nodes:
    """The nodes of one cluster; the head has no CPU for trials."""

    folder: Path
    port: int
    environment: Mapping[str, str]
    autoscaling: Path | None = None
    processes: list[subprocess.Popen] = field(default_factory=list)
    _answering: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def add(
        self, cpus: int, *, head: bool = False, ip: str = LOOPBACK, **environment: str
    ) -> subprocess.Popen:
        """Start a node and wait until the cluster has it; by another ``ip`` it is another host.

        It sees an empty folder where the others' files are: nothing is shared but the network.
        """
        number, before = len(self.processes), 0 if head else self.alive()
        command = [
            sys.executable, "-c", RAY_START, "start", "--block", "--node-ip-address", ip,
            "--num-cpus", str(cpus), "--memory", str(MEMORY_BYTES), "--disable-usage-stats",
            "--object-store-memory", str(200 * 2**20),
            *(self._as_head() if head else ["--address", self.address]),
        ]  # fmt: skip
        hide = f"mount -t tmpfs none {shlex.quote(str(self.folder))} && exec "
        log = self.folder / f"node-{number}.log"
        hidden = ["unshare", "-m", "sh", "-c", hide + shlex.join(map(str, command))]
        variables = {
            **os.environ,
            **self.environment,
            "SEGAN_RAY_CACHE": str(self.folder / f"cache-{number}"),
            **environment,
        }
        for last_try in (False, False, True):
            process = subprocess.Popen(
                hidden, env=variables, stdout=log.open("w"), stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
            self.processes.append(process)
            try:
                until(lambda: self.alive() == before + 1, process, log)
            except AssertionError:
                if last_try or TOO_SLOW not in log.read_text():
                    raise
            else:
                break
        return process

    def _as_head(self) -> list[str]:
        options = ["--head", "--port", str(self.port), "--dashboard-port", "0"]
        if self.autoscaling is not None:
            options += ["--autoscaling-config", str(self.autoscaling)]
        return options

    def kill(self, node: subprocess.Popen) -> None:
        """End a node as a power cut does."""
        before = self.alive()
        os.killpg(node.pid, signal.SIGKILL)
        node.wait(300)
        assert eventually(lambda: self.alive() == before - 1, 900), "the node is still there"

    def alive(self) -> int:
        """How many nodes the cluster has; none before it answers."""
        return int(self.ask("sum(node['Alive'] for node in ray.nodes())", or_else=0))

    def workers(self) -> list[str]:
        """The nodes that training workers are on now, one entry a worker."""
        return self.ask(
            "[actor.node_id for actor in list_actors(filters=[('state', '=', 'ALIVE')])"
            " if 'TrainWorker' in actor.class_name]"
        )

    def placement_groups(self) -> int:
        """How many placement groups hold or want resources."""
        return self.ask(
            "sum(group['state'] != 'REMOVED' for group in"
            " ray.util.placement_group_table().values())"
        )

    def ask(self, question: str, or_else=None):
        """Ask Ray in a process of its own, for this one may have another cluster."""
        if self._answering is None:
            self._answering = self._answers()
        process = self._answering
        with contextlib.suppress(BrokenPipeError):
            print(question, file=process.stdin, flush=True)
        # Ray may tell of a node that died, in between.
        for line in process.stdout:
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        self._no_answers()
        assert or_else is not None, (self.folder / "answers.log").read_text()[-2000:]
        return or_else

    def _answers(self) -> subprocess.Popen[str]:
        with (self.folder / "answers.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-c", ANSWER],
                env={**os.environ, **self.environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def _no_answers(self) -> None:
        if self._answering is not None:
            self._answering.kill()
            self._answering.communicate()
            self._answering = None

    def end(self) -> None:
        """End every node."""
        self._no_answers()
        for process in reversed(self.processes):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(300)


@contextmanager
def nodes(
    folder: Path, environment: Mapping[str, str], cloud: Callable[[int], dict] | None = None
) -> Iterator[Nodes]:
    """A cluster with a head alone; ``environment`` is what every node has in its own.

    ``cloud`` says for the head's port what its autoscaler is to start.
    """
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("needs root and mount namespaces, for nodes with disks of their own")
    (port,) = free_ports(1)
    ours = {
        "RAY_ADDRESS": f"{LOOPBACK}:{port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        # Ray takes loopback addresses as they are.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        **environment,
    }
    cluster = Nodes(folder, port, ours)
    if cloud is not None:
        # Not in the folder that nodes do not see.
        cluster.autoscaling = folder.parent / f"{folder.name}-cloud.json"
        cluster.autoscaling.write_text(json.dumps(cloud(port)))
    try:
        cluster.add(0, head=True)
        yield cluster
    finally:
        cluster.end()
