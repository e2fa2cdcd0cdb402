"""Ten leaf shapes as one atlas of masks, all of the same area as a disc of their radius."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np

CELLS = 96  # atlas cells a side
REACH = 2.5  # half the atlas side, in radii: the longest shape (the bar) and a free border fit in

Mask = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _polygon(corners: int, *, inner: float = 0.0) -> Mask:
    """A regular polygon of circumradius 1, or a star when an inner radius is given."""
    if not inner:
        half = math.pi / corners

        def regular(u: np.ndarray, v: np.ndarray) -> np.ndarray:
            turn = np.mod(np.arctan2(v, u), 2 * half) - half
            return np.hypot(u, v) * np.cos(turn) <= math.cos(half)

        return regular

    def star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        step = math.pi / corners
        turn = np.abs(np.mod(np.arctan2(v, u) + step, 2 * step) - step)
        # The edge runs from (1, 0) to the inner corner; inside is the origin's side of it.
        x, y = np.hypot(u, v) * np.cos(turn), np.hypot(u, v) * np.sin(turn)
        corner_x, corner_y = inner * math.cos(step), inner * math.sin(step)
        return (corner_x - 1) * y - corner_y * (x - 1) >= 0

    return star


def _disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u**2 + v**2 <= 1


def _ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u**2 + (v / 0.5) ** 2 <= 1


def _bar(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (np.abs(u) <= 1) & (np.abs(v) <= 0.22)


def _ring(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (u**2 + v**2 <= 1) & (u**2 + v**2 >= 0.5**2)


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a, b = np.abs(u), np.abs(v)
    return (np.maximum(a, b) <= 1) & (np.minimum(a, b) <= 0.35)


def _half_disc(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return ((u - 0.4) ** 2 + v**2 <= 1) & (u >= 0.4)


# Shape by name: its mask in units of its own, and the exact area of that mask.
SHAPES: dict[str, tuple[Mask, float]] = {
    "disc": (_disc, math.pi),
    "square": (_polygon(4), 2.0),
    "triangle": (_polygon(3), 0.75 * math.sqrt(3)),
    "ellipse": (_ellipse, math.pi * 0.5),
    "bar": (_bar, 4 * 0.22),
    "ring": (_ring, math.pi * 0.75),
    "cross": (_cross, 4 * (2 * 0.35 - 0.35**2)),
    "star": (_polygon(5, inner=0.45), 5 * 0.45 * math.sin(math.pi / 5)),
    "half_disc": (_half_disc, math.pi / 2),
    "hexagon": (_polygon(6), 1.5 * math.sqrt(3)),
}


@functools.cache
def atlas() -> np.ndarray:
    """Masks (shape, CELLS, CELLS) bool over [-REACH, REACH] squared, in units of the leaf radius.

    A shape is scaled to the area pi of the unit disc, so a size law means the same for all.
    """
    line = (np.arange(CELLS) + 0.5) / CELLS * 2 * REACH - REACH
    u, v = np.meshgrid(line, line, indexing="xy")
    masks = []
    for mask, area in SHAPES.values():
        scale = math.sqrt(area / math.pi)
        masks.append(mask(u * scale, v * scale))
    return np.stack(masks)


@functools.cache
def reaches() -> np.ndarray:
    """Distance of each shape's farthest point from its centre, in leaf radii (shape,)."""
    line = (np.arange(CELLS) + 0.5) / CELLS * 2 * REACH - REACH
    distance = np.hypot(*np.meshgrid(line, line))
    return np.array([distance[mask].max() for mask in atlas()])
