"""Where things may be: a local folder, or a URL that fsspec reads (s3://…, file://…).

A place is a ``str`` wherever it travels, for ``Path`` would fold the slashes of a URL.
"""

from __future__ import annotations

from pathlib import Path


def is_url(where: str | Path) -> bool:
    """Tell a URL from a folder."""
    return "://" in str(where)


def absolute(where: str | Path) -> str:
    """Return a place that means the same in every working directory."""
    return str(where).rstrip("/") if is_url(where) else str(Path(where).resolve())


def location_name(where: str | Path) -> str:
    """Return the last part of a place."""
    return absolute(where).rpartition("/")[2]
