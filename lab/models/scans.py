"""In which order the cells of a grid follow each other: a permutation by name.

Rows, columns, both in zigzag and the diagonal are those that ELM compares (arXiv 2410.16257);
rows, zigzag, spiral, z-curve and subsampling those of VQGAN (Esser et al. 2021).
"""

import hashlib
from collections.abc import Callable

import numpy as np

Key = tuple[int | bytes, ...]  # cells follow each other as their keys do


def scan(name: str, rows: int, columns: int) -> np.ndarray:
    """Cells (rows * columns,) in the order of a scan, each as its number in raster order."""
    key = SCANS[name]
    cells = [(row, column) for row in range(rows) for column in range(columns)]
    ordered = sorted(cells, key=lambda cell: key(*cell, rows, columns))
    return np.array([row * columns + column for row, column in ordered])


def known_begins(hidden: np.ndarray) -> bool:
    """Whether in rows (..., N) along a scan nothing that is known comes after what is drawn."""
    return not (hidden[..., :-1] & ~hidden[..., 1:]).any()


def _rows(row: int, column: int, rows: int, columns: int) -> Key:
    """Raster order: row after row, each from the left."""
    return row, column


def _columns(row: int, column: int, rows: int, columns: int) -> Key:
    """Column after column, each from the top."""
    return column, row


def _rows_zigzag(row: int, column: int, rows: int, columns: int) -> Key:
    """Row after row, every second one from the right."""
    return row, -column if row % 2 else column


def _columns_zigzag(row: int, column: int, rows: int, columns: int) -> Key:
    """Column after column, every second one from below."""
    return column, -row if column % 2 else row


def _diagonal(row: int, column: int, rows: int, columns: int) -> Key:
    """Diagonal after diagonal from the upper left corner, each from its upper right end."""
    return row + column, row


def _spiral(row: int, column: int, rows: int, columns: int) -> Key:
    """Ring after ring from outside, each clockwise from its upper left corner."""
    ring = min(row, column, rows - 1 - row, columns - 1 - column)
    last_row, last_column = rows - 1 - ring, columns - 1 - ring
    if row == ring:
        return ring, 0, column
    if column == last_column:
        return ring, 1, row
    if row == last_row:
        return ring, 2, -column
    return ring, 3, -row


def _z_curve(row: int, column: int, rows: int, columns: int) -> Key:
    """Quarter after quarter, and so inside each: the bits of row and column in turn (Morton)."""
    bits = range(_bits(rows, columns))
    return (sum(_bit(row, b) << 2 * b + 1 | _bit(column, b) << 2 * b for b in bits),)


def _hilbert(row: int, column: int, rows: int, columns: int) -> Key:
    """The Hilbert curve of the least square of 2^k cells a side that holds the grid.

    In a square of 2^k each cell is beside the next.
    """
    place = 0
    for level in reversed(range(_bits(rows, columns))):
        side = 1 << level
        down, right = _bit(row, level), _bit(column, level)
        place += side * side * (3 * right ^ down)
        row, column = row % side, column % side
        if not down:  # the first and the last quarter lie on their side
            if right:
                row, column = side - 1 - row, side - 1 - column
            row, column = column, row
    return (place,)


def _subsample(row: int, column: int, rows: int, columns: int) -> Key:
    """From coarse to fine: every 2^k-th row and column, then what lies between at half of it."""
    both = row | column
    spacing = both & -both or 2 ** _bits(rows, columns)
    return -spacing, row, column


def _shuffled(row: int, column: int, rows: int, columns: int) -> Key:
    """One order without any order in it, always the same one."""
    return (hashlib.sha256(f"{row},{column}".encode()).digest(),)


def _bit(number: int, place: int) -> int:
    return number >> place & 1


def _bits(rows: int, columns: int) -> int:
    """Of the largest row or column."""
    return (max(rows, columns) - 1).bit_length()


SCANS: dict[str, Callable[[int, int, int, int], Key]] = {
    "rows": _rows,
    "columns": _columns,
    "rows_zigzag": _rows_zigzag,
    "columns_zigzag": _columns_zigzag,
    "diagonal": _diagonal,
    "spiral": _spiral,
    "z_curve": _z_curve,
    "hilbert": _hilbert,
    "subsample": _subsample,
    "shuffled": _shuffled,
}
