"""What a run says of its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StoreCard:
    """Where the store is, its fingerprint, and how many patients each split has."""

    path: Path
    fingerprint: str
    patients: Mapping[str, int]
