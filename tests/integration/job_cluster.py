"""A Ray cluster that takes jobs, on loopback, with tokens and with secrets in its environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import requests

from tests.integration.backends import LOOPBACK, free_ports, until


@dataclass
class JobCluster:
    """The dashboard of a head node and what its user has in the environment."""

    address: str
    token: str
    environment: Mapping[str, str]
    process: psutil.Process
    folder: Path
    ray: Path
    """Ray's own files; its sockets want a short path."""
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *arguments: object, **more: str) -> subprocess.Popen[str]:
        """Start ``segan-ray submit`` for this cluster; ``more`` is put into its environment."""
        words = [sys.executable, "-m", "segan_ray", "submit", *map(str, arguments)]
        if "--address" not in words:
            words[4:4] = ["--address", self.address]
        process = subprocess.Popen(
            words, cwd=self.folder, env={**self.environment, **more}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.started.append(process)
        return process

    def submit(self, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
        """Run ``segan-ray submit`` for this cluster to its end."""
        process = self.start(*arguments, **more)
        out, err = process.communicate(timeout=900)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def get(self, path: str) -> str:
        """Return what the dashboard answers, as text."""
        header = {"Authorization": f"Bearer {self.token}"}
        reply = requests.get(f"{self.address}{path}", headers=header, timeout=60)
        return reply.text

    def processes(self) -> list[psutil.Process]:
        """Every process of the cluster."""
        return [self.process, *self.process.children(recursive=True)]


@contextmanager
def job_cluster(folder: Path, token: str, secrets: Mapping[str, str]) -> Iterator[JobCluster]:
    """Start a head node of two cores whose environment has ``secrets``, as its user's has."""
    gcs, dashboard, client, *agents = free_ports(6)
    # Two agents on one machine must not meet: the second would take no jobs.
    of_agent = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port")
    plain = {
        name: value
        for name, value in os.environ.items()
        if name not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "SEGAN_RAY_HOME")
    }
    environment = {
        **plain,
        **secrets,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "SEGAN_RAY_CACHE": str(folder / "cache"),
    }
    log, ray = folder / "ray.log", Path(tempfile.mkdtemp(prefix="ray-"))
    process = subprocess.Popen(
        [
            Path(sys.executable).with_name("ray"), "start", "--head", "--block",
            f"--node-ip-address={LOOPBACK}", f"--port={gcs}", f"--dashboard-host={LOOPBACK}",
            f"--dashboard-port={dashboard}", "--num-cpus=2", f"--temp-dir={ray}",
            f"--object-store-memory={100 * 2**20}", f"--ray-client-server-port={client}",
            *(f"--{name}={port}" for name, port in zip(of_agent, agents, strict=True)),
        ],
        env=environment, stdout=log.open("w"), stderr=subprocess.STDOUT, cwd=folder,
    )  # fmt: skip
    root = psutil.Process(process.pid)
    cluster = JobCluster(f"http://{LOOPBACK}:{dashboard}", token, environment, root, folder, ray)
    try:
        until(lambda: _has_jobs(cluster), process, log)
        yield cluster
    finally:
        below = root.children(recursive=True)
        process.terminate()
        process.wait(900)
        _, left = psutil.wait_procs(below, 20)
        for one in [*left, *(each for each in cluster.started if each.poll() is None)]:
            one.kill()
        shutil.rmtree(ray, ignore_errors=True)


def _has_jobs(cluster: JobCluster) -> bool:
    try:
        return cluster.get("/api/jobs/") == "[]"
    except requests.RequestException:
        return False
