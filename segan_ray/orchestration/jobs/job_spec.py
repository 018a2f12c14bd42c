"""What a Ray Job needs of the machine it is submitted from, and what must stay there.

Ray's dashboard shows a job's command, environment and metadata to all its users. So addresses with
a password stay here, and the job takes them from the environment of the cluster's nodes.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segan_ray import __version__
from segan_ray.errors import ClusterError
from segan_ray.filesystem.locations import is_url
from segan_ray.home import HOME, OPTUNA_STORAGE, RESUME_WITH, STORAGE, TRACKING_URI
from segan_ray.redaction import holds_secret, mask

ADDRESSES: Final = (TRACKING_URI, OPTUNA_STORAGE, STORAGE)
"""Variables of where records go; each travels if it holds no secret."""
SECRETS: Final = (
    "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PGPASSWORD",
)  # fmt: skip
"""Credentials for these addresses; they never travel."""
LARGEST_FILE_BYTES: Final = 2**20
STOP_WAIT_S: Final = 120
"""How long Ray waits for a job that it asked to stop before it kills it; by default 3 s."""
BEGIN: Final = "segan_ray.cli.begin_job"


@dataclass(frozen=True)
class JobSpec:
    """One job: its command, the files that travel with it, and what its nodes must have.

    Attributes:
        sweep: The name of the sweep or run.
        words: The command of segan-ray, with the files' names on the cluster.
        again: The command that resumes the sweep, as typed here.
        home: The home if neither the command nor the node names one.
        files: The content of files that travel, by name.
        environment: The environment variables that travel.
        needed: Variables that the node must have, because they hold a secret here.
        unsent: All variables that did not travel because they hold a secret.
        package: Whether the code of this segan-ray travels too.
    """

    sweep: str
    words: tuple[str, ...]
    again: tuple[str, ...]
    home: str
    files: Mapping[str, bytes]
    environment: Mapping[str, str]
    needed: tuple[str, ...]
    unsent: tuple[str, ...]
    package: bool = False

    def entrypoint(self) -> str:
        """Return the job's shell command, which runs the first Python with ray and segan_ray.

        Ray does not tell a job which Python started Ray. So the command tries those on the path
        and this process's, which is right where machines share an image or a file system.
        """
        begin = [
            "-P", "-m", BEGIN, "--version", __version__, "--home", self.home,
            *(part for name in self.needed for part in ("--needs", name)), "--", *self.words,
        ]  # fmt: skip
        pythons = shlex.join(("python3", "python", sys.executable))
        has_all = shlex.quote(
            'from importlib.util import find_spec; exit(not (find_spec("ray") and '
            'find_spec("segan_ray")))'
        )
        missing = shlex.quote(
            "Error: no Python on the head node has both ray and segan_ray. Install segan-ray "
            f"{__version__} there, or submit with --package where only its code is missing."
        )
        return (
            f'for python in {pythons}; do "$python" -P -c {has_all} 2>/dev/null && '
            f'exec "$python" {shlex.join(begin)}; done; echo {missing} >&2; exit 1'
        )

    def variables(self, resume_with: str) -> dict[str, str]:
        """Return the job's environment; ``resume_with`` is the command that resumes the sweep."""
        return {
            **self.environment,
            RESUME_WITH: resume_with,
            "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S),
        }


def seen_from_afar(location: str) -> str:
    """Return a location that is valid in every working directory: a path becomes absolute."""
    scheme, slashes, rest = location.partition(":///")
    if slashes and scheme.startswith("sqlite") and not rest.startswith("/"):
        return f"{scheme}:///{Path(rest).resolve()}"
    return location if is_url(location) else str(Path(location).expanduser().resolve())


def environment_of(variables: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the variables that travel, and the names of those that must not."""
    given = {name: variables[name] for name in (*ADDRESSES, HOME) if variables.get(name)}
    needed = tuple(name for name, value in given.items() if holds_secret(value))
    return {
        name: seen_from_afar(value) for name, value in given.items() if name not in needed
    }, needed


def unsent_of(variables: Mapping[str, str], needed: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all variables that stay here because they hold secrets."""
    return (*needed, *(name for name in SECRETS if variables.get(name)))


def check_open(words: Sequence[str], variables: Mapping[str, str]) -> None:
    """Make sure that a command may be shown to every user of the dashboard.

    Raises:
        ClusterError: if a part of it holds a secret, or the value of a secret variable.
    """
    secrets = [variables[name] for name in SECRETS if len(variables.get(name, "")) >= 8]
    for word in words:
        if holds_secret(word):
            shown = mask(word)
        elif any(secret in word for secret in secrets):
            shown = "An argument"
        else:
            continue
        raise ClusterError(
            f"{shown} holds a password or token, and Ray's dashboard shows a job's command. "
            "Leave it out and set it in the environment of the cluster's nodes."
        )


def carried(path: Path) -> bytes:
    """Return the content of a file that travels.

    Raises:
        ClusterError: if the file cannot be read, or is too large for a file of settings.
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise ClusterError(f"{path}: cannot be read ({error.strerror}).") from None
    if len(content) > LARGEST_FILE_BYTES:
        raise ClusterError(
            f"{path}: is larger than {LARGEST_FILE_BYTES // 2**20} MiB, which no file of settings "
            "is. Only such a file travels with a job."
        )
    return content
