"""The storage of Ray Tune's and Ray Train's own files while a sweep runs; none of ours is there.

Ray reaches URLs through fsspec as we do, so that both use the same credentials.
"""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any, Final

from segan_ray.data.store.remote_manifest import open_location
from segan_ray.errors import CheckpointError
from segan_ray.filesystem.locations import is_url
from segan_ray.training.checkpoints.remote_folder import remove_all

ENGINE: Final = "ray"


def engine_storage(location: str) -> dict[str, Any]:
    """Return the arguments of Ray's ``RunConfig`` for its storage."""
    if not is_url(location):
        return {"storage_path": location}
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    system, path = open_location(location)
    return {"storage_path": path, "storage_filesystem": PyFileSystem(FSSpecHandler(system))}


def forget_engine(storage: str) -> None:
    """Remove Ray's own files of an ended sweep; files that cannot be removed are harmless."""
    location = f"{storage}/{ENGINE}"
    if not is_url(location):
        shutil.rmtree(Path(location), ignore_errors=True)
        return
    with contextlib.suppress(CheckpointError):
        remove_all(location)
