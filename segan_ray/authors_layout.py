"""The levels of the networks in the authors' published code.

Two public repositories of the authors of Xue et al. 2018: the skin network segments lesions in
colour images, the brain network tumours of BRATS 2015.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Published = Literal["brain", "skin"]


@dataclass(frozen=True)
class NetworkLayout:
    """The levels of a network: (kernel, width) of each, widths in multiples of the base width.

    Each level of ``down`` halves the grid, each of ``up`` doubles it; the head doubles it once
    more. ``bottleneck`` are 1×1 convolutions at the deepest level. Kernels of ``up`` above 3 are
    separable.
    """

    down: tuple[tuple[int, int], ...]
    bottleneck: tuple[int, ...]
    up: tuple[tuple[int, int], ...]


LAYOUTS: Final[dict[Published, NetworkLayout]] = {
    "brain": NetworkLayout(
        down=((7, 1), (5, 2), (5, 4), (5, 8), (5, 16), (4, 32)),
        bottleneck=(32,),
        up=((3, 16), (7, 8), (7, 4), (9, 2), (9, 1)),
    ),
    "skin": NetworkLayout(
        down=((7, 1), (5, 2), (5, 4), (5, 8), (5, 8), (4, 16), (3, 32)),
        bottleneck=(8, 32),
        up=((3, 16), (3, 8), (7, 8), (7, 4), (9, 2), (9, 1)),
    ),
}
RESIDUAL_LEVELS: Final = 5
"""The first five levels down have a residual block, later ones but the deepest a 1×1 residual."""
SEPARABLE_ABOVE: Final = 3
HEAD_KERNELS: Final = (11, 5)
"""At full resolution: separable, then to the maps."""
