"""Where Ray Tune and Ray Train keep their own files while a sweep runs; nothing of ours is there.

Ray reaches URLs through fsspec as we do, so that one set of credentials does for both.
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
    """Return what Ray's ``RunConfig`` is told of its storage."""
    if not is_url(location):
        return {"storage_path": location}
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    system, path = open_location(location)
    return {"storage_path": path, "storage_filesystem": PyFileSystem(FSSpecHandler(system))}


def forget_engine(storage: str) -> None:
    """Remove Ray's own files of a sweep that is over; what stays does no harm."""
    location = f"{storage}/{ENGINE}"
    if not is_url(location):
        shutil.rmtree(Path(location), ignore_errors=True)
        return
    with contextlib.suppress(CheckpointError):
        remove_all(location)
