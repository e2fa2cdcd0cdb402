"""Entropy in nats from counts of what was drawn: plain, and corrected for what was not seen.

Every estimator reads the counts of counts alone, so the alphabet may be 2**32 and more. None knows
more than independent draws tell; how far that carries is judged in lab/metrics/estimate.py.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
from collections.abc import Callable

import numpy as np

from lab.core.errors import LabError
from lab.metrics.nsb import nsb_nats

EXACT_TERMS = 1000  # of the tail's sum; the rest is its integral


class Estimator(enum.StrEnum):
    """How an entropy is estimated."""

    PLUG_IN = "plug_in"
    MILLER_MADOW = "miller_madow"
    CHAO_SHEN = "chao_shen"
    CHAO_WANG_JOST = "chao_wang_jost"
    NSB = "nsb"


# Least worst-case bias of these at n >= K over uniform, Zipf, geometric and Dirichlet sources
# (tests/metrics/test_entropy.py prints the table), and it needs no alphabet.
HEADLINE = Estimator.CHAO_WANG_JOST


@dataclasses.dataclass(frozen=True, eq=False)
class CountsOfCounts:
    """How many symbols were drawn how often: `symbols[i]` of them `times[i]` times each."""

    times: np.ndarray  # (D,) int64, > 0, increasing
    symbols: np.ndarray  # (D,) int64, > 0

    @functools.cached_property
    def draws(self) -> int:
        """Draws in all."""
        return int(self.times @ self.symbols)

    @functools.cached_property
    def distinct(self) -> int:
        """Symbols that were drawn."""
        return int(self.symbols.sum())

    def symbols_drawn(self, times: int) -> int:
        """Symbols that were drawn just so often."""
        return int(self.symbols[self.times == times].sum())

    @property
    def coverage(self) -> float:
        """Good's estimate of the mass of the symbols that were drawn: 1 - f1 / n."""
        return 1 - self.symbols_drawn(1) / self.draws


def counts_of_counts(counts: np.ndarray) -> CountsOfCounts:
    """Of counts of symbols in any order; zeros are left out. Raises LabError where none is left."""
    seen = counts[counts > 0]
    if seen.size == 0:
        raise LabError("entropy of counts: nothing was drawn")
    if seen.max() <= 4 * seen.size + 1024:  # a table is faster than sorting
        table = np.bincount(seen)
        times = np.flatnonzero(table)
        return CountsOfCounts(times, table[times])
    times, symbols = np.unique(seen, return_counts=True)
    return CountsOfCounts(times.astype(np.int64), symbols.astype(np.int64))


def plug_in_nats(counts: CountsOfCounts) -> float:
    """Entropy of the empirical distribution; too low by about (K - 1) / 2n."""
    times = counts.times.astype(np.float64)
    return math.log(counts.draws) - float(counts.symbols @ (times * np.log(times))) / counts.draws


def miller_madow_nats(counts: CountsOfCounts) -> float:
    """Plug-in plus the first term of its bias, of the symbols seen (Miller 1955)."""
    return plug_in_nats(counts) + (counts.distinct - 1) / (2 * counts.draws)


def chao_shen_nats(counts: CountsOfCounts) -> float:
    """Horvitz-Thompson over probabilities scaled by Good's coverage (Chao and Shen 2003, eq. 8)."""
    draws = counts.draws
    singles = min(counts.symbols_drawn(1), draws - 1)  # coverage 0 has no estimate
    p = (1 - singles / draws) * counts.times / draws
    with np.errstate(divide="ignore"):  # a single symbol has p = 1: surely seen
        unseen = np.exp(draws * np.log1p(-p))
    return float(counts.symbols @ (-p * np.log(p) / (1 - unseen)))


def chao_wang_jost_nats(counts: CountsOfCounts) -> float:
    """From the slope of the species accumulation curve (Chao, Wang and Jost 2013, eq. 7)."""
    from scipy.special import digamma

    draws = counts.draws
    once, twice = counts.symbols_drawn(1), counts.symbols_drawn(2)
    seen = float(counts.symbols @ (counts.times * (digamma(draws) - digamma(counts.times))))
    if twice:
        a = 2 * twice / ((draws - 1) * once + 2 * twice)
    elif once:
        a = 2 / ((draws - 1) * (once - 1) + 2)
    else:
        a = 1.0
    if a == 1:
        return seen / draws
    return seen / draws + once / draws * (1 - a) * _tail(1 - a, draws)


def _tail(x: float, n: int) -> float:
    """The sum over j >= 0 of x**j / (n + j), 0 < x < 1: terms, then the integral of the rest."""
    from scipy.special import exp1

    j = np.arange(EXACT_TERMS)
    rate, start = -math.log1p(x - 1), EXACT_TERMS - 0.5  # midpoint rule
    y = rate * (n + start)
    scaled = math.exp(y) * float(exp1(y)) if y < 600 else (1 - 1 / y) / y
    return float(np.sum(np.exp(-rate * j) / (n + j))) + math.exp(-rate * start) * scaled


def entropy_nats(counts: CountsOfCounts, *, alphabet: float, by: Estimator) -> float:
    """Entropy by one estimator; `alphabet` (symbols that there are) is read by NSB alone."""
    if by is Estimator.NSB:
        return nsb_nats(counts.times, counts.symbols, alphabet=alphabet)
    of: dict[Estimator, Callable[[CountsOfCounts], float]] = {
        Estimator.PLUG_IN: plug_in_nats,
        Estimator.MILLER_MADOW: miller_madow_nats,
        Estimator.CHAO_SHEN: chao_shen_nats,
        Estimator.CHAO_WANG_JOST: chao_wang_jost_nats,
    }
    return of[by](counts)
