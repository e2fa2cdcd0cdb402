"""Symbols drawn by units (images, blocks of text), and their counts with groups left out."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from lab.core.errors import LabError

FEWEST_UNITS = 8
MOST_GROUPS = 64


def group_count(units: int) -> int:
    """The largest power of two, at most 64, that is no more than the units.

    Raises LabError below 8 units: no error could be stated.
    """
    if units < FEWEST_UNITS:
        raise LabError(f"{units} images or blocks: an error needs at least {FEWEST_UNITS}")
    return min(MOST_GROUPS, 1 << (units.bit_length() - 1))


@dataclasses.dataclass(frozen=True, eq=False)
class Draws:
    """Symbols (U, M) of U units in random order, which fall into groups of consecutive units.

    `symbols` are 0..S-1, dense; `alphabet` is how many there could have been.
    """

    symbols: np.ndarray
    alphabet: float

    @property
    def units(self) -> int:
        """Units: what is drawn independently."""
        return len(self.symbols)

    @functools.cached_property
    def groups(self) -> int:
        """Groups of units."""
        return group_count(self.units)

    @functools.cached_property
    def distinct(self) -> int:
        """Symbols that were drawn."""
        return int(self.symbols.max()) + 1

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """(S,) times each symbol was drawn."""
        return self._count(0, self.units)

    def first(self, groups: int) -> tuple[int, np.ndarray]:
        """Units and counts (S,) of the first groups."""
        end = self._bound(groups)
        return end, self._count(0, end)

    def without_each(self) -> Iterator[np.ndarray]:
        """Counts (S,) without group 0, without group 1, ..."""
        for group in range(self.groups):
            yield self.counts - self._count(self._bound(group), self._bound(group + 1))

    def _bound(self, group: int) -> int:
        return self.units * group // self.groups

    def _count(self, start: int, stop: int) -> np.ndarray:
        return np.bincount(self.symbols[start:stop].ravel(), minlength=self.distinct)


def draws_of(values: np.ndarray, *, alphabet: float) -> Draws:
    """Draws of any non-negative integers (U, ...), a unit a row; the units are in random order."""
    _, dense = np.unique(values, return_inverse=True)
    return Draws(dense.reshape(len(values), -1), float(alphabet))


def paired(left: Draws, right: Draws) -> Draws:
    """Draws of the ordered pairs of two draws of equal shape."""
    pairs = left.symbols.astype(np.int64) * right.distinct + right.symbols
    return draws_of(pairs, alphabet=left.alphabet * right.alphabet)


def standard_error(left_out: np.ndarray) -> np.ndarray:
    """Jackknife standard error of statistics (G, ...), each computed with one group left out."""
    groups = len(left_out)
    spread = left_out - left_out.mean(axis=0)
    return np.sqrt((groups - 1) / groups * np.sum(spread**2, axis=0))


def t_quantile(groups: int, *, level: float) -> float:
    """Half the width of a two-sided interval of this level, in standard errors."""
    from scipy.stats import t

    return float(t.ppf(0.5 + level / 2, groups - 1))
