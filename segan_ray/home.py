"""The home: one folder with all records that are not configured to be elsewhere."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segan_ray.databases import sqlite_url
from segan_ray.errors import SweepError
from segan_ray.filesystem.locations import absolute
from segan_ray.redaction import mask

DEFAULT_HOME: Final = "segan-ray-home"
TRACKING_URI: Final = "MLFLOW_TRACKING_URI"
"""The variable that puts records on a server; MLflow reads it as well."""
STORAGE: Final = "SEGAN_RAY_STORAGE"
"""The variable that puts checkpoints elsewhere: a URL, or a folder that every node sees."""
OPTUNA_STORAGE: Final = "OPTUNA_STORAGE"
"""The variable that puts the studies of sweeps elsewhere; Optuna's own tools read it as well."""
HOME: Final = "SEGAN_RAY_HOME"
"""The variable of ``--home``."""
RESUME_WITH: Final = "SEGAN_RAY_RESUME_WITH"
"""The variable with the command that goes on with a sweep, where it is not the sweep's own."""
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""The names that sweeps and spaces may have: a name becomes a folder, a study and a tag."""
NAMES: Final = (
    "Use letters, digits, '-', '_' and '.', beginning with a letter or digit, at most 100."
)


OTHER_HOME: Final = "Choose another --home, or have its owner let you write there."
"""What to do where a home cannot be written."""


def mend_database(reason: str) -> str:
    """Return what to do about a database of the home that cannot be used because of ``reason``."""
    if "disk is full" in reason:  # as SQLite says it
        return "Make room there, or choose another --home."
    return "Put a sound copy in its place, or choose another --home."


@dataclass(frozen=True)
class Home:
    """The folder of ``--home`` / ``SEGAN_RAY_HOME``; every path in it is absolute."""

    folder: Path

    @classmethod
    def usual(cls) -> Home:
        """Return the home at SEGAN_RAY_HOME, or in the current folder."""
        named = os.environ.get(HOME)
        return cls.at(Path(named) if named else None)

    @classmethod
    def at(cls, folder: Path | None) -> Home:
        """Return the home at ``folder``, or at ``./segan-ray-home``."""
        return cls((folder or Path(DEFAULT_HOME)).resolve())

    @property
    def tracking_uri(self) -> str:
        """``MLFLOW_TRACKING_URI`` if set, else the home's own SQLite database."""
        return os.environ.get(TRACKING_URI) or sqlite_url(self.tracking_database)

    @property
    def records(self) -> str:
        """The location of runs, for messages: ``MLFLOW_TRACKING_URI`` if set, else this folder."""
        return str(self.folder) if self.tracks_itself else mask(self.tracking_uri)

    @property
    def tracks_itself(self) -> bool:
        """Whether records are in the home's own database."""
        return not os.environ.get(TRACKING_URI)

    @property
    def tracking_database(self) -> Path:
        """The home's own MLflow database."""
        return self.folder / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """The folder of MLflow's artifacts, if records are in the home's own database."""
        return self.folder / "mlartifacts"

    @property
    def studies(self) -> Path:
        """The database of Optuna's studies, unless ``OPTUNA_STORAGE`` names another."""
        return self.folder / "optuna.db"

    @property
    def sweeps(self) -> Path:
        """The folder in which the process of each sweep has a folder of its own."""
        return self.folder / "sweeps"

    @property
    def storage_setting(self) -> str | None:
        """``SEGAN_RAY_STORAGE``, absolute, or None if it is not set."""
        given = os.environ.get(STORAGE)
        return absolute(given) if given else None

    @property
    def storage(self) -> str:
        """The location of checkpoints and of Ray's own files: a folder, or a URL (s3://…).

        ``SEGAN_RAY_STORAGE`` if set, else in the home. Every node must see it.
        """
        return self.storage_setting or str(self.sweeps)

    def storage_of(self, sweep: str) -> str:
        """Return the location of that sweep in the storage."""
        return f"{self.storage}/{sweep}"

    def checkpoints(self, sweep: str) -> str:
        """Return the location of a sweep's checkpoints, a folder a trial."""
        return f"{self.storage_of(sweep)}/checkpoints"


def resume_command(home: Home, *arguments: str) -> str:
    """Return the command that goes on with ``segan-ray arguments``; ``RESUME_WITH`` may set it."""
    at = () if home == Home.usual() else ("--home", str(home.folder))
    own = shlex.join(["segan-ray", *arguments, "--resume", *at])
    return os.environ.get(RESUME_WITH) or own


def check_name(name: str) -> str:
    """Return ``name`` if it can name a sweep: it becomes a folder and a study.

    Raises:
        SweepError: saying which characters are allowed.
    """
    if not NAME.fullmatch(name):
        raise SweepError(f"'{name}' cannot name a sweep. {NAMES}")
    return name
