"""Mutual information of tokens against their distance in the grid.

Of an alphabet of K tokens the K**2 pairs are seldom seen often enough, so three numbers stand at
each distance: plug-in less that of pairs from two different units (what chance gives with the same
tokens), which is no bound, of any alphabet; the information that coarse groups of the tokens share,
a bound from below by the data-processing inequality, with an error; and of bits each bit's own.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lab.core.errors import LabError
from lab.metrics.bigram import shifted
from lab.metrics.draws import draws_of, group_count, paired, standard_error, t_quantile
from lab.metrics.entropy import counts_of_counts, plug_in_nats
from lab.metrics.estimate import LEVEL
from lab.metrics.grids import TokenGrids

COARSE_GROUPS = 16
ROUNDS = 50  # of power iteration


@dataclasses.dataclass(frozen=True, kw_only=True)
class Offset:
    """Mutual information of two tokens `rows` down and `columns` to the right of each other."""

    rows: int
    columns: int
    pairs: int
    plug_in_nats: float
    shuffled_nats: float  # plug-in of pairs whose tokens are of two units
    coarse_nats: float  # of COARSE_GROUPS groups: at most the truth but for noise
    coarse_se_nats: float
    coarse_interval_nats: tuple[float, float]
    bits_mean_nats: float | None  # of each bit with the same bit there
    bits_max_nats: float | None

    @property
    def corrected_nats(self) -> float:
        """Plug-in less what chance gives."""
        return self.plug_in_nats - self.shuffled_nats

    def as_json(self) -> dict[str, Any]:
        """For a record."""
        return {**dataclasses.asdict(self), "corrected_nats": self.corrected_nats}


def offsets_of(height: int, width: int) -> list[tuple[int, int]]:
    """(rows, columns) at distances 1, 2, 4, ... along rows and along columns."""
    powers = [1 << i for i in range(16)]
    along = [(0, step) for step in powers if step < width]
    return along + [(step, 0) for step in powers if step < height]


def information_against_distance(
    grids: TokenGrids, *, offsets: list[tuple[int, int]] | None = None
) -> list[Offset]:
    """At every offset of a grid. Groups are fitted on half of the units, measured on the rest."""
    grid = draws_of(grids.ids_UVHW, alphabet=grids.alphabet).symbols.reshape(grids.ids_UVHW.shape)
    chosen = offsets_of(*grid.shape[2:]) if offsets is None else offsets
    if not chosen:
        return []
    coarse = _coarse(grids, grid, rows=chosen[0][0], columns=chosen[0][1])
    return [_at(grids, grid, coarse, rows=rows, columns=columns) for rows, columns in chosen]


def _coarse(grids: TokenGrids, grid: np.ndarray, *, rows: int, columns: int) -> np.ndarray:
    """Group of each token of the second half of the units; the first half chooses the groups.

    Of bits the groups are the values of the four bits that have the most information on themselves
    at the offset.
    """
    half = grids.units // 2
    if grids.bits_UVHWD is not None:
        own = bits_information_nats(grids.bits_UVHWD[:half], rows=rows, columns=columns)
        best = np.argsort(-own, kind="stable")[: COARSE_GROUPS.bit_length() - 1]
        kept = grids.bits_UVHWD[half:][..., np.sort(best)].astype(np.int64)
        return kept @ (1 << np.arange(kept.shape[-1]))
    first, second = shifted(grid[:half], rows=rows, columns=columns)
    return coarse_groups(first, second, symbols=int(grid.max()) + 1)[grid[half:]]


def _at(
    grids: TokenGrids, grid: np.ndarray, coarse: np.ndarray, *, rows: int, columns: int
) -> Offset:
    first, second = shifted(grid, rows=rows, columns=columns)
    if not first.size:
        raise LabError(f"{grids.name}: no pairs at offset ({rows}, {columns})")
    groups, se = _coarse_nats(*shifted(coarse, rows=rows, columns=columns))
    half_width = t_quantile(group_count(len(coarse)), level=LEVEL) * se
    bits = None
    if grids.bits_UVHWD is not None:
        bits = bits_information_nats(grids.bits_UVHWD, rows=rows, columns=columns)
    return Offset(
        rows=rows,
        columns=columns,
        pairs=first.size,
        plug_in_nats=plug_in_information_nats(first, second),
        shuffled_nats=plug_in_information_nats(first, np.roll(second, len(second) // 2, axis=0)),
        coarse_nats=groups,
        coarse_se_nats=se,
        coarse_interval_nats=(groups - half_width, groups + half_width),
        bits_mean_nats=None if bits is None else float(bits.mean()),
        bits_max_nats=None if bits is None else float(bits.max()),
    )


def plug_in_information_nats(first: np.ndarray, second: np.ndarray) -> float:
    """Of the empirical joint distribution of pairs (U, M)."""
    one, two = draws_of(first, alphabet=1), draws_of(second, alphabet=1)
    parts = [plug_in_nats(counts_of_counts(d.counts)) for d in (one, two, paired(one, two))]
    return parts[0] + parts[1] - parts[2]


def coarse_groups(first: np.ndarray, second: np.ndarray, *, symbols: int) -> np.ndarray:
    """Group (S,) of each symbol: equal masses along the direction in which neighbours agree most.

    The direction is the second eigenvector of the symmetric matrix of pairs, scaled by its
    marginals (correspondence analysis); a uniform part is added to the marginals, so that symbols
    that were drawn once do not make a direction of their own.
    """
    from scipy.sparse import coo_array

    ones = np.ones(first.size)
    pairs = coo_array((ones, (first.ravel(), second.ravel())), shape=(symbols, symbols)).tocsr()
    pairs = (pairs + pairs.T) / (2 * first.size)
    mass = np.asarray(pairs.sum(axis=1)).ravel()
    scale = 1 / np.sqrt(mass + 1 / symbols)
    top = np.sqrt(mass) / np.linalg.norm(np.sqrt(mass))
    v = np.random.default_rng(0).standard_normal(symbols)
    for _ in range(ROUNDS):
        v -= top * (top @ v)
        v = scale * (pairs @ (scale * v)) + v  # + v: the largest eigenvalue, not the most negative
        v /= np.linalg.norm(v)
    order = np.argsort(v * scale, kind="stable")
    before = np.cumsum(mass[order]) - mass[order] / 2
    group_of = np.empty(symbols, np.int64)
    group_of[order] = np.minimum((before * COARSE_GROUPS).astype(np.int64), COARSE_GROUPS - 1)
    return group_of


def _coarse_nats(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Corrected information of groups (U, M) and its jackknife error over units."""
    tables = joint_tables(first, second, size=COARSE_GROUPS)
    whole = tables.sum(axis=0)
    left_out = np.array([table_information_nats(whole - table) for table in tables])
    return table_information_nats(whole), float(standard_error(left_out))


