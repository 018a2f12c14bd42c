"""Writing files whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from segan_ray.errors import DataError


def check_folder(path: Path) -> None:
    """Make sure that ``path`` can be written later, before work is spent on it.

    Raises:
        DataError: if its folder is not there.
    """
    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist. Make it first.")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` so that no reader ever finds half of it.

    Raises:
        DataError: if the folder is not there or cannot be written to.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that no reader ever finds half of it.

    Raises:
        DataError: if the folder is not there or cannot be written to.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot be written ({error.strerror}).") from None
