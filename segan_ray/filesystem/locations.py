"""Locations: a local folder, or a URL that fsspec reads (s3://…, file://…).

A location is passed on as a ``str``, since ``Path`` would fold the slashes of a URL.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

PAGES: Final = (".html", ".htm")


def is_page(path: Path) -> bool:
    """Tell whether a file's name is that of a page."""
    return path.suffix.lower() in PAGES


def is_url(location: str | Path) -> bool:
    """Tell a URL from a folder."""
    return "://" in str(location)


def absolute(location: str | Path) -> str:
    """Return a location that means the same in every working directory."""
    return str(location).rstrip("/") if is_url(location) else str(Path(location).resolve())


def location_name(location: str | Path) -> str:
    """Return the last part of a location."""
    return absolute(location).rpartition("/")[2]
