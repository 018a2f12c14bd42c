"""How large settings may be, and how many weights their networks have; no network is made.

Bounds are far above any real training. They refuse a slip of the keyboard before memory, disks or
centuries are spent on it.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from segan_ray.authors_layout import (
    HEAD_KERNELS,
    LAYOUTS,
    RESIDUAL_LEVELS,
    SEPARABLE_ABOVE,
    Published,
)

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
MOST_HOURS: Final = 1_000_000
"""Of a sweep, or of its GPUs together: more than a century of one."""
MOST_WEIGHTS: Final = 10**9
"""Of one network; 4 GB, and twice that again for its optimizer."""

_WIDEST_FACTOR: Final = 8


def segan_weights(
    channels: int, regions: int, depth: int, base_width: int, *, concat: bool, full_resolution: bool
) -> int:
    """Return how many weights the convolutions of a segmentor of SegAN have."""
    widths = _widths(base_width, depth)
    joined = 2 if concat else 1
    deeper = [width * joined for width in widths[:-1]]
    up = sum(
        9 * below * above for above, below in zip(widths, [*deeper[1:], widths[-1]], strict=False)
    )
    last = widths[0] * joined
    head = 9 * (last * base_width + base_width * regions) if full_resolution else 9 * last * regions
    return critic_weights(channels, depth, base_width) + up + head


def authors_weights(channels: int, regions: int, base_width: int, published: Published) -> int:
    """Return how many weights the convolutions of the authors' published network have."""
    layout, width = LAYOUTS[published], base_width
    total, before = 0, channels
    for level, (kernel, factor) in enumerate(layout.down):
        after = factor * width
        total += kernel**2 * before * after
        if level < RESIDUAL_LEVELS:
            total += _residual(after)
        elif level < len(layout.down) - 1:
            total += after**2
        before = after
    for factor in layout.bottleneck:
        total += before * factor * width
        before = factor * width
    for level, (kernel, factor) in enumerate(layout.up):
        after = factor * width
        separable = kernel > SEPARABLE_ABOVE
        total += _separable(before, after, kernel) if separable else kernel**2 * before * after
        total += _residual(after) if level else after**2
        before = 2 * after
    wide, narrow = HEAD_KERNELS
    return total + _separable(before, width, wide) + _residual(width) + narrow**2 * width * regions


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


def residual_unet_weights(channels: int, regions: int, depth: int, base_width: int) -> int:
    """Return how many weights the convolutions of MONAI's U-Net with residual units have."""
    widths = [base_width << level for level in range(depth + 1)]
    plain = unet_weights(channels, regions, depth, base_width)
    down = sum(
        9 * (after**2 + before * after) for before, after in pairwise([channels, *widths[:-1]])
    )
    deepest = 9 * widths[-1] ** 2 + widths[-2] * widths[-1]
    up = sum(9 * width**2 for width in [regions, *widths[: depth - 1]])
    return plain + down + deepest + up


def segresnet_weights(channels: int, regions: int, depth: int, base_width: int) -> int:
    """Return how many weights the convolutions of MONAI's SegResNet have."""
    widths = [base_width << level for level in range(depth + 1)]
    down = sum(18 * width**2 for width in widths)
    down += sum(9 * before * after for before, after in pairwise([channels, *widths]))
    up = sum(before * after + 18 * before**2 for before, after in pairwise(widths))
    return down + up + base_width * regions


def _residual(width: int) -> int:
    return 40 * width**2


def _separable(before: int, after: int, kernel: int) -> int:
    return 2 * kernel * (before * after + after**2)


def _widths(base_width: int, depth: int) -> list[int]:
    return [base_width * min(1 << level, _WIDEST_FACTOR) for level in range(depth)]
