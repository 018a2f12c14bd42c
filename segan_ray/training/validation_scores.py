"""The validation scores of a segmentor, and the score that decides the best epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from segan_ray.brats import REGIONS, Region

SCORE: Final = "val/dice_mean"
VALIDATION: Final = (
    *(
        f"val/{name}_{region}"
        for name in ("dice", "precision", "sensitivity")
        for region in REGIONS
    ),
    SCORE,
)
"""The names of every validation score."""

EMPTY: Final = 1e-4
FULL: Final = 0.99
"""The shares of voxels at which a map is useless: up to ``EMPTY`` it marks less than 0.15 ml of a
brain, from ``FULL`` on it marks nearly all of the brain."""


@dataclass(frozen=True)
class Validation:
    """Scores over the validation patients, and the share of its voxels that each map fills."""

    scores: Mapping[str, float]
    filled: Mapping[Region, float]

    @property
    def collapse(self) -> str | None:
        """How the segmentor has collapsed, or None while a map is neither empty nor full."""
        kinds = {region: _degenerate(share) for region, share in self.filled.items()}
        if not all(kinds.values()):
            return None
        if len(set(kinds.values())) == 1:
            return f"every map is {next(iter(kinds.values()))}"
        return ", ".join(f"{region} is {kind}" for region, kind in kinds.items())


def _degenerate(share: float) -> str | None:
    if share <= EMPTY:
        return "empty"
    return "full" if share >= FULL else None