def joint_tables(first: np.ndarray, second: np.ndarray, *, size: int) -> np.ndarray:
    """Counts (G, size, size) of pairs (U, M), a table a group of units."""
    units, groups = len(first), group_count(len(first))
    group = np.searchsorted(units * np.arange(1, groups + 1) // groups, np.arange(units), "right")
    cells = (group[:, None] * size + first) * size + second
    counts = np.bincount(cells.ravel(), minlength=groups * size * size)
    return counts.reshape(groups, size, size)


def table_information_nats(table: np.ndarray) -> float:
    """Mutual information of a table of counts, less what chance gives at these marginals.

    That is the degrees of freedom over 2n (of 2n I, chi-squared where the truth is 0). The number
    of cells that were seen, as Miller and Madow have it, takes too little off a thin table.
    """
    parts = [table.sum(axis=1), table.sum(axis=0), table.ravel()]
    one, two, both = (counts_of_counts(part) for part in parts)
    freedom = (one.distinct - 1) * (two.distinct - 1)
    nats = plug_in_nats(one) + plug_in_nats(two) - plug_in_nats(both)
    return nats - freedom / (2 * both.draws)


def bits_information_nats(bits: np.ndarray, *, rows: int, columns: int) -> np.ndarray:
    """Corrected information (d,) of each bit with the same bit at the offset."""
    found = []
    for bit in range(bits.shape[-1]):
        first, second = shifted(bits[..., bit], rows=rows, columns=columns)
        cells = np.bincount((2 * first + second).ravel(), minlength=4).reshape(2, 2)
        found.append(table_information_nats(cells))
    return np.array(found)
