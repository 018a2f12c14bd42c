"""``segan-ray ui`` as a process, and what it says of where it is."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from segan_ray.home import Home

PROGRAM = [sys.executable, "-c", "from segan_ray.cli.main import main; main()"]


@dataclass(frozen=True)
class Served:
    process: subprocess.Popen[str]
    port: int
    token: str

    @property
    def place(self) -> str:
        """The address without the secret."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def address(self) -> str:
        """What it told its owner to open."""
        return f"{self.place}?token={self.token}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(home: Home, **settings: str) -> Iterator[Served]:
    """``segan-ray ui`` once it has said where it is; ended with all its processes."""
    port = free_port()
    usual = {name: value for name, value in os.environ.items() if "MLFLOW" not in name}
    server = subprocess.Popen(
        [*PROGRAM, "ui", "--home", str(home.folder), "--port", str(port)],
        env={**usual, **settings}, cwd=home.folder,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stderr is not None
    try:
        said = server.stderr.readline()
        told = re.search(
            rf" http://127\.0\.0\.1:{port}/\?token=([\w-]{{43}}) \(Ctrl-C ends\)$", said
        )
        assert told, said + server.stderr.read()
        yield Served(server, port, told[1])
    finally:
        server.kill()
        server.communicate()
