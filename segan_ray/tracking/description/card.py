"""What a run records of its data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StoreCard:
    """Where the store is, a folder or URL; its fingerprint; how many patients each split has.

    ``folds`` is how many ways there are to divide its train and val patients, 0 without folds.
    """

    path: str | Path
    fingerprint: str
    patients: Mapping[str, int]
    folds: int = 0
