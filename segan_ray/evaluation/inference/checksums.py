"""Checksums of a packaged model: are its files still those that were packaged?

``checksums.json`` lies beside the files and shows damage. ``digest`` is noted with the registered
version, away from the files. A change therefore shows unless both are changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from segan_ray.documents import LIST_BYTES, open_regular, parse_json, read_bytes
from segan_ray.errors import CheckpointError, cut, said, visible

CHECKSUMS: Final = "checksums.json"
ADDED: Final = frozenset({"registered_model_meta"})
"""Files that MLflow writes into a model when it loads the model."""


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every file below ``folder`` into its ``checksums.json``."""
    checksums = {
        path.relative_to(folder).as_posix(): _sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / CHECKSUMS
    }
    (folder / CHECKSUMS).write_text(json.dumps(checksums, indent=1), encoding="utf-8")


def has_checksums(folder: Path) -> bool:
    """Tell whether ``folder`` has a ``checksums.json``."""
    return (folder / CHECKSUMS).is_file()


def compare_checksums(folder: Path) -> None:
    """Make sure that the files of ``folder`` are those that were packaged.

    Raises:
        CheckpointError: naming the file that is missing or another.
    """
    for name, expected in _noted(folder / CHECKSUMS).items():
        path = folder / name
        try:
            actual = _sha256(path)
        except FileNotFoundError:
            raise CheckpointError(
                f"{path}: is missing from the packaged model. Fetch it again."
            ) from None
        except (OSError, ValueError) as error:
            # The operating system may refuse the name itself.
            raise CheckpointError(
                f"{folder}/{visible(cut(name))}: cannot be read ({said(error)})."
            ) from None
        if actual != expected:
            raise CheckpointError(
                f"{path}: was changed after the model was packaged (its SHA-256 is not the one in "
                f"{CHECKSUMS}). Fetch the model again, or promote it again if that does not help."
            )


def digest(folder: Path) -> str:
    """Return one SHA-256 over the names and contents of every file below ``folder``.

    Files that loading adds are left out: Python's compiled modules and MLflow's note of the
    version.
    """
    whole = hashlib.sha256()
    for name, path in sorted(
        (path.relative_to(folder).as_posix(), path) for path in _files(folder)
    ):
        whole.update(f"{_sha256(path)}  {name}\n".encode())
    return whole.hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        if path.is_file() and "__pycache__" not in inside.parts and str(inside) not in ADDED:
            yield path


def _noted(path: Path) -> dict[str, str]:
    try:
        checksums = parse_json(read_bytes(path, LIST_BYTES))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: is missing from the packaged model.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({said(error)}).") from None
    if not isinstance(checksums, dict) or not checksums:
        raise CheckpointError(f"{path}: expected checksums by file name.")
    for name in checksums:
        if not _is_below(name):
            raise CheckpointError(
                f"{path}: names '{visible(cut(name))}', which is no file below its folder. It is "
                "not as "
                "it was made: fetch the model again."
            )
    return checksums


def _is_below(name: str) -> bool:
    path = PurePosixPath(name)
    plain = str(path) == name and ".." not in path.parts and not path.is_absolute()
    return plain and name != "." and "\0" not in name


def _sha256(path: Path) -> str:
    with open_regular(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
