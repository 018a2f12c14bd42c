"""All that this package starts listens on loopback alone, by the kernel's own tables."""

from __future__ import annotations

import ipaddress
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from segan_ray.config import build
from segan_ray.home import Home
from segan_ray.orchestration.tune.one_trial import train_one
from segan_ray.search.results.trial_state import TrialState
from tests.integration.conftest import SPACE, card
from tests.integration.killing import family

pytestmark = pytest.mark.slow

PROGRAM = [sys.executable, "-c", "from segan_ray.cli.main import main; main()"]


def listening(root: psutil.Process) -> Iterator[tuple[str, int, str]]:
    """Address, port and process of each socket at which ``root`` and its family take calls."""
    for process in (root, *family(root)):
        try:
            (title, *_) = process.cmdline() or [process.name()]
            for one in process.net_connections("inet"):
                if one.status == psutil.CONN_LISTEN or (
                    one.type == socket.SOCK_DGRAM and not one.raddr
                ):
                    yield one.laddr.ip, one.laddr.port, title.rpartition("/")[2]
        except psutil.Error:
            continue


def is_loopback(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def test_a_socket_that_is_open_to_the_network_is_seen() -> None:
    with socket.socket() as everywhere:
        everywhere.bind(("0.0.0.0", 0))
        everywhere.listen()
        port = everywhere.getsockname()[1]
        here = {at: address for address, at, _ in listening(psutil.Process())}
    assert here[port] == "0.0.0.0"
    assert [is_loopback(at) for at in ("0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1")] == [
        False
    ] * 4
    assert all(map(is_loopback, ("127.0.0.1", "::1", "::ffff:127.0.0.1")))


def test_a_cluster_of_our_own_and_workers_that_train_together(
    cluster: None, store: Path, tmp_path: Path
) -> None:
    """Two workers, for PyTorch's own rendezvous of those would be open to the network."""
    seen: dict[tuple[str, int], str] = {}

    def look(_: TrialState) -> None:
        seen.update({(address, port): of for address, port, of in listening(psutil.Process())})

    workers = {"retries": 0, "workers": 2, "cpus_per_worker": 1}
    training = {**SPACE.base["training"], "epochs": 1}
    settings = {**SPACE.base, "resources": workers, "training": training}
    home = Home.at(tmp_path / "home")
    experiment = build(settings, "here")
    train_one("run", experiment, store, card(store), home, look, lambda sentence: None)
    assert {"gcs_server", "raylet", "ray::RayTrainWorker"} <= {
        of.split(".")[0] for of in seen.values()
    }
    assert {place: of for place, of in seen.items() if not is_loopback(place[0])} == {}


OPENED = """
import psutil
from segan_ray.orchestration.cluster.session import ray_session
from tests.integration.test_listening import is_loopback, listening
with ray_session():
    found = {at for at, _, _ in listening(psutil.Process())}
print(len(found) > 0, [at for at in found if not is_loopback(at)])
"""


@pytest.mark.endurance
def test_a_setting_for_clusters_opens_none_of_our_own(tmp_path: Path) -> None:
    """As somebody has it in their profile who joins clusters from a Mac."""
    environment = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
    done = subprocess.run(
        [sys.executable, "-c", OPENED],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "True []"


def test_the_ui(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {name: value for name, value in os.environ.items() if "MLFLOW" not in name}
    with subprocess.Popen(
        [*PROGRAM, "ui", "--home", str(tmp_path / "home"), "--port", str(port)],
        env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        try:
            assert server.stderr is not None
            _, _, token = server.stderr.readline().partition(f"http://127.0.0.1:{port}/?token=")
            ours = {"Authorization": f"Bearer {token.split()[0]}"}
            found = {(address, at) for address, at, _ in listening(psutil.Process(server.pid))}
            assert found == {("127.0.0.1", port)}
            # A page elsewhere could call itself 127.0.0.1 and read along.
            here = urllib.request.Request(f"http://127.0.0.1:{port}/", headers=ours)
            assert urllib.request.urlopen(here, timeout=60).status == 200
            elsewhere = urllib.request.Request(
                f"http://127.0.0.1:{port}/", headers={**ours, "Host": "rebound.example"}
            )
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(elsewhere, timeout=60)
        finally:
            server.kill()
