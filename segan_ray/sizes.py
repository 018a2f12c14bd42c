"""How large settings may be, and how many weights their networks have; no network is made.

Bounds are far above any real training. They refuse a slip of the keyboard before memory, disks or
centuries are spent on it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

MOST_EPOCHS: Final = 100_000
MOST_STEPS: Final = 1_000_000
"""Steps of one epoch."""
MOST_SLICES: Final = 4096
"""Slices of one batch."""
WIDEST: Final = 1024
"""Channels at the first downsampling level; the paper's networks have 64."""
LONGEST_SIDE: Final = 4096
"""Voxels along one side of a crop."""
MOST_WORKERS: Final = 1024
MOST_CPUS: Final = 1024
MOST_GPUS: Final = 64
MOST_UPDATES: Final = 100
"""Updates of the critic for each of the segmentor."""
MOST_RETRIES: Final = 100
MOST_FOLDS: Final = 1000
MOST_CASES: Final = 100_000
MOST_SEED: Final = 2**63 - 1
MOST_TRIALS: Final = 100_000
MOST_SEEDS: Final = 1000
MOST_WEIGHTS: Final = 10**9
"""Of one network; 4 GB, and twice that again for its optimizer."""

_WIDEST_FACTOR: Final = 8


def segan_weights(channels: int, regions: int, depth: int, base_width: int, *, concat: bool) -> int:
    """Return how many weights the convolutions of a segmentor of SegAN have."""
    widths = _widths(base_width, depth)
    joined = 2 if concat else 1
    deeper = [width * joined for width in widths[:-1]]
    up = sum(
        9 * below * above for above, below in zip(widths, [*deeper[1:], widths[-1]], strict=False)
    )
    return critic_weights(channels, depth, base_width) + up + 9 * widths[0] * joined * regions


def critic_weights(channels: int, depth: int, base_width: int) -> int:
    """Return how many weights the convolutions of one critic have."""
    return sum(
        16 * before * after for before, after in pairwise([channels, *_widths(base_width, depth)])
    )


def unet_weights(channels: int, regions: int, depth: int, base_width: int) -> int:
    """Return how many weights the convolutions of MONAI's U-Net have."""
    widths = [base_width << level for level in range(depth + 1)]
    down = sum(9 * before * after for before, after in pairwise([channels, *widths]))
    joined = [2 * width for width in widths[:-2]] + [widths[-2] + widths[-1]]
    up = sum(9 * before * after for before, after in zip(joined, [regions, *widths], strict=False))
    return down + up


def _widths(base_width: int, depth: int) -> list[int]:
    return [base_width * min(1 << level, _WIDEST_FACTOR) for level in range(depth)]
