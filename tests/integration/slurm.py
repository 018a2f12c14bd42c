"""A Slurm of two nodes on this machine: munged, slurmctld and two slurmd.

Ray nodes that join by address want one that is not loopback. They get it in a network namespace
that has no way out, so that nothing of this can be reached from elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.integration.backends import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "ip", "nsenter", "unshare")
ADDRESS = "10.77.0.1"
NODES = ("first", "second")
UP_S = 300


def missing() -> str:
    """Why there can be no Slurm here, or nothing."""
    absent = [program for program in PROGRAMS if _find(program) is None]
    if absent:
        return f"{', '.join(absent)} not found (Debian packages slurm-wlm and munge)"
    if os.geteuid() != 0:
        return "slurmd starts jobs as root only"
    alone = subprocess.run(
        ["unshare", "--net", "true"], check=False, capture_output=True, text=True
    )
    return f"no network namespace can be made: {alone.stderr}" if alone.returncode else ""


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@dataclass(frozen=True)
class Slurm:
    """A running Slurm; its commands find it through their environment."""

    folder: Path
    network: int
    """The process whose network namespace all of it is in."""

    def inside(self, *command: str) -> list[str]:
        """The command, in Slurm's network."""
        return ["nsenter", f"--target={self.network}", "--net", *command]

    @property
    def environment(self) -> dict[str, str]:
        """What its clients need, and nothing of the Ray of this process."""
        others = {name: value for name, value in os.environ.items() if name[:4] != "RAY_"}
        return {**others, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def __call__(self, *command: str, **environment: str) -> str:
        """Run one of its commands and return what it prints."""
        return subprocess.run(
            self.inside(*command),
            env={**self.environment, **environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        told = self("scontrol", "--oneliner", "show", "job", number)
        return dict(pair.split("=", 1) for pair in told.split() if "=" in pair)


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Slurm with two nodes of two CPUs each, both of them this machine."""
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(64))
    (folder / "munge.key").chmod(0o600)
    with contextlib.ExitStack() as running:
        # slurmd opens sockets there, whose paths may have 108 characters.
        spool = running.enter_context(TemporaryDirectory(prefix="slurmd-", dir="/tmp"))
        (folder / "slurm.conf").write_text(_configuration(folder, spool))
        here = Slurm(folder, running.enter_context(_network()))

        def start(program: str, *arguments: str) -> None:
            running.enter_context(_running(_find(program), arguments, here))

        start(
            "munged",
            *("--foreground", "--force", "--num-threads=1"),
            *(f"--{name}={folder / path}" for name, path in MUNGE_FILES.items()),
        )
        _until((folder / "munge.socket").exists, here)
        start("slurmctld", "-D", "-i")
        for node in NODES:
            start("slurmd", "-D", "-N", node)
        _until(lambda: here("sinfo", "-h", "-t", "idle", "-o", "%D") == str(len(NODES)), here)
        try:
            yield here
        finally:
            # slurmd leaves jobs running when it ends.
            here("scancel", "--user=root")
            _until(lambda: not here("squeue", "--noheader"), here)


MUNGE_FILES = {
    "socket": "munge.socket",
    "key-file": "munge.key",
    "log-file": "munge.log",
    "pid-file": "munge.pid",
    "seed-file": "munge.seed",
}


@contextmanager
def _network() -> Iterator[int]:
    """A network with loopback and one address; the process that holds it."""
    up = f"ip link set lo up && ip address add {ADDRESS}/32 dev lo && echo up && exec cat"
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", up], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        yield holder.pid
    finally:
        holder.communicate()


def _configuration(folder: Path, spool: str) -> str:
    controller, *ports = free_ports(1 + len(NODES))
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={os.uname().nodename} NodeAddr={ADDRESS} Port={port} "
        "CPUs=2 RealMemory=4000"
        for node, port in zip(NODES, ports, strict=True)
    )
    return f"""
ClusterName=test
SlurmctldHost={os.uname().nodename}({ADDRESS})
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
FirstJobId={os.getpid()}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={spool}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=30
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP MaxTime=INFINITE
"""


@contextmanager
def _running(program: str | None, arguments: tuple[str, ...], slurm: Slurm) -> Iterator[None]:
    assert program is not None
    with (slurm.folder / "daemons.log").open("a") as log:
        process = subprocess.Popen(
            slurm.inside(program, *arguments),
            env=slurm.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(300)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(300)


def _until(ready: Callable[[], bool], slurm: Slurm) -> None:
    end = time.monotonic() + UP_S
    while True:
        with contextlib.suppress(subprocess.CalledProcessError):
            if ready():
                return
        assert time.monotonic() < end, _logs(slurm.folder)
        time.sleep(0.2)


def _logs(folder: Path) -> str:
    return "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.log")))
