"""Tables of scores as files: CSV for people and spreadsheets, Parquet for programs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

import pandas as pd

from segan_ray.errors import DataError
from segan_ray.filesystem.atomic_files import check_folder, write_bytes

ENDINGS: Final = (".csv", ".parquet")


def check_table(path: Path) -> None:
    """Make sure that a table can be written to ``path``, before work is spent on it.

    Raises:
        DataError: if its name does not end in .csv or .parquet, or its folder is not there.
    """
    if path.suffix.lower() not in ENDINGS:
        raise DataError(f"{path}: expected a name that ends in {' or '.join(ENDINGS)}.")
    check_folder(path)


def encode_table(table: pd.DataFrame, ending: str) -> bytes:
    """Return the bytes of a file of ``table`` whose name ends in ``ending``."""
    if ending == ".csv":
        return table.to_csv(index=False).encode()
    encoded = io.BytesIO()
    table.to_parquet(encoded, index=False)
    return encoded.getvalue()


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write ``table`` to ``path`` whole or not at all.

    Raises:
        DataError: if that cannot be done.
    """
    write_bytes(path, encode_table(table, path.suffix.lower()))
