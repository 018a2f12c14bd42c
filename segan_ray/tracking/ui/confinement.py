"""Confining MLflow's server to the folders whose files it should show.

MLflow reads and writes artifacts at the address in their record, and a record can hold any address:
an experiment takes any folder for its artifacts, and a folder may be a link to another. So our
server checks, for each artifact, that its address is below the folders of its own records.
"""

from __future__ import annotations

import functools
import os
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.store.artifact.artifact_repository_registry import get_registered_artifact_repositories
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import get_uri_scheme

from segan_ray.errors import cut
from segan_ray.home import Home
from segan_ray.redaction import mask

LOCAL: Final = ("", "file")
_REFERRING: Final = ("runs", "models")
"""Schemes whose artifacts MLflow looks up under another scheme."""


@dataclass(frozen=True)
class Places:
    """Where artifacts may be: below ``folders`` and, if ``remote``, at s3://… and the like.

    The folders are without links, so that one replaced by a link later is refused.
    """

    folders: tuple[Path, ...]
    remote: bool

    def check(self, location: str) -> None:
        """Make sure that artifacts may be at ``location``, a folder or URI.

        Raises:
            MlflowException: if not, as a refusal that MLflow's server answers with 403.
        """
        if get_uri_scheme(location) in LOCAL:
            if not self.hold(Path(local_file_uri_to_path(location))):
                self.refuse(location)
        elif not self.remote:
            self.refuse(location)

    def hold(self, path: Path) -> bool:
        """Tell whether ``path`` is below one of the folders once its links are followed."""
        try:
            # Path.resolve() raises for links in a circle.
            real = Path(os.path.realpath(path))
        except ValueError:  # for a character that no path can hold
            return False
        return any(real.is_relative_to(folder) for folder in self.folders)

    def refuse(self, location: str) -> NoReturn:
        """Raise the error that artifacts may not be at ``location``."""
        folders = " and ".join(map(str, self.folders))
        raise MlflowException(
            f"Artifacts at {cut(mask(location), 200)} are not shown, read or written here: "
            f"segan-ray ui keeps to {folders}.",
            PERMISSION_DENIED,
        )


def places_of(home: Home, experiment: str) -> Places:
    """Return where artifacts of the home's records may be.

    ``experiment`` is the artifact folder of the project's experiment: with a database elsewhere it
    need not be in the home.
    """
    folders = [str(home.artifacts)]
    if not home.tracks_itself and get_uri_scheme(experiment) in LOCAL:
        folders.append(local_file_uri_to_path(experiment))
    real = tuple(Path(os.path.realpath(folder)) for folder in folders)
    return Places(real, remote=not home.tracks_itself)


@contextmanager
def confined(places: Places) -> Iterator[None]:
    """Let MLflow in this process read and write artifacts only at ``places`` in the block."""
    repositories: dict[str, Any] = get_registered_artifact_repositories()
    before = dict(repositories)
    for scheme in before:
        if scheme in LOCAL:
            repositories[scheme] = functools.partial(_ConfinedRepository, places)
        elif scheme not in _REFERRING and not places.remote:
            repositories[scheme] = functools.partial(_refuse, places)
    try:
        yield
    finally:
        repositories.update(before)


def confine_experiments(store: Any, places: Places) -> None:
    """Let ``store``, the store of MLflow's server, make experiments at ``places`` alone."""
    create = store.create_experiment

    def create_within(name: str, artifact_location: str | None = None, tags: Any = None) -> str:
        if artifact_location:
            places.check(artifact_location)
        return str(create(name, artifact_location, tags))

    store.create_experiment = create_within


def _refuse(places: Places, artifact_uri: str, **_: Any) -> NoReturn:
    places.refuse(artifact_uri)


class _ConfinedRepository(LocalArtifactRepository):
    """MLflow's artifacts in a folder, refused if that folder is not at ``places``.

    MLflow itself refuses a link out of the folder where it reads or writes a single file. The
    methods here add the check for several files.
    """

    def __init__(self, places: Places, artifact_uri: str, **options: Any) -> None:
        super().__init__(artifact_uri, **options)
        self._places = places

    @property
    def artifact_dir(self) -> str:
        """The folder, checked at each access, since it may have become a link."""
        folder = str(self._artifact_dir)
        if not self._places.hold(Path(folder)):
            self._places.refuse(self.artifact_uri)
        return folder

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        folder = Path(self.artifact_dir)
        files: list[FileInfo] = super().list_artifacts(path)  # type: ignore[no-untyped-call]
        return [file for file in files if self._places.hold(folder / file.path)]

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        for file in sorted(Path(local_dir).rglob("*")):
            if file.is_file():
                folder = file.parent.relative_to(local_dir).as_posix()
                inside = posixpath.normpath(posixpath.join(artifact_path or "", folder))
                where = None if inside == "." else inside
                self.log_artifact(str(file), where)  # type: ignore[no-untyped-call]

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        self._check(artifact_path or "")
        super().delete_artifacts(artifact_path)  # type: ignore[no-untyped-call]

    def download_trace_data(self) -> dict[str, Any]:
        self._check("traces.json")
        return dict(super().download_trace_data())

    def _check(self, artifact_path: str) -> None:
        if not self._places.hold(Path(self.artifact_dir) / artifact_path):
            self._places.refuse(f"{self.artifact_uri}/{artifact_path}")
