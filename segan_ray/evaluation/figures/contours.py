"""The outline of a region as lines, which can be drawn solid, dashed and at any size."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float

Line = Float[np.ndarray, "point xy"]
Corner = tuple[int, int]


def contours(region: Bool[np.ndarray, "height width"]) -> list[Line]:
    """Return the closed lines around ``region``, clockwise, and around its holes the other way.

    Each point is the middle of a pixel edge between inside and outside, in pixels from the corner
    of the first pixel. The first point is not repeated at the end.
    """
    return [(loop[:-1] + loop[1:]) / 2 for loop in _loops(_edges(region))]


def dashes(line: Line, length: float) -> Iterator[Line]:
    """Yield every other stretch of ``length`` along a closed line, as points one unit apart."""
    closed = np.concatenate([line, line[:1]])
    steps = np.hypot(*np.diff(closed, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    # A whole number of dashes and gaps, so that the last does not run into the first.
    pairs = max(1, round(along[-1] / (2 * length)))
    stretch = along[-1] / (2 * pairs)
    for start in np.arange(pairs) * 2 * stretch:
        at = np.linspace(start, start + stretch, max(2, round(stretch) + 1))
        yield np.stack([np.interp(at, along, closed[:, axis]) for axis in (0, 1)], axis=1)


def _edges(region: Bool[np.ndarray, "height width"]) -> dict[Corner, list[Corner]]:
    """Return ``{corner: next corners}`` of the edges, each with the inside to its right."""
    inside = np.pad(region, 1)
    core = inside[1:-1, 1:-1]
    # The neighbour across each edge, and where the edge starts and ends: (x, y) of a pixel plus.
    sides = (
        (inside[:-2, 1:-1], (0, 0), (1, 0)),
        (inside[1:-1, 2:], (1, 0), (1, 1)),
        (inside[2:, 1:-1], (1, 1), (0, 1)),
        (inside[1:-1, :-2], (0, 1), (0, 0)),
    )
    ahead: dict[Corner, list[Corner]] = {}
    for across, start, end in sides:
        for y, x in np.argwhere(core & ~across).tolist():
            ahead.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    return ahead


def _loops(ahead: dict[Corner, list[Corner]]) -> Iterator[Line]:
    """Walk along the edges until all are used; at every corner as many leave as arrive."""
    while ahead:
        first = next(iter(ahead))
        walked = [first]
        while len(walked) == 1 or walked[-1] != first:
            at = walked[-1]
            walked.append(ahead[at].pop())
            if not ahead[at]:
                del ahead[at]
        yield np.array(walked, dtype=np.float64)
