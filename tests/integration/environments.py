"""Clean virtual environments, filled from the environment of the tests, which has the same pins."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement


def run(command: Sequence[str], folder: Path, environment: dict[str, str]) -> str:
    """Return what a command prints; nothing that it started is left when it was interrupted."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, f"{command}\n{output[-4000:]}\n{errors[-4000:]}"
    return output


def make_environment(venv: Path, requirement: str) -> None:
    """Make an environment with all that a requirement on segan-ray brings, but segan-ray itself."""
    run([sys.executable, "-m", "venv", str(venv)], venv.parent, dict(os.environ))
    site = sysconfig.get_path("purelib", vars={"base": str(venv), "platbase": str(venv)})
    for package in wanted(Requirement(requirement), set()):
        for file in package.files or ():
            copy = Path(os.path.normpath(Path(site, file)))
            copy.parent.mkdir(parents=True, exist_ok=True)
            if copy.parent.name == "bin":
                script = package.locate_file(file).read_bytes()
                copy.write_bytes(script.replace(sys.prefix.encode(), bytes(venv)))
                copy.chmod(0o755)
            elif package.locate_file(file).exists():
                linked(package.locate_file(file), copy)


def plain(name: str) -> str:
    """The one way to write a package's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(requirement: Requirement, known: set[str]) -> Iterator[Distribution]:
    """The packages that a requirement brings here, each of them once, but for this one itself."""
    there = distribution(requirement.name)
    for extra in ("", *requirement.extras):
        if (asked := f"{plain(requirement.name)}[{extra}]") in known:
            continue
        known.add(asked)
        if plain(requirement.name) != "segan-ray" and not extra:
            yield there
        for line in there.requires or ():
            inner = Requirement(line)
            if inner.marker is None or inner.marker.evaluate({"extra": extra}):
                yield from wanted(inner, known)


def linked(file: Path, copy: Path) -> None:
    """Link a file, since nothing writes to these gigabytes; copy it to another disk."""
    copy.unlink(missing_ok=True)  # two packages may bring one file
    try:
        os.link(file, copy)
    except OSError:
        shutil.copy2(file, copy)
