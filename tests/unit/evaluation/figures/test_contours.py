"""Outlines as lines: they close, enclose what they outline, and can be dashed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segan_ray.evaluation.figures.contours import contours, dashes

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans())


def area(line: np.ndarray) -> float:
    """Return what a line encloses, below 0 where it runs around a hole (shoelace formula)."""
    x, y = line.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def corners_cut(line: np.ndarray) -> float:
    """Return the area between the line through middles of edges and the edges: ⅛ each turn."""
    steps = np.roll(line, -1, axis=0) - line
    turns = (np.abs(steps) == 0.5).all(axis=1)
    return float(turns.sum()) / 8


@given(masks)
def test_there_is_a_point_for_each_edge_between_inside_and_outside(mask: np.ndarray) -> None:
    padded = np.pad(mask, 1).astype(int)
    edges = np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
    assert sum(len(line) for line in contours(mask)) == edges


@given(masks)
def test_lines_enclose_the_pixels_but_for_their_corners(mask: np.ndarray) -> None:
    lines = contours(mask)
    cut = sum(corners_cut(line) for line in lines)
    assert sum(map(area, lines)) == pytest.approx(mask.sum(), abs=cut + 1e-9)


def test_a_hole_has_a_line_of_its_own_the_other_way() -> None:
    ring = np.ones((3, 3), dtype=bool)
    ring[1, 1] = False
    outer, hole = sorted(contours(ring), key=lambda line: -len(line))
    assert (len(outer), len(hole)) == (12, 4)
    assert area(outer) > 0 > area(hole)


def test_a_single_pixel_is_a_diamond() -> None:
    mask = np.zeros((4, 5), dtype=bool)
    mask[2, 3] = True
    (line,) = contours(mask)
    assert {tuple(point) for point in line.tolist()} == {(3.5, 2), (4, 2.5), (3.5, 3), (3, 2.5)}


@pytest.mark.parametrize("length", [1.0, 3.0, 50.0])
def test_dashes_cover_half_the_line(length: float) -> None:
    square = np.array([[0.0, 0], [20, 0], [20, 10], [0, 10]])
    found = list(dashes(square, length))
    assert len(found) == max(1, round(60 / (2 * length)))
    covered = sum(np.hypot(*np.diff(dash, axis=0).T).sum() for dash in found)
    assert covered == pytest.approx(30, rel=0.1)
